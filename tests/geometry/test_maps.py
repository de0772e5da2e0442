"""Maps of points: what fits is recovered, what does not is as good as the search can make it, and stress tells."""

import math

import numpy as np
import pytest
from arranged import in_plane, on_sphere, slerp, unit
from scipy.spatial.distance import squareform

from losskernel.errors import InputError
from losskernel.geometry import (
    Arrangement,
    arc,
    azimuthal,
    classical_scaling,
    dimensions_needed,
    frame,
    spherical_mds,
    stress_curve,
    tangent_pca,
)
from losskernel.geometry.arrangement import log_weights, mean_weights
from losskernel.geometry.maps.linear import angles

RNG = np.random.default_rng(0)


def directions(count: int, width: int) -> np.ndarray:
    return unit(RNG.normal(size=(count, width)))


def cap(count: int, width: int, spread: float = 0.4) -> np.ndarray:
    """Unit vectors about a pole, so that their mean is one."""
    return unit(np.eye(width)[0] + spread * RNG.normal(size=(count, width)))


def turned_onto(vectors: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Places after the rotation or reflection that brings them nearest to the truth."""
    left, _, right = np.linalg.svd(vectors.T @ truth)
    return vectors @ left @ right


def raw_stress(vectors: np.ndarray, distances: np.ndarray) -> float:
    return float(((np.arccos(np.clip(unit(vectors) @ unit(vectors).T, -1, 1)) - distances) ** 2).sum() / 2)


@pytest.mark.parametrize(("count", "dimensions"), [(2, 1), (10, 1), (10, 2), (40, 2), (30, 5)])
def test_points_of_a_sphere_are_recovered(count: int, dimensions: int) -> None:
    truth = directions(count, dimensions + 1)
    layout = spherical_mds(on_sphere(truth).distances, dimensions)
    np.testing.assert_allclose(np.linalg.norm(layout.coordinates, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(turned_onto(layout.coordinates, truth), truth, atol=1e-8)
    assert layout.stress < 1e-8
    assert layout.converged


def test_points_of_a_higher_sphere_are_placed_where_the_stress_stands_still() -> None:
    distances = on_sphere(directions(15, 20)).distances
    layout = spherical_mds(distances)
    assert layout.raw == pytest.approx(raw_stress(layout.coordinates, distances))
    assert layout.stress == pytest.approx(math.sqrt(2 * layout.raw / (distances**2).sum()))
    assert layout.converged
    assert layout.stress > 0.1
    for _ in range(20):  # by differences, along the sphere: no way down, and no slope
        way = RNG.normal(size=layout.coordinates.shape)
        way /= np.linalg.norm(way)
        here, there = (raw_stress(layout.coordinates + sign * 1e-4 * way, distances) for sign in (-1, 1))
        assert abs(there - here) / 2e-4 < 1e-4 * layout.raw
        assert min(here, there) >= layout.raw - 1e-9
    again = spherical_mds(distances)
    np.testing.assert_array_equal(again.coordinates, layout.coordinates)


def test_restarts_lower_the_stress_and_never_raise_it() -> None:
    gains = []
    for _ in range(6):
        distances = on_sphere(cap(20, 10)).distances
        gains.append(1 - spherical_mds(distances, restarts=6).raw / spherical_mds(distances, restarts=0).raw)
    assert min(gains) > -1e-9
    assert max(gains) > 1e-4


def test_random_starts_find_nothing_much_better() -> None:
    from scipy.optimize import minimize

    distances = on_sphere(cap(12, 8)).distances
    mapped = spherical_mds(distances).raw
    starts = [RNG.normal(size=36) for _ in range(8)]
    best = min(minimize(lambda z: raw_stress(z.reshape(12, 3), distances), start).fun for start in starts)
    assert mapped <= best * (1 + 1e-6)


def test_a_map_goes_on_from_a_known_one() -> None:
    distances = on_sphere(directions(14, 12)).distances
    line = spherical_mds(distances, 1)
    globe = spherical_mds(distances, 2, restarts=0, start=line.coordinates)
    assert globe.raw < line.raw * 0.9
    best = spherical_mds(distances, 2, restarts=10)
    assert spherical_mds(distances, 2, restarts=0, start=best.coordinates).raw <= best.raw * (1 + 1e-12)


def test_things_at_one_place_and_at_opposite_places_are_no_trouble() -> None:
    nowhere = spherical_mds(np.zeros((3, 3)))
    np.testing.assert_array_equal(nowhere.coordinates, [[1, 0, 0]] * 3)
    assert nowhere.stress == 0
    truth = directions(6, 3)
    twice = np.concatenate([truth, truth, -truth])
    layout = spherical_mds(on_sphere(twice).distances)
    assert layout.stress < 1e-5
    equal = spherical_mds((1 - np.eye(9)) * math.pi / 2)  # a simplex: cos(d) is the identity
    assert np.isfinite(equal.coordinates).all()
    assert 0.1 < equal.stress < 0.4
    lone = spherical_mds(np.zeros((1, 1)), 1)
    np.testing.assert_array_equal(lone.coordinates, [[1, 0]])


def test_what_no_sphere_can_hold_is_refused() -> None:
    good = on_sphere(directions(4, 3)).distances
    with pytest.raises(InputError, match=r"distances must be \[P, P\], got shape \(3,\)"):
        spherical_mds(np.zeros(3))
    with pytest.raises(InputError, match=r"at most π, got 4; use classical_scaling"):
        spherical_mds(4 * (1 - np.eye(3)))
    with pytest.raises(InputError, match="dimensions must be >= 1, got 0"):
        spherical_mds(good, 0)
    with pytest.raises(InputError, match="dimensions must be >= 1, got 0"):
        classical_scaling(good, 0)
    with pytest.raises(InputError, match="dimensions must be >= 1, got 0"):
        tangent_pca(on_sphere(directions(4, 3)), 0)
    with pytest.raises(InputError, match="restarts must be >= 0, got -1"):
        spherical_mds(good, restarts=-1)
    with pytest.raises(InputError, match=r"start must be \[4, <= 3\], got shape \(4, 5\)"):
        spherical_mds(good, start=np.ones((4, 5)))


def test_the_mean_has_no_pull() -> None:
    rows = cap(9, 5)
    near = on_sphere(rows)
    mean = mean_weights(near) @ rows
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-12)
    cosine = rows @ mean
    pull = (np.arccos(cosine) / np.sqrt(1 - cosine**2))[:, None] * (rows - cosine[:, None] * mean)
    np.testing.assert_allclose(pull.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(log_weights(near, mean_weights(near)) @ rows, pull, atol=1e-9)
    least = (np.arccos(cosine) ** 2).sum()
    for _ in range(20):
        other = unit(mean + 0.05 * RNG.normal(size=5))
        assert (np.arccos(rows @ other) ** 2).sum() > least
    twins = on_sphere(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    with pytest.raises(InputError, match="no mean: they cancel each other"):
        mean_weights(twins)


def test_a_mean_that_is_not_found_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losskernel.geometry.arrangement._ITERATIONS", 2)
    with pytest.raises(InputError, match=r"no mean: the search still moves by .* rad"):
        mean_weights(on_sphere(cap(9, 5)))


def test_a_geodesic_is_one_straight_axis() -> None:
    a, b = directions(2, 7)
    fractions = np.array([0, 0.1, 0.35, 0.5, 0.9, 1])
    near = on_sphere(np.stack([slerp(a, b, t) for t in fractions]))
    layout = tangent_pca(near, 2)
    angle = math.acos(a @ b)
    centred = (fractions - fractions.mean()) * angle
    np.testing.assert_allclose(np.abs(layout.coordinates[:, 0]), np.abs(centred), atol=1e-8)
    np.testing.assert_allclose(layout.coordinates[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(layout.explained, [1, 0], atol=1e-10)
    assert layout.stress < 1e-6
    assert tangent_pca(near, 1).stress < 1e-6


def test_tangent_pca_is_that_of_the_log_maps() -> None:
    rows = cap(12, 6)
    near = on_sphere(rows)
    mean = mean_weights(near) @ rows
    cosine = rows @ mean
    logs = (np.arccos(cosine) / np.sqrt(1 - cosine**2))[:, None] * (rows - cosine[:, None] * mean)
    _, scale, axes = np.linalg.svd(logs)
    layout = tangent_pca(near, 3)
    np.testing.assert_allclose(np.abs(layout.coordinates), np.abs(logs @ axes[:3].T), atol=1e-9)
    np.testing.assert_allclose(layout.explained, (scale**2 / (scale**2).sum())[:3], atol=1e-10)
    whole = tangent_pca(near, 5)  # all that the sphere has: exp brings every point back
    assert whole.stress < 1e-7
    assert whole.explained.sum() == pytest.approx(1)
    assert spherical_mds(near.distances).raw <= tangent_pca(near, 2).raw


def test_in_flat_spaces_it_is_classical_scaling() -> None:
    near = in_plane(RNG.normal(size=(9, 4)))
    layout, classical = tangent_pca(near, 2), classical_scaling(near.distances, 2)
    np.testing.assert_allclose(layout.coordinates, classical.coordinates, atol=1e-10)
    assert layout.stress == pytest.approx(classical.stress)
    assert layout.raw == pytest.approx(classical.raw)
    still = tangent_pca(Arrangement(np.zeros((3, 3)), np.ones((3, 3))))
    np.testing.assert_array_equal(still.explained, 0)


def test_near_points_have_a_map_too() -> None:
    flat = 1e-6 * RNG.normal(size=(8, 2))
    distances = np.linalg.norm(flat[:, None] - flat, axis=-1)
    layout = tangent_pca(Arrangement(distances, np.cos(distances)))
    again = np.linalg.norm(layout.coordinates[:, None] - layout.coordinates, axis=-1)
    np.testing.assert_allclose(again, distances, rtol=1e-6)


@pytest.mark.parametrize("method", ["spherical", "tangent", "classical"])
def test_stress_falls_to_nothing_where_the_points_live(method: str) -> None:
    rows = RNG.normal(size=(12, 4)) if method == "classical" else cap(12, 5)
    near = in_plane(rows) if method == "classical" else on_sphere(rows)
    curve = stress_curve(near, range(1, 30), method)
    np.testing.assert_array_equal(curve.dimensions, np.arange(1, 12))  # P - 1 is all
    assert (np.diff(curve.raw) <= 1e-9).all()
    assert (curve.raw[:2] > 0.01).all()
    assert curve.stress[3:].max() < 1e-6  # points of four dimensions
    needed = dimensions_needed(near, method)
    allowed = curve.raw[0] - 0.95 * (curve.raw[0] - curve.raw[-1])
    assert needed == curve.dimensions[curve.raw <= allowed][0]
    assert dimensions_needed(near, method, recovered=0) == 1
    assert dimensions_needed(near, method, recovered=1 - 1e-9) == 4


def test_stress_never_rises_with_the_dimension_even_where_nothing_fits() -> None:
    near = on_sphere(directions(20, 40))
    curve = stress_curve(near, (1, 2, 3, 5, 8, 19))
    assert (np.diff(curve.raw) < 0).all()
    assert curve.stress[-1] < 1e-6
    with pytest.raises(InputError, match=r"method must be one of \('spherical', 'tangent', 'classical'\), got 'umap'"):
        stress_curve(near, (1, 2), "umap")
    with pytest.raises(InputError, match="recovered must lie between 0 and 1, got 95"):
        dimensions_needed(near, recovered=95)
    with pytest.raises(InputError, match="dimensions must be >= 1, got 0"):
        stress_curve(near, (0,))


def test_paper_keeps_directions_and_distances_from_the_centre() -> None:
    vectors = cap(15, 3)
    axes = frame(vectors)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    drawn = azimuthal(vectors, axes)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), np.arccos(vectors @ axes[0]), atol=1e-10)
    np.testing.assert_allclose(axes[0], unit(vectors.mean(0)), atol=1e-12)
    np.testing.assert_allclose(azimuthal(axes[0], axes), 0, atol=1e-12)
    np.testing.assert_allclose(azimuthal(axes[1], axes), [math.pi / 2, 0], atol=1e-12)
    np.testing.assert_allclose(azimuthal(-np.eye(3)[0], np.eye(3)), [math.pi, 0], atol=1e-12)
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]  # how the map came to lie says nothing
    np.testing.assert_allclose(azimuthal(vectors @ turn, frame(vectors @ turn)), drawn, atol=1e-9)
    assert (drawn[:, 0] ** 2).sum() >= (drawn[:, 1] ** 2).sum()
    around = np.concatenate([np.eye(3)[[1, 1, 2]], -np.eye(3)[[1, 1, 2]]])  # they have no middle
    np.testing.assert_allclose(np.abs(frame(around)), np.eye(3)[[1, 2, 0]], atol=1e-12)
    with pytest.raises(InputError, match=r"vectors must be unit vectors \[P, k >= 2\], got shape \(3,\)"):
        frame(np.ones(3))


def test_arcs_are_great_circles() -> None:
    a, b = directions(2, 3)
    line = arc(a, b, 11)
    np.testing.assert_allclose(np.linalg.norm(line, axis=1), 1, atol=1e-12)
    steps = np.diagonal(squareform(angles(line)), offset=1)
    np.testing.assert_allclose(steps, math.acos(a @ b) / 10, atol=1e-9)
    np.testing.assert_allclose(line[[0, -1]], [a, b], atol=1e-12)
    np.testing.assert_allclose(arc(a, a, 3), [a, a, a], atol=1e-12)
    with pytest.raises(InputError, match="antipodes have no unique arc"):
        arc(a, -a)
