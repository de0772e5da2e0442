"""Closed forms and refusals of single spaces: spheres, stress and the affine-invariant metric."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from losskernel.errors import InputError
from losskernel.geometry import AffineInvariant, AngularCKA, Bures, Point, Shape, Space, Stress
from losskernel.geometry.centring import CENTRINGS, centred
from losskernel.geometry.spaces.affine_invariant import PositiveDefinite
from losskernel.geometry.spaces.bures import UpToRotation
from losskernel.geometry.spaces.manifold import Flat, Sphere

RNG = np.random.default_rng(1)
START = RNG.bit_generator.state
EVERY = pytest.mark.parametrize("centring", CENTRINGS)
of = Point.from_features


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests() -> None:
    RNG.bit_generator.state = START


def features(width: int = 5, count: int = 12) -> np.ndarray:
    return RNG.normal(size=(count, width))


WHOLE, TANGENT = features(), np.ones((12, 5))


def labels(classes: int, copies: int) -> np.ndarray:
    return np.kron(np.eye(classes), np.ones((copies, 1)))


@EVERY
def test_a_geodesic_of_kernels_is_that_of_concatenated_features(centring: str) -> None:
    space, x, y = AngularCKA(centring), features(3), features(4)
    sizes = [np.linalg.norm(centred(item @ item.T, centring)) for item in (x, y)]
    angle = space.length(of(x), of(y))
    for t in (0.2, 0.5, 0.9):
        a, b = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
        both = np.concatenate([np.sqrt(a / sizes[0]) * x, np.sqrt(b / sizes[1]) * y], axis=1)
        assert space.length(space.geodesic(of(x), of(y), t), of(both)) < 1e-10


def test_closed_forms_of_labels() -> None:
    space, white = AngularCKA("double"), Point.from_gram(np.eye(200))
    fine, coarse = of(labels(10, 20)), of(labels(2, 100))
    assert space.length(white, fine) == pytest.approx(np.arccos(np.sqrt(9 / 199)), abs=1e-10)
    assert space.length(fine, coarse) == pytest.approx(np.arccos(1 / 3), abs=1e-10)
    length = space.length(white, fine) + space.length(fine, coarse)
    assert length == pytest.approx(2.587455, abs=1e-6)
    assert space.length(white, coarse) / length == pytest.approx(0.579662, abs=1e-6)
    assert space.angle(white, fine, coarse) == pytest.approx(np.pi / 2, abs=1e-10)
    thousand = space.length(Point.from_gram(np.eye(1000)), of(labels(10, 100)))
    assert thousand == pytest.approx(1.475737, abs=1e-6)


@pytest.mark.parametrize("space", [AngularCKA("u"), AngularCKA("double"), AngularCKA("masked"), Bures()])
def test_one_hot_labels_a_simplex_and_turned_class_means_are_one_point(space: Space) -> None:
    one_hot = labels(4, 5)
    simplex = one_hot - 1 / 4
    turned = 3 * one_hot @ np.linalg.qr(features(4, 4))[0] + features(4, 1)
    assert space.distances([of(one_hot), of(simplex), of(turned)]).max() < 1e-7


def test_the_u_centred_label_kernel() -> None:
    m, copies = 20, 5
    r, s = (copies - 1) / (m - 2), m * (copies - 1) / ((m - 1) * (m - 2))
    same = np.kron(np.eye(4), np.ones((copies, copies)))
    expected = np.where(same == 1, 1 - 2 * r + s, -2 * r + s) * (1 - np.eye(m))
    np.testing.assert_allclose(AngularCKA("u").centred(of(labels(4, copies))), expected, atol=1e-12)


def test_steps_along_a_circle_of_latitude() -> None:
    height, step = np.pi / 4, np.pi / 10
    first, second = (
        np.array([np.cos(height), np.sin(height) * np.cos(turn), np.sin(height) * np.sin(turn)]) for turn in (0, step)
    )
    expected = np.arccos(np.cos(height) ** 2 + np.sin(height) ** 2 * np.cos(step))
    assert Sphere().length(first, second) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(0.221685, abs=1e-6)


@EVERY
def test_projection_is_the_best_of_a_dense_grid(centring: str) -> None:
    space = AngularCKA(centring)
    point, a, b = space.coordinates([of(features(4)) for _ in range(3)])
    t, angle = np.linspace(0, 1, 200_001), Sphere().length(a, b)
    cosines = (np.sin((1 - t) * angle) * (a @ point) + np.sin(t * angle) * (b @ point)) / np.sin(angle)
    result = Sphere().project(point, a, b)
    assert float(result.distance) == pytest.approx(np.arccos(cosines.max()), abs=1e-9)
    assert float(result.fraction) == pytest.approx(t[cosines.argmax()], abs=1e-5)


@EVERY
def test_points_of_a_geodesic_are_not_centred_again(centring: str) -> None:
    space, p, q = AngularCKA(centring), of(features()), of(features())
    middle = space.geodesic(p, q, 0.5)
    unit = sum(space.coordinates([p, q]))
    np.testing.assert_allclose(space.coordinates([middle])[0], unit / np.linalg.norm(unit), atol=1e-12)
    near = Point.from_gram(p.gram() * (1 + 1e-9) + 1e-9 * q.gram())
    assert space.length(p, space.geodesic(p, near, 0.5)) == pytest.approx(space.length(p, near) / 2, rel=1e-4)


def test_the_affine_invariant_metric_forgets_congruence_and_inversion() -> None:
    space, (a, b) = PositiveDefinite(), (item @ item.T + np.eye(6) for item in (features(6, 6), features(6, 6)))
    m = features(6, 6)
    length = space.length(a, b)
    assert space.length(m @ a @ m.T, m @ b @ m.T) == pytest.approx(length, abs=1e-9)
    assert space.length(np.linalg.inv(a), np.linalg.inv(b)) == pytest.approx(length, abs=1e-10)
    assert space.length(a, 3 * a) == pytest.approx(np.log(3) * np.sqrt(6), abs=1e-10)


def test_the_affine_invariant_distance_of_thin_features_grows_as_the_ridge_falls() -> None:
    p, q = of(features(3, 8)), of(features(3, 8))
    lengths = [AffineInvariant(ridge).length(p, q) for ridge in (1e-1, 1e-3, 1e-6)]
    assert lengths[0] < lengths[1] / 1.5 < lengths[2] / 2.5
    assert repr(AffineInvariant(1e-3)) == AffineInvariant(1e-3).label == "AffineInvariant(ridge=0.001)"
    assert AffineInvariant(1e-3).unit == "ridge 0.001"


def test_stress_is_the_root_mean_square_difference_of_distances() -> None:
    x, y = features(3), features(4)
    pairs = list(itertools.combinations(range(12), 2))
    apart = [np.array([np.linalg.norm(item[i] - item[j]) for i, j in pairs]) for item in (x, y)]
    plain = np.sqrt(np.mean((apart[0] - apart[1]) ** 2))
    assert Stress(rescale=False).length(of(x), of(y)) == pytest.approx(plain, abs=1e-12)
    apart = [item / np.median(item) for item in apart]
    scaled = np.sqrt(np.mean((apart[0] - apart[1]) ** 2))
    assert Stress().length(of(x), Point.from_gram(y @ y.T + 5)) == pytest.approx(scaled, abs=1e-12)


def test_the_mean_on_a_sphere_is_refused_where_there_is_none() -> None:
    ring = [np.array([np.cos(t), np.sin(t), 0.0]) for t in 2 * np.pi * np.arange(3) / 3]
    with pytest.raises(InputError, match=r"points lie up to 2\.09 rad from their mean"):
        Sphere().mean(ring)
    with pytest.raises(InputError, match="the points have no mean"):
        AngularCKA().mean([of(WHOLE), Point.from_gram(-WHOLE @ WHOLE.T)])
    with pytest.raises(InputError, match="the mean did not converge in 1 steps"):
        UpToRotation(Flat()).mean([features(), features(), features()], steps=1)


REFUSED = {
    r"features must be \[N, d\], got shape \(4,\)": lambda: of(np.ones(4)),
    "features hold non-finite numbers": lambda: of(np.where(WHOLE > 1, np.nan, WHOLE)),
    "gram holds non-finite numbers": lambda: Point.from_gram(np.full((3, 3), np.inf)),
    "form must be one of": lambda: Point.from_draws([WHOLE], form="cosine"),
    r"draws must be \[N, T\] of the same N inputs": lambda: Point.from_draws([WHOLE, WHOLE[1:]]),
    "draws must be >= 2 per chain": lambda: Point.from_draws([WHOLE[:, :1]]),
    "draws hold non-finite losses": lambda: Point.from_draws([np.where(WHOLE > 1, np.nan, WHOLE)]),
    "t must be from 0 to 1, got 1.5": lambda: AngularCKA().geodesic(of(WHOLE), of(features()), 1.5),
    "two points are antipodes": lambda: AngularCKA().log(of(WHOLE), Point.from_gram(-WHOLE @ WHOLE.T)),
    "points 0 and 1 are over different inputs": lambda: Bures().length(of(WHOLE), of(features(5, 11))),
    "u-centring needs >= 4 inputs, got 3": lambda: AngularCKA().log(of(WHOLE[:3]), of(WHOLE[:3])),
    "a kernel needs >= 2 inputs, got 1": lambda: Stress().length(of(WHOLE[:1]), of(WHOLE[:1])),
    "point 1 is white: u-centring leaves": lambda: AngularCKA().geodesic(of(WHOLE), Point.from_gram(np.eye(12)), 0.5),
    "point 1 is constant": lambda: Bures().length(of(WHOLE), of(np.ones((12, 3)))),
    "point 0 is constant": lambda: Bures().length(Point.from_gram(np.ones((12, 12))), of(WHOLE)),
    "point 0 has median distance 0": lambda: Stress().length(of(np.ones((12, 3))), of(WHOLE)),
    "point 0 is not positive semi-definite": lambda: Shape().length(Point.from_gram(-WHOLE @ WHOLE.T), of(WHOLE)),
    "point 1 has an eigenvalue that is negative beyond the ridge": lambda: AffineInvariant(0.1).length(
        of(WHOLE), Point.from_gram(-WHOLE @ WHOLE.T)
    ),
    "a matrix is not positive definite, its": lambda: PositiveDefinite().length(np.eye(3), -np.eye(3)),
    "a matrix is not positive definite; raise": lambda: PositiveDefinite().length(-np.eye(3), np.eye(3)),
    "ridge must be > 0, got 0": lambda: AffineInvariant(0),
    "rescale must be true or false, got 'yes'": lambda: Stress("yes"),  # pyright: ignore[reportArgumentType]
    r"tangent must have shape \(78,\), got \(12, 5\)": lambda: AngularCKA().exp(of(WHOLE), TANGENT),
    r"tangent must be \[12, d\], got shape \(60,\)": lambda: Bures().exp(of(WHOLE), TANGENT.ravel()),
    "tangent must be orthogonal": lambda: Bures().inner(of(WHOLE), WHOLE, WHOLE),
    "tangent holds non-finite numbers": lambda: Shape().transport(of(WHOLE), of(WHOLE), TANGENT * np.nan),
    "leads to negative distances": lambda: Stress().exp(of(WHOLE), -np.ones(66)),
    "an angle needs points apart from its vertex": lambda: Bures().angle(of(WHOLE), of(WHOLE), of(features())),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_place_is_refused(message: str) -> None:
    with pytest.raises(InputError, match=message):
        REFUSED[message]()


def test_geometry_loads_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "sklearn", "scipy.linalg", "scipy.optimize", "matplotlib")
    code = f"import sys, losskernel.geometry; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
