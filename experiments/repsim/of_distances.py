"""Where repsim's points, distances and kernels are wrong."""

from collections.abc import Iterator

import numpy as np
import repsim
import torch
from findings import Row, distance, normal, rotation
from repsim import kernels


def masked_bias() -> Iterator[Row]:
    """The default is called unbiased."""
    for count, width in ((50, 5000), (200, 5000)):
        space = repsim.AngularCKA(count)
        cosines = [np.cos(distance(space, normal(count, width), normal(count, width))) for _ in range(6)]
        what = f'"unbiased" CKA of independent features, {count} inputs x {width:,} features'
        expected = width / (width + count**2)
        yield Row(what, f"{np.mean(cosines):.3f}", "0", f"independent; d / (d + N²) = {expected:.3f} is masking's bias")


def masked_white() -> Iterator[Row]:
    """A kernel without structure gets a direction."""
    space, labels = repsim.AngularCKA(50), torch.eye(5).double().repeat(10, 1)
    given = distance(space, torch.eye(50).double(), labels)
    yield Row("distance of a white kernel (identity) from labels, masked", f"{given:.4f}", "none: error", "U(I) = 0")
    space = repsim.AngularCKA(50, use_unbiased_hsic=False)
    try:
        given = f"{distance(space, torch.ones(50, 3).double(), labels):.4f}, no error"
    except Exception as error:
        given = f"{type(error).__name__} of the eigensolver"
    yield Row("distance from constant features (dead layer)", given, "none: error", "H K H = 0 has no direction")


def close_points() -> Iterator[Row]:
    """Small distances."""
    x, other = normal(40, 10), normal(40, 10)
    space = repsim.AngularCKA(40, use_unbiased_hsic=False)
    for dtype, steps in ((torch.float64, (1e-4, 1e-8, 1e-9)), (torch.float32, (1e-3, 1e-4))):
        for step in steps:
            near = x + step * other
            points = [space.neural_data_to_point(each) for each in (x, near)]
            # Chord of the difference worked out, not of two rounded kernels.
            change = kernels.center(step * (x @ other.T + other @ x.T) + step**2 * other @ other.T)
            change -= points[0] * (points[0] * change).sum()
            right = float(torch.linalg.norm(change) / torch.linalg.norm(kernels.center(x @ x.T)))
            found = float(space.length(*(each.to(dtype) for each in points)))
            what = f"distance after a perturbation of {step:.0e}, {str(dtype).split('.')[1]}"
            yield Row(what, f"{found:.3e}", f"{right:.3e}", "arccos near 1 has a floor; first order is exact here")


def translation() -> Iterator[Row]:
    """Features far from their mean."""
    x = normal(40, 10)
    for name, space in (("angular CKA", repsim.AngularCKA(40, use_unbiased_hsic=False)), ("Stress", repsim.Stress(40))):
        given = distance(space, x, x + 1e7)
        yield Row(f"{name}: d(x, x + 1e7)", f"{given:.1e}", "1e-9", "centring x first keeps all digits of x + 1e7")
    kernel = kernels.Laplace(3.0)
    given = float((kernel(x + 1e7) - kernel(x)).abs().max())
    yield Row("Laplace kernel of x + 1e7 less that of x", f"{given:.1e}", "1e-9", "depends on x - y only")
    space = repsim.AngularCKA(300, use_unbiased_hsic=False)
    inside = space.contains(space.neural_data_to_point((normal(300, 50) + 5).float()))
    yield Row(
        "a kernel of float32 features of mean 5 is in the space", f"{inside}", "True", "made by neural_data_to_point"
    )


def cross_kernel() -> Iterator[Row]:
    """Adaptive length scales of two arguments."""
    x = normal(40, 5)
    x[:10] *= 0.2
    kernel = kernels.SquaredExponential("auto")
    apart = float((kernel(x, x[:10].contiguous()) - kernel(x, x)[:, :10]).abs().max())
    yield Row(
        "k(x, x[:10]) less k(x, x)[:, :10], adaptive scale", f"{apart:.3f}", "0", "each argument has its own scale"
    )
    found = kernels.length_scale.auto_length_scale(x, "median + __import__('math').pi")
    what = "length_scale=\"median + __import__('math').pi\""
    yield Row(what, f"{found:.3f}: code was run", "error", "strings go through eval")
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).double()
    given = kernels.length_scale.median_euclidean(x)
    yield Row("median of the distances 1, 2, 3, 4, 6, 7", f"{given:.1f}", "3.5", "torch's median is the lower of two")


def affine_covariance() -> Iterator[Row]:
    """Principal axes of the affine-invariant metric."""
    x, turn = normal(40, 8) * torch.linspace(1, 3, 8), rotation(8)
    space = repsim.AffineInvariantRiemannian(40, p=5, mode="cov")
    given = float(torch.trace(space.neural_data_to_point(x)))
    values = torch.linalg.svdvals(x - x.mean(0))
    right = float((values[:5] ** 2).sum() / 39)
    yield Row(
        "variance on 5 of 8 principal axes (AIR, cov)", f"{given:.1f}", f"{right:.1f}", "sum of squared singular values"
    )
    whole = space.neural_data_to_point(x)
    turned = float(space.length(whole, space.neural_data_to_point(x @ turn)))
    projected = [(each - each.mean(0)) @ torch.linalg.svd(each - each.mean(0))[2][:5].T for each in (x, x @ turn)]
    covariances = [each.T @ each / 39 for each in projected]
    gap = (torch.linalg.eigvalsh(covariances[0]) - torch.linalg.eigvalsh(covariances[1])).abs().max()
    yield Row(
        "d(x, xQ) (AIR, cov)", f"{turned:.2f}", "0", f"axes turn with the data; spectra agree to {float(gap):.0e}"
    )
