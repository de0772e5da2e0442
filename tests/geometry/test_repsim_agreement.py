"""Agreement with repsim 0.8.3 (github wrongu/repsim) where it is right, from values that it gave once.

experiments/repsim/make_values.py wrote them; experiments/repsim/README.md lists where repsim is wrong.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repsim_inputs import representations, sphere_distances

from losskernel.geometry import (
    AffineInvariant,
    AngularCKA,
    Bures,
    Laplacian,
    Point,
    Shape,
    Space,
    SquaredExponential,
    Stress,
    spherical_mds,
    tangent_pca,
)

VALUES = json.loads((Path(__file__).parents[1] / "repsim_values.json").read_text())
FEATURES = representations()
POINTS = {name: Point.from_features(values) for name, values in FEATURES.items()}
SPACES: dict[str, Space] = {
    "double": AngularCKA("double"),
    "masked": AngularCKA("masked"),
    "stress": Stress(rescale=False),
    "stress_rescaled": Stress(rescale=True),
    "shape": Shape(),
    "bures": Bures(),
    "affine_invariant_0.1": AffineInvariant(ridge=0.1),
    "affine_invariant_0.01": AffineInvariant(ridge=0.01),
}
KERNELS = {"squared_exponential": SquaredExponential, "laplacian": Laplacian}
# Full rank: elsewhere a rotation leaves tangents of shapes free, and repsim's depend on how features are turned.
FULL = {"deep", "unrelated", "last"}

EVERY = pytest.mark.parametrize("name", SPACES)


def exactly(given: Any) -> Any:
    return pytest.approx(given, rel=1e-9, abs=1e-9)


def triples(name: str) -> Iterator[tuple[Space, dict, Point, Point, Point]]:
    """A space, what repsim says of each triple, and its start, end and third point."""
    for given in VALUES["spaces"][name]["triples"]:
        start, end, third = (POINTS[item] for item in given["points"])
        yield SPACES[name], given, start, end, third


def combined(*terms: tuple[float, np.ndarray]) -> np.ndarray:
    """The sum of tangents times numbers; narrow ones get columns of zeros."""
    width = max(tangent.shape[-1] for _, tangent in terms)
    pads = [[(0, 0)] * (tangent.ndim - 1) + [(0, width - tangent.shape[-1])] for _, tangent in terms]
    return sum(
        (factor * np.pad(tangent, pad) for (factor, tangent), pad in zip(terms, pads, strict=True)), np.zeros(())
    )


def unique(name: str, given: dict) -> bool:
    return name not in ("shape", "bures") or set(given["points"]) <= FULL


def test_inputs_are_those_of_the_values() -> None:
    assert {name: np.linalg.norm(x) for name, x in FEATURES.items()} == exactly(VALUES["features"])


@EVERY
def test_lengths(name: str) -> None:
    given = VALUES["spaces"][name]["lengths"]
    pairs = [key.split() for key in given]
    result = [SPACES[name].length(POINTS[a], POINTS[b]) for a, b in pairs]
    assert result == exactly(list(given.values()))
    matrix = SPACES[name].distances(list(POINTS.values()))
    assert matrix[np.triu_indices(len(POINTS), 1)] == exactly(list(given.values()))


@EVERY
def test_geodesics(name: str) -> None:
    for space, given, start, end, third in triples(name):
        result = [space.length(space.geodesic(start, end, t), third) for t in (0.1, 0.5, 0.9)]
        assert result == exactly(given["geodesic to third"])


@EVERY
def test_vertex_angles(name: str) -> None:
    for space, given, start, end, third in triples(name):
        if name in ("shape", "bures") and given["points"][2] == "labels":
            continue  # of lower rank than its neighbours: repsim's angle there depends on how features are turned
        assert space.angle(start, third, end) == exactly(given["angle at third"])


@EVERY
def test_projections(name: str) -> None:
    for space, given, start, end, third in triples(name):
        result = space.project(third, start, end)
        # repsim halves a geodesic 20 times, or stops at a relative 1e-5.
        assert [float(item) for item in result] == pytest.approx(given["bisected"], rel=2e-5, abs=2e-5)
        assert float(result.distance) <= given["bisected"][1] + 1e-9


@EVERY
def test_logarithms_transport_and_exponential(name: str) -> None:
    for space, given, start, end, third in triples(name):
        if not unique(name, given):
            continue
        to_end, to_third = space.log(start, end), space.log(start, third)
        assert space.inner(start, to_end, to_third) == exactly(given["inner of logs"])
        carried = space.transport(start, end, to_third)
        back, onward = (space.inner(end, carried, space.log(end, item)) for item in (start, third))
        assert back == exactly(given["transported on way back"])
        assert onward == exactly(given["transported on way to third"])
        shot = space.exp(start, combined((0.6, to_end), (0.3, to_third)))
        result = [space.length(shot, item) for item in (start, end, third)]
        assert result == exactly(given["shot to start, end, third"])


@EVERY
def test_curvature(name: str) -> None:
    for space, given, start, end, third in triples(name):
        x, y, z = space.length(start, third), space.length(third, end), space.length(start, end)
        flat = np.sqrt(x**2 / 2 + y**2 / 2 - z**2 / 4)
        assert space.length(third, space.geodesic(start, end, 0.5)) - flat == pytest.approx(
            given["curvature"], abs=1e-9
        )


@pytest.mark.parametrize("key", VALUES["kernels"])
def test_kernels_and_their_length_scales(key: str) -> None:
    kind, length = key.split()
    kernel = KERNELS[kind](length if length.startswith("median") else float(length))
    given, result = VALUES["kernels"][key], kernel(FEATURES["inputs"])
    # repsim's |x - x| is rounding, 1e-8, where it should be 0.
    assert result[0] == pytest.approx(given["first row"], abs=5e-8)
    assert result.sum() == pytest.approx(given["sum"], abs=1e-6)
    points = [Point.from_features(FEATURES[name], kernel=kernel) for name in ("inputs", "hidden")]
    assert AngularCKA("double").length(*points) == pytest.approx(given["length of inputs, hidden"], abs=1e-7)


@pytest.mark.parametrize("name", VALUES["means"])
def test_frechet_mean_and_tangent_axes(name: str) -> None:
    given, space = VALUES["means"][name], SPACES[name]
    points = [POINTS[item] for item in ("inputs", "hidden", "deep", "labels")]
    middle = space.mean(points)
    result = np.array([space.length(middle, item) for item in points])
    assert result == pytest.approx(given["lengths to mean"], abs=5e-6)
    assert (result**2).sum() <= np.square(given["lengths to mean"]).sum() + 1e-12
    layout = tangent_pca(space.arrangement(points), dimensions=3)
    assert np.sqrt((layout.coordinates**2).sum(axis=0)) == pytest.approx(given["singular values"], abs=5e-6)


def test_spherical_map_has_no_more_stress() -> None:
    assert spherical_mds(sphere_distances()).raw <= VALUES["map"]["squared stress"]
