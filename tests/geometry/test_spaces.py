"""The property table: every space of kernels has every property that its facts promise, one test a property."""

from itertools import combinations

import numpy as np
import pytest

from losskernel.geometry import AffineInvariant, AngularCKA, Arrangement, Bures, Point, Shape, Space, Stress

SPACES: list[Space] = [
    AngularCKA("u"),
    AngularCKA("double"),
    AngularCKA("masked"),
    Bures(),
    Shape(),
    Stress(rescale=True),
    Stress(rescale=False),
    AffineInvariant(ridge=1.0),
]
EVERY = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.label)
SPHERES = pytest.mark.parametrize("space", SPACES[:3], ids=lambda space: space.label)
SYMMETRIC = pytest.mark.parametrize("space", SPACES[:3] + SPACES[5:], ids=lambda space: space.label)
N, RNG = 10, np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests() -> None:
    RNG.bit_generator.state = START


def features(width: int = 6, count: int = N) -> np.ndarray:
    return RNG.normal(size=(count, width))


def points(*widths: int) -> list[Point]:
    """Kernels that share much, as layers do, so that geodesics between them are not the longest."""
    shared = features(3)
    return [Point.from_features(np.concatenate([shared, features(width)], axis=1)) for width in widths]


def admitted(space: Space) -> list[Point]:
    """Kernels of every kind: of rank one, labels, nearly the same, wide, and opposite where the space has such."""
    near = features(4)
    made = [features(width) for width in (1, 1, 2, 3, 4, 9, 40)]
    made += [
        np.repeat(np.eye(2), 5, 0),
        np.repeat(np.eye(5), 2, 0),
        near,
        near + 1e-7 * features(4),
        -made[4] + 1e-3 * features(4),
    ]
    result = [Point.from_features(values) for values in made]
    if isinstance(space, AngularCKA):
        result += [Point.from_gram(-result[3].gram()), Point.from_gram(result[4].gram() - 3 * result[2].gram())]
    if not isinstance(space, AngularCKA) or space.centring != "u":
        result.append(Point.from_gram(np.eye(N)))
    return result


@EVERY
def test_it_is_a_metric(space: Space) -> None:
    kernels = admitted(space)
    assert len(list(combinations(kernels, 3))) >= 200
    distances = space.distances(kernels)
    assert np.isfinite(distances).all()
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(np.diag(distances), 0)
    assert (distances[~np.eye(len(kernels), dtype=bool)] > 1e-9).all()
    assert (distances[:, None, :] <= distances[:, :, None] + distances[None] + 1e-10).all()
    assert max(space.length(kernel, kernel) for kernel in kernels) < 1e-10


@SPHERES
def test_cosines_on_spheres_are_those_of_unit_vectors(space: Space) -> None:
    arrangement = space.arrangement(admitted(space))
    assert arrangement.cosines is not None
    np.testing.assert_allclose(np.cos(arrangement.distances), arrangement.cosines, atol=1e-12)
    assert np.linalg.eigvalsh(arrangement.cosines).min() > -1e-12


@EVERY
def test_length_is_an_entry_of_distances_either_way_round(space: Space) -> None:
    kernels = admitted(space)
    distances = space.distances(kernels)
    for p, q in [(0, 7), (7, 0), (9, 10)]:
        assert space.length(kernels[p], kernels[q]) == pytest.approx(distances[p, q], rel=1e-10, abs=1e-12)


@EVERY
def test_what_is_known_is_kept_and_only_new_pairs_are_computed(space: Space) -> None:
    kernels = points(4, 5, 6, 7)
    whole = space.arrangement(kernels)
    known = whole.of([0, 1, 2])
    marked = Arrangement(known.distances + 1, None if known.cosines is None else known.cosines + 1)
    grown = space.arrangement(kernels, known=marked)
    np.testing.assert_array_equal(grown.distances[:3, :3], marked.distances)
    np.testing.assert_allclose(grown.distances[3], whole.distances[3], atol=1e-12)


MOVES = {
    "translation": lambda x: x + RNG.normal(size=x.shape[1]),
    "rotation": lambda x: x @ np.linalg.qr(RNG.normal(size=(x.shape[1], x.shape[1])))[0],
    "scale": lambda x: 2.7 * x,
    "affine": lambda x: x @ RNG.normal(size=(x.shape[1], x.shape[1])),
}


@pytest.mark.parametrize("move", MOVES)
@EVERY
def test_points_keep_their_place_under_the_named_changes_and_move_under_others(space: Space, move: str) -> None:
    for width in (3, 8):  # held as features, and as a kernel
        x = features(width)
        p, moved, other = (Point.from_features(values) for values in (x, MOVES[move](x), features(5)))
        if move in space.invariances:
            assert space.length(p, moved) < 1e-7
            assert space.length(moved, other) == pytest.approx(space.length(p, other), abs=1e-10)
        else:
            assert space.length(p, moved) > 1e-2


@EVERY
def test_the_order_of_the_inputs_is_no_part_of_the_distance(space: Space) -> None:
    x, y, order = features(3), features(8), RNG.permutation(N)
    same = space.length(Point.from_features(x), Point.from_features(y))
    assert space.length(Point.from_features(x[order]), Point.from_features(y[order])) == pytest.approx(same, abs=1e-10)
    assert space.length(Point.from_features(x), Point.from_features(y[order])) != pytest.approx(same, abs=1e-4)


@EVERY
def test_geodesics_start_and_end_at_their_ends_and_lengths_add_up(space: Space) -> None:
    p, q = points(2, 7)
    whole = space.length(p, q)
    assert space.length(space.geodesic(p, q, 0), p) < 1e-10
    assert space.length(space.geodesic(p, q, 1), q) < 1e-10
    for t in (0.1, 0.35, 0.8):
        z = space.geodesic(p, q, t)
        assert space.length(p, z) == pytest.approx(t * whole, abs=1e-10)
        assert space.length(z, q) == pytest.approx((1 - t) * whole, abs=1e-10)


@EVERY
def test_the_angle_between_two_points_is_straight_and_back_is_none(space: Space) -> None:
    p, q, other = points(2, 7, 4)
    z = space.geodesic(p, q, 0.4)
    assert space.angle(p, z, q) == pytest.approx(np.pi, abs=1e-10)
    assert space.angle(p, q, z) == pytest.approx(0, abs=1e-10)
    assert space.angle(p, z, other) + space.angle(other, z, q) == pytest.approx(np.pi, abs=1e-10)
    assert 0.1 < space.angle(p, q, other) < np.pi - 0.1


@EVERY
def test_log_and_exp_undo_each_other(space: Space) -> None:
    p, q, other = points(7, 7, 7)
    v = space.log(p, q)
    assert space.length(space.exp(p, v), q) < 1e-10
    assert np.sqrt(space.inner(p, v, v)) == pytest.approx(space.length(p, q), abs=1e-10)
    for t in (0.0, 0.3, 0.9):
        assert space.length(space.exp(p, t * v), space.geodesic(p, q, t)) < 1e-10
    w = 0.2 * v - 0.1 * space.log(p, other)
    np.testing.assert_allclose(space.log(p, space.exp(p, w)), w, atol=1e-10)


@EVERY
def test_the_inner_product_is_bilinear_symmetric_and_positive(space: Space) -> None:
    p, q, other, third = points(7, 7, 7, 7)
    u, v, w = (space.log(p, end) for end in (q, other, third))
    assert space.inner(p, 2 * u - 3 * v, w) == pytest.approx(
        2 * space.inner(p, u, w) - 3 * space.inner(p, v, w), abs=1e-10
    )
    assert space.inner(p, u, v) == pytest.approx(space.inner(p, v, u), abs=1e-10)
    assert space.inner(p, u, v) ** 2 < space.inner(p, u, u) * space.inner(p, v, v)


@pytest.mark.parametrize("width", [1, 7])  # held as features, and as a kernel
@EVERY
def test_parallel_transport_keeps_inner_products_and_comes_back(space: Space, width: int) -> None:
    p, q, other, third = points(*[width] * 4)
    v, w = space.log(p, other), space.log(p, third)
    there, also = space.transport(p, q, v), space.transport(p, q, w)
    assert space.inner(q, there, also) == pytest.approx(space.inner(p, v, w), abs=1e-10)
    assert space.inner(q, there, there) == pytest.approx(space.inner(p, v, v), abs=1e-10)
    np.testing.assert_allclose(space.transport(q, p, there), v, atol=1e-10)
    np.testing.assert_allclose(space.transport(p, p, v), v, atol=1e-10)
    # A geodesic goes straight on: its direction stays its direction, seen from the other end backwards.
    np.testing.assert_allclose(space.transport(p, q, space.log(p, q)), -space.log(q, p), atol=1e-10)
    space.exp(q, 0.1 * there)  # a tangent at q, or it would be refused


@SYMMETRIC
def test_parallel_transport_is_that_of_reflections(space: Space) -> None:
    # The pole ladder, exact in symmetric spaces: reflect exp(p, v) in the middle of p and q.
    p, q, other = points(7, 7, 7)
    v = 0.2 * space.log(p, other)
    middle = space.geodesic(p, q, 0.5)
    reflected = space.exp(middle, -space.log(middle, space.exp(p, v)))
    np.testing.assert_allclose(space.transport(p, q, v), -space.log(q, reflected), atol=1e-9)


@EVERY
def test_triangles_are_as_fat_as_the_curvature_says(space: Space) -> None:
    bends = []
    for _ in range(10):
        a, b, c = points(5, 5, 5)
        x, y, z = space.length(a, b), space.length(b, c), space.length(a, c)
        bends.append(space.length(b, space.geodesic(a, c, 0.5)) - np.sqrt(x**2 / 2 + y**2 / 2 - z**2 / 4))
    sign = {"positive": 1, "zero": 0, "negative": -1}[str(space.curvature)]
    assert (sign * np.array(bends) > 1e-4).all() if sign else np.abs(bends).max() < 1e-8


@EVERY
def test_projection_finds_the_nearest_place(space: Space) -> None:
    x, y, more = features(7), features(7), features(4)
    a, b, other = (Point.from_features(values) for values in (x, y, np.concatenate([x, 0.8 * y, 0.5 * more], axis=1)))
    whole = space.length(a, b)
    result = space.project(other, a, b)
    foot = space.geodesic(a, b, float(result.fraction))
    assert 0.05 < result.fraction < 0.95
    assert space.length(other, foot) == pytest.approx(float(result.distance), abs=1e-10)
    grid = [space.length(other, space.geodesic(a, b, t)) for t in np.linspace(0, 1, 41)]
    assert result.distance <= min(grid)
    assert result.distance == pytest.approx(min(grid), rel=0.01)
    assert space.length(a, foot) + space.length(foot, b) == pytest.approx(whole, abs=1e-10)
    again = space.project(foot, a, b)
    assert again.distance < 1e-9
    assert again.fraction == pytest.approx(result.fraction, abs=1e-9)
    beyond = space.project(space.exp(b, -0.1 * space.log(b, a)), a, b)
    assert (beyond.fraction, beyond.distance) == (1, pytest.approx(0.1 * whole, abs=1e-9))


@EVERY
def test_the_mean_is_where_squared_distances_sum_to_the_least(space: Space) -> None:
    kernels = points(5, 7, 7)
    assert space.length(space.mean(kernels[:2]), space.geodesic(*kernels[:2], 0.5)) < 1e-9
    mean = space.mean(kernels)
    logs = space.manifold.stacked([space.log(mean, kernel) for kernel in kernels])
    pull = logs.mean(axis=0)
    assert np.sqrt(space.inner(mean, pull, pull)) < 1e-8  # no way down
    sums = [sum(space.distances([x, *kernels])[0] ** 2) for x in (mean, *(space.exp(mean, 0.05 * v) for v in logs))]
    assert min(sums[1:]) > sums[0]
    assert space.length(space.mean(kernels[::-1]), mean) < 1e-9
    assert space.length(space.mean([kernels[0]] * 3), kernels[0]) < 1e-10


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6, 1e-8])
@EVERY
def test_small_distances_are_not_lost_to_rounding(space: Space, size: float) -> None:
    p, q = points(7, 7)
    v = size * space.log(p, q) / space.length(p, q)
    assert space.length(p, space.exp(p, v)) == pytest.approx(size, rel=1e-6 + 1e-14 / size)
