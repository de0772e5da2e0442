"""Where repsim's tangents, geodesics, projections and angles are wrong."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import repsim
import torch
from findings import Row, normal, rotation
from repsim.geometry import optimize
from repsim.geometry.curvature import alexandrov
from repsim.geometry.hypersphere import HyperSphere
from repsim.geometry.trig import angle, slerp


def vertical() -> Iterator[Row]:
    """Rotations in shape space."""
    space = repsim.EuclideanShapeMetric(30, 6)
    point = space.neural_data_to_point(normal(30, 6))
    skew = normal(6, 6)
    skew = 0.3 * (skew - skew.T)
    ended = space.exp_map(point, point @ skew)
    right, wrong = point @ torch.matrix_exp(skew), point @ torch.matrix_exp(-skew)
    gaps = [float(torch.linalg.norm(ended - each)) for each in (right, wrong)]
    yield Row(
        "exp of XA, A skew, less X expm(A)",
        f"{gaps[0]:.2f}; less X expm(-A): {gaps[1]:.0e}",
        "0",
        "d/dt X expm(tA) = XA",
    )
    space = repsim.AngularShapeMetric(30, 6)
    point = space.neural_data_to_point(normal(30, 6))
    for size in (1e-1, 1e-4):
        along = point @ skew / torch.linalg.norm(point @ skew)
        given = float(torch.sqrt(space.inner_product(point, size * along, size * along).clip(0))) / size
        yield Row(
            f"norm of a rotation of size {size:.0e}, over it",
            f"{given:.2f}",
            "0",
            "a turn moves no shape; its square is clipped at 1e-7",
        )


def shape_curvature() -> Iterator[Row]:
    """Shape space is tested as flat."""
    space = repsim.EuclideanShapeMetric(20, 5)
    points = [[space.neural_data_to_point(normal(20, 5)) for _ in range(3)] for _ in range(50)]
    found = [float(alexandrov(space, *each)) for each in points]
    given = f"{np.mean(found):+.3f} (least {np.min(found):+.3f})"
    yield Row("curvature of Euclidean shape space, tested as flat", given, "> 0", "O'Neill: quotients by rotations")


def shape_transport() -> Iterator[Row]:
    """Parallel transport in shape space."""
    space = repsim.EuclideanShapeMetric(30, 6)
    a, b, c = (space.neural_data_to_point(normal(30, 6)) for _ in range(3))
    before = space.log_map(a, c)
    after = space.levi_civita(a, b, before)
    given = float(space.norm(b, after) / space.norm(a, before))
    yield Row("norm after transport, over before (shape)", f"{given:.3f}", "1", "parallel transport keeps norms")


def low_rank() -> Iterator[Row]:
    """Angles at a kernel of lower rank than its neighbours, where a rotation is free."""
    space = repsim.EuclideanShapeMetric(30, 30)
    features = [normal(30, width) for width in (15, 4, 20)]
    given = []
    for _ in range(3):
        points = [space.neural_data_to_point(each @ rotation(each.shape[1])) for each in features]
        given.append(f"{float(angle(space, *points)):.4f}")
    start, vertex, end = points
    near = [space.geodesic(vertex, each, frac=1e-3) for each in (start, end)]
    x, y, z = (float(space.length(*each)) for each in ((vertex, near[0]), (vertex, near[1]), tuple(near)))
    right = np.arccos((x**2 + y**2 - z**2) / (2 * x * y))
    what = "angle at a shape of rank 4 between ranks 15 and 20, features turned"
    yield Row(what, ", ".join(given), f"{right:.4f}", "law of cosines, sides 1e-3; a turn moves no shape")


def whitened() -> Iterator[Row]:
    """Whitened shapes."""
    space = repsim.EuclideanShapeMetric(30, 6, alpha=0.0)
    a, b = (space.neural_data_to_point(normal(30, 6)) for _ in range(2))
    mid = space.geodesic(a, b, frac=0.5)
    given = f"in space: {bool(space.contains(mid))}; norm {float(torch.linalg.norm(mid)):.2f}"
    yield Row("midpoint of whitened shapes (alpha = 0)", given, f"norm {np.sqrt(180):.2f}", "white: tr XᵀX = N d")


def geodesic_of_near() -> Iterator[Row]:
    """Geodesics between close points do not move."""
    space, x = repsim.AngularCKA(40, use_unbiased_hsic=False), normal(40, 10)
    a, b = (space.neural_data_to_point(each) for each in (x, x + 1e-7 * normal(40, 10)))
    ended = space.geodesic(a, b, frac=0.9)
    given, whole = float(torch.linalg.norm(ended - a)), float(torch.linalg.norm(b - a))
    yield Row(
        f"G(0.9) of points {whole:.0e} apart, distance from the start",
        f"{given:.0e}",
        f"{0.9 * whole:.0e}",
        "allclose(a, b) returns a",
    )


def projections() -> Iterator[Row]:
    """Projections that do not project."""
    space = repsim.AngularCKA(40, use_unbiased_hsic=False)
    a, b, c = (space.neural_data_to_point(normal(40, 10)) for _ in range(3))
    mid = slerp(a, b, 0.4)
    along = space.log_map(mid, b) / space.length(mid, b)
    across = space.log_map(mid, c)
    across = across - along * (across * along).sum()
    off = space.exp_map(mid, 1e-3 * across / torch.linalg.norm(across))
    found, _ = optimize.project_by_binary_search(space, a, b, off)
    given = float(space.length(found, off))
    what = "bisection: distance of a point 1.0e-3 rad off the geodesic"
    yield Row(what, f"{given:.1e}", "1.0e-03", "built so; taken as lying on it by isclose's relative 1e-5")
    sphere = HyperSphere(2)
    a, b = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.6, 0.8, 0]).double()
    c = torch.tensor([-0.8, 0.5, 0.1]).double()
    c /= torch.linalg.norm(c)
    with contextlib.redirect_stdout(io.StringIO()):
        found, status = optimize.project_by_tangent_iteration(sphere, a, b, c, max_iterations=2)
    given = f"{float(torch.atan2(found[1], found[0])):.4f} ({status.name}, the start)"
    right = float(torch.atan2(c[1], c[0]))
    yield Row(
        "tangent iteration, out of steps: angle from the start", given, f"towards {right:.4f}", "atan2(c·e₂, c·e₁)"
    )
    count = sum(growing(HyperSphere(20)) for _ in range(200))
    yield Row("tangent iteration without result, of 200 triples in 21-D", f"{count}", "0", "closed form always has one")


def growing(space: HyperSphere) -> bool:
    """Whether tangent iteration gives up on three random directions."""
    a, b, c = (each / torch.linalg.norm(each) for each in normal(3, space.dim + 1))
    with contextlib.redirect_stdout(io.StringIO()):
        _, status = optimize.project_by_tangent_iteration(space, a, b, c)
    return status is not optimize.OptimResult.CONVERGED
