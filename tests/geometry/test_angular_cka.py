"""Angular CKA is a metric with the invariances it claims; the flat map recovers what is flat."""

import math
from itertools import permutations

import numpy as np
import pytest

from losskernel.errors import InputError
from losskernel.geometry import AngularCKA, Point, classical_scaling
from losskernel.geometry.centring import CENTRINGS, centred

RNG = np.random.default_rng(0)
EVERY = pytest.mark.parametrize("centring", CENTRINGS)


def features(count: int = 12, width: int = 5) -> np.ndarray:
    return RNG.normal(size=(count, width))


def point(x: np.ndarray) -> Point:
    return Point.from_gram(x @ x.T)


def rotation(width: int) -> np.ndarray:
    return np.linalg.qr(RNG.normal(size=(width, width)))[0]


def labels(classes: int, copies: int) -> np.ndarray:
    return np.kron(np.eye(classes), np.ones((copies, 1)))


@EVERY
def test_what_does_not_change_a_representation_does_not_move_its_point(centring: str) -> None:
    space, x = AngularCKA(centring), features()
    moved = 3.7 * x @ rotation(5) + RNG.normal(size=5)
    assert space.length(point(x), point(x)) == 0
    assert space.length(point(x), point(moved)) < 1e-6
    wider = np.concatenate([x / math.sqrt(2), x / math.sqrt(2)], axis=1)
    assert space.length(point(x), point(wider)) < 1e-6
    assert space.length(point(x), point(features())) > 0.1


@EVERY
@pytest.mark.parametrize("width", [5, 300])  # kept as features, and as a kernel
def test_a_large_mean_of_the_features_costs_no_digits(centring: str, width: int) -> None:
    space, x = AngularCKA(centring), features(width=width)
    single = x.astype(np.float32)
    assert space.length(Point.from_features(x), Point.from_features(x + 1e7)) < 1e-7
    assert space.length(Point.from_features(single), Point.from_features(single + np.float32(100))) < 1e-4


@EVERY
def test_the_order_of_the_inputs_is_no_part_of_the_distance(centring: str) -> None:
    space, x, y, order = AngularCKA(centring), features(), features(), RNG.permutation(12)
    assert space.length(point(x), point(y)) == pytest.approx(space.length(point(x[order]), point(y[order])), abs=1e-12)


@EVERY
def test_it_is_a_metric(centring: str) -> None:
    space = AngularCKA(centring)
    kernels = [point(features(8, width)) for width in (1, 1, 2, 3, 8, 30)]
    near = features(8, 3)
    kernels += [point(near), point(near + 1e-7 * features(8, 3)), point(labels(2, 4)), point(labels(4, 2))]
    kernels.append(Point.from_gram(-kernels[0].gram()))  # negatively correlated with the first
    distances = space.distances(kernels)
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(np.diag(distances), 0)
    assert (distances[~np.eye(len(kernels), dtype=bool)] > 0).all()
    assert distances.max() <= math.pi
    assert (distances[:, None, :] <= distances[:, :, None] + distances[None] + 1e-12).all()
    cosines = space.gram(kernels)
    np.testing.assert_allclose(np.cos(distances), cosines, atol=1e-12)
    assert np.linalg.eigvalsh(cosines).min() > -1e-12


@EVERY
def test_small_distances_are_not_lost_to_rounding(centring: str) -> None:
    # Two features on a great circle: K + t L with L orthogonal to K stands at arctan(t |L| / |K|).
    space, first, second = AngularCKA(centring), point(features()), point(features())
    p, q = (_centred(space, kernel) for kernel in (first, second))
    q = q - (p * q).sum() / (p * p).sum() * p
    for size in (1e-2, 1e-5, 1e-9):
        moved = Point.from_gram(p + size * q * np.linalg.norm(p) / np.linalg.norm(q))
        assert space.length(Point.from_gram(p), moved) == pytest.approx(math.atan(size), rel=1e-5)


def _centred(space: AngularCKA, kernel: Point) -> np.ndarray:
    """The centred kernel itself, which centring leaves as it is for u and double."""
    matrix = centred(kernel.gram(), space.centring)
    return centred(matrix, space.centring) if space.centring != "masked" else _masked_fixed(space, matrix)


def _masked_fixed(space: AngularCKA, matrix: np.ndarray) -> np.ndarray:
    for _ in range(2000):  # masking and centring alternate towards a matrix that both leave alone
        matrix = centred(matrix, space.centring)
    return matrix


def test_closed_form_of_labels() -> None:
    # Double centring, balanced classes: cos(white, labels) = sqrt((C - 1) / (m - 1)); fine against coarse 1/3.
    space = AngularCKA("double")
    white = Point.from_gram(np.eye(200))
    assert space.length(white, point(labels(10, 20))) == pytest.approx(1.356495, abs=1e-6)
    coarse, fine = point(labels(2, 100)), point(labels(10, 20))
    assert space.length(coarse, fine) == pytest.approx(math.acos(1 / 3), abs=1e-12)


def test_u_centring_sums_to_nothing_and_is_the_unbiased_hsic() -> None:
    x, y = features(9, 4), features(9, 3)
    space = AngularCKA("u")
    k, centre = x @ x.T, centred(x @ x.T, space.centring)
    np.testing.assert_allclose(centre.sum(0), 0, atol=1e-12)
    np.testing.assert_array_equal(np.diag(centre), 0)
    h = np.eye(9) - 1 / 9
    np.testing.assert_allclose(centred(h @ k @ h, space.centring), centre, atol=1e-12)
    # Song et al. 2012, Eq. 5.
    a, b = k * (1 - np.eye(9)), (y @ y.T) * (1 - np.eye(9))
    one, m = np.ones(9), 9
    song = np.trace(a @ b) + (one @ a @ one) * (one @ b @ one) / ((m - 1) * (m - 2)) - 2 / (m - 2) * (one @ a @ b @ one)
    assert (centre * centred(y @ y.T, space.centring)).sum() == pytest.approx(song, rel=1e-12)


def test_unrelated_wide_features_are_orthogonal_under_u_and_near_under_double() -> None:
    pairs = [(point(features(40, 2000)), point(features(40, 2000))) for _ in range(8)]
    u = [AngularCKA("u").gram(pair)[0, 1] for pair in pairs]
    double = [AngularCKA("double").gram(pair)[0, 1] for pair in pairs]
    assert abs(np.mean(u)) < 0.05
    assert np.mean(double) > 0.95


def test_relabelling_the_inputs_of_one_kernel_gives_zero_on_average_under_u() -> None:
    x, y = features(5, 3), features(5, 3)
    kernels = [point(y[list(order)]) for order in permutations(range(5))]
    cosines = AngularCKA("u").gram([point(x), *kernels])[0, 1:]
    assert np.mean(cosines) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("width", [3, 40])  # kept as features, and as a kernel
@pytest.mark.parametrize("chosen", [[0, 3, 4, 11], [7, 2, 9, 0]])
def test_a_kernel_over_some_inputs_is_the_block_of_the_whole(width: int, chosen: list[int]) -> None:
    whole = Point.from_features(features(width=width), ids=list("abcdefghijkl"))
    part = whole.over(chosen)
    np.testing.assert_allclose(part.gram(), whole.gram()[np.ix_(chosen, chosen)])
    assert part.ids.tolist() == [whole.ids[number] for number in chosen]
    assert whole.over(range(12)) is whole


def test_a_point_gives_back_its_kernel() -> None:
    gram = point(features()).gram()
    np.testing.assert_array_equal(Point.from_gram(gram, ids=list("abcdefghijkl")).gram(), gram)


def test_features_may_be_tensors_that_are_being_trained() -> None:
    import torch

    x = features()
    tensor = torch.tensor(x, requires_grad=True)
    assert AngularCKA().length(Point.from_features(tensor), Point.from_features(x)) == 0
    assert repr(Point.from_features(x)) == "Point(12 inputs, features of 5)"
    assert repr(point(x)) == "Point(12 inputs, a kernel)"
    with pytest.raises(InputError, match="features must be real numbers, got complex128; take their real"):
        Point.from_features(x + 1j)


@pytest.mark.parametrize(
    ("gram", "ids", "message"),
    [
        (np.ones((2, 3)), None, r"gram must be \[N, N\], got shape \(2, 3\)"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), None, "non-finite"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), None, r"symmetric, but differs from its transpose by 0\.1"),
        (np.eye(3), [1, 2], "ids has 2 entries for 3 inputs"),
    ],
)
def test_what_is_no_kernel_is_refused(gram: np.ndarray, ids: list[int] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Point.from_gram(gram, ids)


def test_points_that_cannot_be_compared_are_refused() -> None:
    x = features()
    with pytest.raises(InputError, match=r"points must be losskernel\.geometry\.Point, got ndarray; build them"):
        AngularCKA().length(point(x), x)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="points 0 and 1 are over different inputs, 12 and 9 of them"):
        AngularCKA().length(point(x), point(features(9)))
    with pytest.raises(InputError, match="points 0 and 1 are over different inputs, whose ids differ from number 0"):
        AngularCKA().length(point(x), Point.from_gram(x @ x.T, ids=np.arange(1, 13)))
    with pytest.raises(InputError, match="point 1 is white: u-centring leaves nothing"):
        AngularCKA().gram([point(x), Point.from_gram(np.eye(12))])
    with pytest.raises(InputError, match="u-centring needs >= 4 inputs, got 3"):
        AngularCKA().gram([point(features(3))])
    with pytest.raises(InputError, match="no points"):
        AngularCKA().gram([])
    with pytest.raises(InputError, match=r"centring must be one of \('u', 'double', 'masked'\), got 'single'"):
        AngularCKA("single")


def test_a_flat_arrangement_is_recovered_without_stress() -> None:
    flat = RNG.normal(size=(7, 2))
    distances = np.linalg.norm(flat[:, None] - flat, axis=-1)
    layout = classical_scaling(distances)
    assert layout.stress < 1e-7
    again = np.linalg.norm(layout.coordinates[:, None] - layout.coordinates, axis=-1)
    np.testing.assert_allclose(again, distances, atol=1e-10)
    np.testing.assert_allclose(layout.coordinates.mean(0), 0, atol=1e-12)
    assert layout.coordinates[:, 0].var() >= layout.coordinates[:, 1].var()


def test_stress_is_what_the_plane_cannot_hold() -> None:
    simplex = np.ones((4, 4)) - np.eye(4)  # a tetrahedron does not lie in a plane
    layout = classical_scaling(simplex)
    shown = np.linalg.norm(layout.coordinates[:, None] - layout.coordinates, axis=-1)
    assert layout.stress == pytest.approx(math.sqrt(((simplex - shown) ** 2).sum() / simplex.sum()))
    assert layout.stress > 0.1
    assert classical_scaling(np.zeros((3, 3))).stress == 0
    line = classical_scaling(np.array([[0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(np.abs(line.coordinates), [[0.5, 0], [0.5, 0]])


def test_distances_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"distances must be \[P, P\], got shape \(2,\)"):
        classical_scaling(np.zeros(2))
    with pytest.raises(InputError, match="finite and symmetric"):
        classical_scaling(np.array([[0.0, 1.0], [2.0, 0.0]]))
