"""Kernels of features and their length scales, which follow the data."""

import numpy as np
import pytest
import torch

from losskernel.errors import InputError
from losskernel.geometry import AngularCKA, Laplacian, Linear, Point, SquaredExponential

RNG = np.random.default_rng(2)
X = RNG.normal(size=(11, 4)) + 3
APART = np.linalg.norm(X[:, None] - X, axis=-1)
PAIRS = APART[np.triu_indices(11, 1)]


def test_closed_forms() -> None:
    np.testing.assert_allclose(Linear()(X), X @ X.T)
    np.testing.assert_allclose(SquaredExponential(2.0)(X), np.exp(-(APART**2) / 4), atol=1e-12)
    np.testing.assert_allclose(Laplacian(3)(X), np.exp(-APART / 3), atol=1e-12)


@pytest.mark.parametrize(
    ("formula", "length"),
    [
        ("median", np.median(PAIRS)),
        ("auto", np.median(PAIRS)),
        ("mean", PAIRS.mean()),
        ("median/2", np.median(PAIRS) / 2),
        ("2*median", 2 * np.median(PAIRS)),
        (" 0.5 * mean ", PAIRS.mean() / 2),
        ("mean*3", 3 * PAIRS.mean()),
        ("1e-1*median/.5", np.median(PAIRS) / 5),
    ],
)
def test_a_formula_is_a_length_on_the_distances(formula: str, length: float) -> None:
    np.testing.assert_allclose(Laplacian(formula)(X), np.exp(-APART / length), atol=1e-12)
    np.testing.assert_allclose(SquaredExponential(formula)(X), np.exp(-((APART / length) ** 2)), atol=1e-12)


@pytest.mark.parametrize("kernel", [SquaredExponential(), Laplacian("mean/2")])
def test_radial_kernels_with_adaptive_length_forget_scale_shift_and_rotation(kernel: Laplacian) -> None:
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    np.testing.assert_allclose(kernel(2.5 * X @ rotation - 7), kernel(X), atol=1e-12)
    values = np.linalg.eigvalsh(kernel(X))
    assert values.min() > 0  # positive definite for different inputs
    np.testing.assert_array_equal(np.diag(kernel(X)), 1)


def test_a_fixed_length_knows_scale() -> None:
    assert np.abs(SquaredExponential(1.0)(2 * X) - SquaredExponential(1.0)(X)).max() > 0.01


def test_half_precision_features_are_read_as_they_are() -> None:
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    for kind in (torch.bfloat16, torch.float16):
        narrow = features.to(kind)
        there, here = Point.from_features(narrow), Point.from_features(narrow.double())
        np.testing.assert_allclose(there.gram(), here.gram(), rtol=1e-5, atol=1e-5)


def test_points_take_a_kernel_of_their_features() -> None:
    point = Point.from_features(X.reshape(11, 2, 2), kernel=Laplacian())
    np.testing.assert_allclose(point.gram(), Laplacian()(X), atol=1e-12)
    assert AngularCKA().length(point, Point.from_features(X, kernel=Linear())) > 0.05
    assert AngularCKA().length(Point.from_features(X), Point.from_features(X, kernel=Linear())) < 1e-10


@pytest.mark.parametrize("kind", [SquaredExponential, Laplacian])
@pytest.mark.parametrize(
    ("length", "message"),
    [
        (0, "length must be > 0, got 0"),
        (float("nan"), "length must be finite"),
        (None, "length must be a number, got None"),
        ("variance", "length must be a number or a formula such as 'median/2' or '2\\*mean', got 'variance'"),
        ("__import__('os')", "length must be a number or a formula"),
        ("median+1", "length must be a number or a formula"),
        ("0*median", r"length must be > 0, got '0\*median'"),
        ("median/0", "length must be > 0, got 'median/0'"),
    ],
)
def test_lengths_that_are_none_are_refused(kind: type[Laplacian], length: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(length)  # pyright: ignore[reportArgumentType]


def test_features_without_distances_have_no_adaptive_length() -> None:
    with pytest.raises(InputError, match="length 'median' is 0: inputs are equal"):
        Laplacian()(np.ones((5, 2)))
    with pytest.raises(InputError, match="length 'mean' needs >= 2 inputs, got 1"):
        SquaredExponential("mean")(np.ones((1, 2)))
    np.testing.assert_array_equal(Laplacian(1.0)(np.ones((5, 2))), 1)
