"""Where repsim's means, maps and defaults are wrong."""

from collections.abc import Iterator

import repsim
import torch
from findings import Row, distance, normal
from repsim.geometry import optimize, stats
from repsim.stats import ManifoldPCA
from repsim.stats.spherical_mds import _spherical_mds_single


def means() -> Iterator[Row]:
    """Fréchet means."""
    never = [each.name for each in optimize.OptimResult if not each]
    yield Row("results that `if not converged` warns of", f"{never}", "3 of 4", "members of an Enum are true")
    alias = optimize.OptimResult.NO_OPT_NEEDED is optimize.OptimResult.CONVERGED
    yield Row("NO_OPT_NEEDED is CONVERGED", f"{alias}", "False", "both 0: an alias")
    space = repsim.AngularCKA(20)
    points = [space.neural_data_to_point(normal(20, 5)) for _ in range(4)]
    try:
        stats.optimize_frechet_mean(space, points)
        given = "a mean"
    except ValueError as error:
        given = f"ValueError: {error}"
    yield Row("optimize_frechet_mean(space, points), defaults", given, "a mean", "np.random.choice of matrices")
    tangents = ManifoldPCA(space).fit(torch.stack(points))
    given, right = float(tangents.scales_[0]), float(tangents.singular_values_[0] / 2)
    yield Row("ManifoldPCA.scales_ of 4 points", f"{given:.3f}", f"{right:.3f}", "deviation s/√P, not √s")


def spherical_maps() -> Iterator[Row]:
    """Maps on the sphere."""
    places = normal(20, 3)
    places /= torch.linalg.norm(places, dim=1, keepdim=True)
    exact = torch.arccos((places @ places.T).clip(-1, 1)).fill_diagonal_(0.0)
    torch.manual_seed(0)
    _, stress, steps = _spherical_mds_single(exact, init=places.clone(), random_state=0)
    given = f"{float(stress):.3f} after {steps + 1} steps"
    yield Row("stress of a map started at the exact solution", given, "0", "start is centred; stops though stress rose")
    directions = normal(12, 12)
    directions /= torch.linalg.norm(directions, dim=1, keepdim=True)
    wide = torch.arccos((directions @ directions.T).clip(-1, 1)).fill_diagonal_(0.0)
    worse = 0
    for seed in range(10):
        torch.manual_seed(seed)
        start, end = (_spherical_mds_single(wide, random_state=seed, max_inner_loop=4, max_iter=n)[1] for n in (0, 300))
        worse += bool(end > start)
    what = "maps of 12 points worse than their start, of 10 (max_inner_loop=4)"
    yield Row(what, f"{worse}", "0", "`old - new < eps` also where the stress rose; the best map is not kept")
    directions[1] = directions[0]
    twice = torch.arccos((directions @ directions.T).clip(-1, 1)).fill_diagonal_(0.0)
    twice[0, 1] = twice[1, 0] = 0.0
    found, _, _ = _spherical_mds_single(twice, random_state=0)
    given = f"{int(found.isnan().sum())} NaN of {found.numel()}"
    yield Row("map of 12 points, two of them equal", given, "0", "0 / 0 in the ratio of distances")


def defaults() -> Iterator[Row]:
    """What is said against what is done."""
    x, y = normal(20, 5), normal(20, 5)
    space = repsim.AngularCKA(20)
    same = float(repsim.compare(x, y)) == distance(repsim.Stress(20), x, y)
    yield Row("repsim.compare(x, y) is Stress, not angular CKA", f"{same}", "—", "README compares by angular CKA")
    yield Row("AngularCKA(20).dim, masked", f"{space.dim:.0f}", "189", "zero diagonal, unit norm: N(N - 1)/2 - 1")
    space.m = 30
    yield Row("the same after space.m = 30", f"{space.dim:.0f}", "434", "not renewed")
    try:
        given = f"{torch.qr(normal(3, 3))[1].shape}"
    except RuntimeError:
        given = "RuntimeError: removed"
    yield Row("torch.qr, which its tests of rotations call", given, "torch.linalg.qr", f"torch {torch.__version__}")
