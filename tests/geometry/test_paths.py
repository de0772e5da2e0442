"""Paths through representation space: exact oracles, and everything from how the points stand to each other."""

import math

import numpy as np
import pytest
from arranged import geodesic, in_plane, kernels, on_sphere, slerp, unit

from losskernel.errors import InputError
from losskernel.geometry import (
    AngularCKA,
    Arrangement,
    Path,
    Point,
    alexandrov_curvature,
    distance_at_fractions,
    frechet_distance,
    mean_distance,
    midpoint_distance,
    path_distances,
    profile,
    project,
    turning,
    vertex_angle,
)

RNG = np.random.default_rng(0)


def directions(count: int, width: int = 6) -> np.ndarray:
    return unit(RNG.normal(size=(count, width)))


def labels(classes: int, copies: int) -> Point:
    return Point.from_features(np.kron(np.eye(classes), np.ones((copies, 1))))


def test_from_white_over_fine_to_coarse_classes() -> None:
    # Balanced classes, m = 200, double centring: cos(white, C classes) = sqrt((C - 1) / (m - 1)), cos(10, 2) = 1 / 3.
    path = Path([Point.from_gram(np.eye(200)), labels(10, 20), labels(2, 100)], AngularCKA("double"))
    assert path.length == pytest.approx(2.587455, abs=1e-6)
    assert path.straightness == pytest.approx(0.579662, abs=1e-6)
    np.testing.assert_allclose(path.angles(), [math.pi / 2], atol=1e-12)
    np.testing.assert_allclose(path.turning(), [math.pi / 2], atol=1e-12)
    np.testing.assert_allclose(path.steps, [1.356495, 1.230959], atol=1e-6)


def test_a_circle_of_latitude_is_longer_than_the_great_circle() -> None:
    latitude, step = math.radians(45), math.radians(18)
    around = np.arange(6) * step
    circle = np.stack([np.sin(latitude) * np.cos(around), np.sin(latitude) * np.sin(around), np.full(6, 0.5**0.5)], 1)
    path = Path.from_arrangement(on_sphere(circle))
    expected = math.acos(math.cos(latitude) ** 2 + math.sin(latitude) ** 2 * math.cos(step))
    assert expected == pytest.approx(0.221685, abs=1e-6)
    np.testing.assert_allclose(path.steps, expected, atol=1e-12)
    assert path.straightness < 1
    # The isosceles triangle with the pole has the base angle b, cos(latitude) = cot(step / 2) cot(b).
    base = math.atan(1 / (math.cos(latitude) * math.tan(step / 2)))
    np.testing.assert_allclose(path.angles(), 2 * base, atol=1e-10)


def test_closed_forms_of_cosines() -> None:
    near = on_sphere(directions(3))
    cosines, (ab, bc, ac) = near.cosines, near.distances[[0, 1, 0], [1, 2, 2]]
    assert cosines is not None
    expected = (math.cos(ac) - math.cos(ab) * math.cos(bc)) / (math.sin(ab) * math.sin(bc))
    assert float(vertex_angle(near, 0, 1, 2)) == pytest.approx(math.acos(expected), abs=1e-10)
    expected = (math.cos(ab) + math.cos(bc)) / (2 * math.cos(ac / 2))
    assert float(midpoint_distance(near, 0, 1, 2)) == pytest.approx(math.acos(expected), abs=1e-10)


def test_everything_from_cosines_is_everything_from_matrices() -> None:
    # The centred kernels themselves, as vectors: angles between log-maps, a grid along the geodesic, its middle.
    space, points = AngularCKA("u"), kernels(1, 4)
    near, (p, q, r, s) = space.arrangement(points), space.coordinates(points)
    towards = [other - (other @ q) * q for other in (p, r)]
    cosine = towards[0] @ towards[1] / np.linalg.norm(towards[0]) / np.linalg.norm(towards[1])
    assert float(vertex_angle(near, 0, 1, 2)) == pytest.approx(math.acos(cosine), abs=1e-10)
    assert float(turning(near, 0, 1, 2)) == pytest.approx(math.pi - math.acos(cosine), abs=1e-10)
    assert float(midpoint_distance(near, 0, 3, 2)) == pytest.approx(math.acos(slerp(p, r, 0.5) @ s), abs=1e-10)
    path = Path(points, space)
    rows = np.stack([p, q, r, s])
    steps = np.arccos((rows[:-1] * rows[1:]).sum(1))
    assert path.length == pytest.approx(steps.sum(), abs=1e-10)
    assert path.straightness == pytest.approx(math.acos(p @ s) / steps.sum(), abs=1e-10)


@pytest.mark.parametrize("flat", [False, True])
def test_projections_are_those_of_a_dense_grid(flat: bool) -> None:
    t = np.linspace(0, 1, 200_001)[:, None]
    for _ in range(12):
        rows = RNG.normal(size=(3, 4)) if flat else directions(3, 4)
        near = in_plane(rows) if flat else on_sphere(rows)
        c, a, b = rows
        angle = near.distances[1, 2]
        line = (1 - t) * a + t * b if flat else (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        squares = ((line - c) ** 2).sum(1)
        best = int(squares.argmin())
        result = project(near, 0, 1, 2)
        shortest = math.sqrt(squares[best])
        assert float(result.fraction) == pytest.approx(t[best, 0], abs=6e-6)
        assert float(result.distance) == pytest.approx(shortest if flat else 2 * math.asin(shortest / 2), abs=1e-8)


def test_projections_of_what_lies_on_the_geodesic_and_beyond_it() -> None:
    a, b = directions(2)
    angle = math.acos(a @ b)
    on = [slerp(a, b, t) for t in (0.0, 0.3, 1.0)]
    beyond = [slerp(a, b, 1.4), slerp(a, b, -0.2)]
    near = on_sphere(np.stack([a, b, *on, *beyond]))
    result = project(near, np.arange(2, 7), 0, 1)
    np.testing.assert_allclose(result.fraction, [0, 0.3, 1, 1, 0], atol=1e-7)
    np.testing.assert_allclose(result.distance, [0, 0, 0, 0.4 * angle, 0.2 * angle], atol=1e-7)
    far = project(near, np.arange(2, 7), 0, 1, segment=False)
    np.testing.assert_allclose(far.fraction, [0, 0.3, 1, 1.4, -0.2], atol=1e-7)
    np.testing.assert_allclose(far.distance, 0, atol=1e-7)


def test_a_geodesic_that_is_a_point_has_all_projections_there() -> None:
    rows = directions(3)
    near = on_sphere(rows[[0, 1, 1]])
    assert project(near, 0, 1, 2) == (0, near.distances[0, 1])


def test_projections_obey_the_triangle_inequality() -> None:
    near = on_sphere(directions(30, 5))
    c, a, b = (part.ravel() for part in np.meshgrid(np.arange(10), np.arange(10, 20), np.arange(20, 30)))
    result = project(near, c, a, b)
    to_a, to_b, whole = near.distances[c, a], near.distances[c, b], near.distances[a, b]
    assert (result.distance <= np.minimum(to_a, to_b) + 1e-12).all()
    assert (to_a <= result.fraction * whole + result.distance + 1e-12).all()
    assert (to_b <= (1 - result.fraction) * whole + result.distance + 1e-12).all()
    assert (result.distance >= np.abs(to_a - result.fraction * whole) - 1e-12).all()


@pytest.mark.parametrize("size", [1e-2, 1e-5, 1e-8])
def test_angles_of_tiny_triangles_keep_their_digits(size: float) -> None:
    # A right angle and legs 3, 4: so small that it is flat to `size`².
    legs = np.array([[3.0, 0.0], [0.0, 0.0], [0.0, 4.0]]) * size
    flat = np.linalg.norm(legs[:, None] - legs, axis=-1)
    near = Arrangement(flat, np.cos(flat))
    curved = 25 * size**2 + 1e-9
    assert float(vertex_angle(near, 0, 1, 2)) == pytest.approx(math.pi / 2, abs=curved)
    assert float(vertex_angle(near, 1, 0, 2)) == pytest.approx(math.atan2(4, 3), abs=curved)
    result = project(near, 1, 0, 2)
    assert float(result.fraction) == pytest.approx(9 / 25, abs=curved)
    assert float(result.distance) == pytest.approx(2.4 * size, rel=curved)
    assert float(midpoint_distance(near, 0, 1, 2)) == pytest.approx(2.5 * size, rel=curved)


def test_angles_without_a_side_are_not_made_up() -> None:
    near = on_sphere(directions(3)[[0, 0, 1, 2]])
    assert np.isnan(vertex_angle(near, [0, 1], [1, 0], [2, 3])).all()
    turned_back = on_sphere(directions(2)[[0, 1, 0]])
    assert float(vertex_angle(turned_back, 0, 1, 2)) == 0
    poles = on_sphere(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]))
    assert np.isnan(midpoint_distance(poles, 0, 1, 2))


def test_a_sphere_curves_and_a_plane_does_not() -> None:
    sphere = on_sphere(directions(12))
    a, b, c = np.arange(4), np.arange(4, 8), np.arange(8, 12)
    assert (alexandrov_curvature(sphere, a, b, c) > 0).all()
    # One eighth of the sphere: the middle of two corners is π / 2 from the third.
    eighth = on_sphere(np.eye(3))
    flat = math.sqrt(3 / 4) * math.pi / 2
    assert float(alexandrov_curvature(eighth, 0, 1, 2)) == pytest.approx(math.pi / 2 - flat, abs=1e-12)
    spots = RNG.normal(size=(3, 4))
    plane = in_plane(np.stack([*spots, (spots[0] + spots[2]) / 2]))
    assert float(midpoint_distance(plane, 0, 1, 2)) == pytest.approx(plane.distances[1, 3], abs=1e-12)
    assert float(alexandrov_curvature(plane, 0, 1, 2, middle=3)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match=r"midpoint of a and c is known on spheres only; give its index as middle"):
        alexandrov_curvature(plane, 0, 1, 2)


def test_straight_is_what_lies_in_order_on_one_geodesic() -> None:
    space, (p, q) = AngularCKA("u"), kernels(2, 2)
    ordered = Path([p, *geodesic(p, q, [0.2, 0.5, 0.9]), q], space)
    assert ordered.straightness == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(ordered.angles(), math.pi, atol=1e-6)
    disordered = Path([p, *geodesic(p, q, [0.5, 0.2, 0.9]), q], space)
    assert disordered.straightness == pytest.approx(1 / 1.6, abs=1e-10)
    np.testing.assert_allclose(disordered.turning(), [math.pi, math.pi, 0], atol=1e-6)
    bent = Path([p, *kernels(3, 1), q], space)
    assert bent.straightness < 0.9


def test_a_layer_more_never_shortens_a_path_and_walking_back_changes_nothing() -> None:
    near = on_sphere(directions(40))
    whole = Path.from_arrangement(near)
    for _ in range(50):
        kept = np.flatnonzero(RNG.random(40) < 0.5)
        kept = np.union1d(kept, [0, 39])
        fewer = Path.from_arrangement(near, kept)
        assert fewer.length <= whole.length + 1e-12
    back = Path.from_arrangement(near, np.arange(40)[::-1])
    assert back.length == pytest.approx(whole.length, abs=1e-12)
    assert back.straightness == pytest.approx(whole.straightness, abs=1e-12)
    np.testing.assert_allclose(back.angles(), whole.angles()[::-1], atol=1e-12)


def test_a_path_goes_on_to_points_that_are_none_of_its_own() -> None:
    space, points = AngularCKA("u"), kernels(4, 6)
    path = Path(points[:4], space)
    assert len(path) == 4
    near = space.arrangement(points)
    np.testing.assert_allclose(path.to(points[5]), near.distances[:4, 5], atol=1e-12)
    np.testing.assert_array_equal(path.to(-1), near.distances[:4, 3])
    expected = project(near, np.arange(4), 4, 5)
    np.testing.assert_allclose(path.project(onto=(points[4], points[5])), expected, atol=1e-10)
    expected = project(near, np.arange(4), 0, 5)
    np.testing.assert_allclose(path.project(onto=(0, points[5])), expected, atol=1e-10)
    ends = path.project(onto=(0, -1))
    assert (ends.fraction[[0, 3]] == [0, 1]).all()
    np.testing.assert_allclose(ends.distance[[0, 3]], 0, atol=1e-12)


def test_a_path_that_is_none_is_refused() -> None:
    near = on_sphere(directions(3))
    with pytest.raises(InputError, match="a path needs >= 2 points, got 1"):
        Path.from_arrangement(near, [0])
    with pytest.raises(InputError, match="a path needs >= 2 points, got 1"):
        Path(kernels(0, 1), AngularCKA())
    with pytest.raises(InputError, match="was made from an arrangement; put the point into it"):
        Path.from_arrangement(near).to(kernels(0, 1)[0])
    with pytest.raises(InputError, match=r"a path of 3 points has none with number \[3\]"):
        Path.from_arrangement(near).to(3)
    with pytest.raises(InputError, match="a path needs >= 2 points, got 1"):
        profile(near, [0], 2)
    with pytest.raises(InputError, match=r"floor must be of all pairs, \[3, 3\], got shape \(2, 2\)"):
        profile(near, [0, 1], 2, floor=np.zeros((2, 2)))
    with pytest.raises(InputError, match="a path needs >= 1 point, got 0"):
        frechet_distance(near, [], [0])
    with pytest.raises(InputError, match="a path needs >= 1 point, got 0"):
        mean_distance(near, [0], np.empty(0, dtype=int))
    assert math.isnan(Path.from_arrangement(near, [1, 1]).straightness)


def test_progress_is_never_more_than_the_step() -> None:
    result = profile(on_sphere(directions(60)), np.arange(59), 59)
    assert (np.abs(result.progress) <= result.step + 1e-12).all()
    assert (np.abs(result.efficiency) <= 1 + 1e-12).all()
    assert result.progress.sum() == pytest.approx(result.to_target[0] - result.to_target[-1])
    np.testing.assert_allclose(result.reached[1:], np.cumsum(result.step))
    assert result.reached[-1] == pytest.approx(result.length)
    assert ((result.to_target > result.to_target[0]) == ~result.behind).all()
    # A step towards the target goes at an acute angle to it: for a short step efficiency is cos(heading).
    start, target = directions(2)
    aside = unit(directions(1)[0] * 0.001 + start)
    short = profile(on_sphere(np.stack([start, aside, target])), [0, 1], 2, least=0)
    np.testing.assert_allclose(short.efficiency, np.cos(short.heading), atol=2e-3)


def test_who_walks_the_geodesic_to_the_target_does_nothing_else() -> None:
    a, b = directions(2)
    rows = np.stack([*(slerp(a, b, t) for t in (0, 0.2, 0.5, 0.8)), b])
    result = profile(on_sphere(rows), [0, 1, 2, 3], 4)
    np.testing.assert_allclose(result.efficiency, 1, atol=1e-10)
    np.testing.assert_allclose(result.heading, 0, atol=1e-6)
    np.testing.assert_allclose(result.turning, 0, atol=1e-6)
    np.testing.assert_allclose(result.fraction, [0, 0.2, 0.5, 0.8], atol=1e-10)
    np.testing.assert_allclose(result.off, 0, atol=1e-6)
    assert result.behind.all()
    assert result.straightness == pytest.approx(1)
    elsewhere = profile(on_sphere(rows), [1, 2], 4, start=0)
    np.testing.assert_allclose(elsewhere.fraction, [0.2, 0.5], atol=1e-10)


def test_angles_within_the_noise_are_left_out() -> None:
    a, b = directions(2)
    angle = math.acos(a @ b)
    fractions = np.array([0, 0.02 / angle, 0.5, 0.75])  # the first step is 0.02 rad
    rows = np.stack([*(slerp(a, b, t) for t in fractions), b])
    near = on_sphere(rows)
    result = profile(near, [0, 1, 2, 3], 4)
    np.testing.assert_array_equal(np.isnan(result.heading), [True, False, False])
    np.testing.assert_array_equal(np.isnan(result.turning), [True, False])
    assert np.isfinite(result.efficiency).all()
    assert np.isfinite(profile(near, [0, 1, 2, 3], 4, least=0.01).heading).all()
    floor = np.zeros((5, 5))
    floor[1, 2] = floor[2, 1] = 0.34 * near.distances[1, 2]  # the second is just below three floors
    noisy = profile(near, [0, 1, 2, 3], 4, floor=floor)
    np.testing.assert_array_equal(np.isnan(noisy.heading), [True, True, False])
    np.testing.assert_array_equal(np.isnan(noisy.efficiency), [False, True, False])
    np.testing.assert_array_equal(np.isnan(noisy.turning), [True, True])
    floor[0, 4] = floor[4, 0] = 0.34 * angle
    assert np.isnan(profile(near, [0, 1, 2, 3], 4, floor=floor).fraction).all()
    unknown = profile(near, [0, 1, 2, 3], 4, floor=np.full((5, 5), np.nan))
    np.testing.assert_array_equal(unknown.heading, result.heading)
    # In other units than radians sides are measured by the greatest distance.
    spots = np.array([[0.0, 0.0], [1.0, 0.0], [40.0, 0.0], [100.0, 0.0]])
    flat = profile(in_plane(spots), [0, 1, 2], 3)
    np.testing.assert_array_equal(np.isnan(flat.heading), [True, False])


def test_the_same_curve_sampled_otherwise_is_the_same_path() -> None:
    rows = directions(5)
    more = [slerp(rows[0], rows[1], 0.3), slerp(rows[0], rows[1], 0.6), slerp(rows[3], rows[4], 0.5)]
    near = on_sphere(np.concatenate([rows, more, rows]))
    path, finer = [0, 1, 2, 3, 4], [0, 5, 6, 1, 2, 3, 7, 4]
    assert mean_distance(near, path, path) == 0
    assert mean_distance(near, path, finer) < 1e-7
    assert mean_distance(near, path, np.arange(8, 13)) < 1e-7  # other points at the same places
    assert mean_distance(near, path, [0, 0, 1, 1, 2, 3, 4, 4]) == pytest.approx(0, abs=1e-12)  # repeated
    assert frechet_distance(near, path, [0, 0, 1, 1, 2, 3, 4, 4]) == 0
    assert mean_distance(near, path, path[::-1]) > 0.1
    assert frechet_distance(near, path, path[::-1]) > 0.1


@pytest.mark.parametrize("flat", [False, True])
def test_distances_at_equal_fractions_are_those_of_the_places_themselves(flat: bool) -> None:
    rows = RNG.normal(size=(7, 5)) if flat else directions(7, 5)
    near = in_plane(rows) if flat else on_sphere(rows)
    fraction = np.linspace(0, 1, 9)
    first, second = [0, 1, 2, 3], [4, 5, 6]

    def point_at(path: list[int], share: float) -> np.ndarray:
        steps = near.distances[path[:-1], path[1:]]
        left, piece = share * steps.sum(), 0
        while left > steps[piece] and piece < len(steps) - 1:
            left, piece = left - steps[piece], piece + 1
        a, b, t = rows[path[piece]], rows[path[piece + 1]], left / steps[piece]
        return (1 - t) * a + t * b if flat else slerp(a, b, t)

    pairs = [(point_at(first, share), point_at(second, share)) for share in fraction]
    expected = [np.linalg.norm(a - b) if flat else math.acos(a @ b) for a, b in pairs]
    np.testing.assert_allclose(distance_at_fractions(near, first, second, fraction), expected, atol=1e-10)


def test_distances_of_whole_paths_are_a_metric() -> None:
    near = on_sphere(directions(60))
    paths = [np.sort(RNG.choice(60, size=RNG.integers(1, 9), replace=False)) for _ in range(12)]
    for by in (mean_distance, frechet_distance):
        result = path_distances(near, paths, by)
        np.testing.assert_array_equal(result, result.T)
        assert (np.diag(result) == 0).all()
        assert (result[~np.eye(12, dtype=bool)] > 0).all()
        assert (result[:, None] <= result[:, :, None] + result[None] + 1e-12).all()
        assert by(near, paths[0][::-1], paths[1][::-1]) == pytest.approx(result[0, 1], abs=1e-12)
        assert by(near, paths[1], paths[0]) == pytest.approx(result[0, 1], abs=1e-12)


def test_parallel_lines_are_half_apart_and_the_leash_is_the_longest() -> None:
    line = np.arange(5.0)
    spots = np.concatenate([np.stack([line, 0 * line], 1), np.stack([line, 0 * line + 0.5], 1)])
    near = in_plane(spots)
    first, second = np.arange(5), np.arange(5, 10)
    assert mean_distance(near, first, second) == pytest.approx(0.5)
    assert frechet_distance(near, first, second) == pytest.approx(0.5)
    # The second walks on while the first waits: equal fractions do not, the leash does.
    assert frechet_distance(near, first, [5, 5, 5, 6, 7, 8, 9]) == pytest.approx(0.5)
    assert mean_distance(near, [0, 4], [5, 7]) == pytest.approx(
        np.mean([math.hypot(0.5, 2 * t) for t in (np.arange(101) + 0.5) / 101])
    )
    assert frechet_distance(near, [0, 4], [5, 9, 5]) == pytest.approx(math.hypot(4, 0.5))


def test_a_step_between_antipodes_has_no_geodesic() -> None:
    poles = on_sphere(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    with pytest.raises(InputError, match="antipodes have no unique geodesic"):
        mean_distance(poles, [0, 1], [2])
