"""Figures of paths: what they say, with few and many layers, short and long names."""

import numpy as np
import pytest
from drawn import collisions, legend, outside, smallest, words
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from losskernel.figures import path_distances, path_map, path_profiles, path_training
from losskernel.figures.paths.paths import Course, Falling, Route, Sheet, along_colours
from losskernel.figures.shared.lettering import legend_below, name_points
from losskernel.figures.shared.sweep_axis import Axis

NOTE = "m = 300 probes · angular CKA, u-centred · a distance's standard error over probes: 0.020 (median)"


def course(name: str, colour: str, count: int) -> Course:
    rng = np.random.default_rng(count)
    values = np.abs(rng.normal(size=count))
    return Course(
        name,
        colour,
        values,
        values / 2,
        np.linspace(0, 1, count),
        values[1:],
        np.diff(values),
        np.pi * rng.random(count - 1),
        np.pi * rng.random(count - 2),
        np.full(count, np.nan),
        np.full(count - 1, 0.1),
    )


def profiles(names: list[str]) -> Figure:
    return path_profiles(names, [course("untrained", "C1", len(names)), course("trained", "C0", len(names))], NOTE)


def map_of(count: int = 9, networks: int = 4, names: int = 12) -> Figure:
    """Paths of `networks` from one input, and a target, on planted places."""
    walks = [[0, *range(1 + k * count, 1 + (k + 1) * count)] for k in range(networks)]
    positions = np.cumsum(np.random.default_rng(networks).normal(size=(networks * count + 2, 2)), axis=0) / 10
    positions[0] = 0
    target = len(positions) - 1
    colours = along_colours(networks)
    routes = [
        Route("untrained" if k == 0 else f"step {10**k}", walk, colours[k], [], k == networks - 1, k == 0)
        for k, walk in enumerate(walks)
    ]
    labels = {target: "class (target)", 0: "inputs"}
    labels |= {walks[-1][layer]: f"inception4{layer}.branch2" for layer in range(1, min(names, count) + 1)}
    sheets = [
        Sheet(title, positions, 0.2, "axis 1, rad", "axis 2, rad", {}) for title in ("spherical MDS", "tangent PCA")
    ]
    curves = [
        Falling("spherical MDS", np.arange(1, 6), 1 / np.arange(1, 6), 3),
        Falling("tangent PCA", np.arange(1, 6), 1.2 / np.arange(1, 6), None),
    ]
    return path_map(sheets, curves, routes, labels, [0], target, NOTE, "class (target)")


@pytest.mark.parametrize(
    "names",
    [
        ["inputs", "layers.0", "layers.1", "logits", "softmax"],
        ["inputs", *(f"inception{k}.branch2.a_long_name_of_conv" for k in range(23)), "softmax"],
        ["inputs", *(f"blocks.{k // 3}.relu{k % 3}" for k in range(58)), "softmax"],
    ],
)
def test_profiles_name_their_layers_legibly(names: list[str]) -> None:
    figure = profiles(names)
    said = words(figure)
    assert {"inputs", "softmax"} <= set(said.splitlines())
    assert "m = 300 probes" in said
    assert not collisions(figure)
    assert not outside(figure)
    assert smallest(figure) >= 6
    assert legend(figure) == ["untrained", "trained"]


def test_profiles_show_what_they_are_given() -> None:
    given = course("trained", "C0", 5)
    figure = path_profiles(["a", "b", "c", "d", "e"], [given], NOTE)
    distances, steps, angles, way = figure.axes

    def drawn(axes: Axes) -> list[list[float]]:
        lines = [np.atleast_1d(np.asarray(line.get_ydata(), dtype=float)).tolist() for line in axes.lines]
        pieces = [pieces for pieces in axes.collections if isinstance(pieces, LineCollection)]
        return lines + [np.asarray(segment)[:, 1].tolist() for several in pieces for segment in several.get_segments()]

    assert given.to_target.tolist() in drawn(distances)
    assert given.off.tolist() in drawn(distances)
    assert all([value] * 2 in drawn(steps) for value in (*given.step.tolist(), *given.progress.tolist()))
    assert np.degrees(given.heading).tolist() in drawn(angles)
    assert np.degrees(given.turning).tolist() in drawn(angles)
    assert given.fraction.tolist() in drawn(way)


def test_a_profile_of_other_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="trained must have 4 layers, got 5"):
        path_profiles(["a", "b", "c", "d"], [course("trained", "C0", 5)], NOTE)


@pytest.mark.parametrize(("count", "networks"), [(3, 1), (9, 9), (40, 4)])
def test_the_map_keeps_its_names_apart(count: int, networks: int) -> None:
    figure = map_of(count, networks)
    assert not [pair for pair in collisions(figure) if "stress" not in "".join(pair)]
    assert not outside(figure)
    assert "class (target)" in legend(figure)
    assert len(legend(figure)) == networks + 2
    assert words(figure).count("stress 0.20") == 2


def test_the_map_refuses_points_without_a_place() -> None:
    sheet = Sheet("spherical MDS", np.zeros((3, 2)), 0.0, "x", "y", {})
    with pytest.raises(ValueError, match=r"spherical MDS has \(3, 2\) places for point 7; pass all points"):
        path_map([sheet], [], [Route("a", [0, 1], "C0")], {}, [0], 7, NOTE)
    with pytest.raises(ValueError, match="sheets must not be empty"):
        path_map([], [], [], {}, [0], 1, NOTE)


def test_a_route_is_joined_in_order_and_its_branches_lie_beside() -> None:
    route = Route("trained", [0, 3, 5], "C0", [(0, 1), (1, 3)])
    assert route.edges == [(0, 3), (3, 5)]
    assert route.beside == [1]


def test_names_take_turns_and_those_without_a_place_are_left_out() -> None:
    def named(needed: tuple[int, ...]) -> list[str]:
        figure = Figure(figsize=(1.2, 1.2), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        figure.draw_without_rendering()
        name_points(axes, np.full((12, 2), 0.5), {k: f"a long name {k}" for k in range(12)}, needed=needed)
        return [text.get_text() for text in axes.texts]

    assert named(())[0] == "a long name 0"
    assert len(named(())) < 12
    assert "a long name 11" in named((11,))


def test_a_key_is_read_row_by_row() -> None:
    figure = map_of(3, 9)
    entries = legend(figure)
    assert entries == ["untrained", *(f"step {10**k}" for k in range(1, 9)), "inputs", "class (target)"]
    first = [text.get_text() for text in figure.legends[0].get_texts()]
    assert first != entries  # matplotlib reads it column by column, and there are several rows
    assert not outside(figure)
    alone = Figure()
    legend_below(alone, [], note="nothing to explain")
    assert "nothing to explain" in words(alone)


@pytest.mark.parametrize("count", [2, 9, 30])
def test_distances_between_paths_are_written_where_they_can_be_read(count: int) -> None:
    positions = np.random.default_rng(count).normal(size=(count, 2))
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    names = [f"step {10 * k}" for k in range(count)]
    figure = path_distances(distances, positions, 0.1, names, along_colours(count), [range(count)], NOTE)
    assert ("0.00" in words(figure)) == (count <= 10)
    assert not outside(figure)
    with pytest.raises(ValueError, match="places must be"):
        path_distances(distances, positions[:1], 0.1, names, along_colours(count), [], NOTE)


def test_long_names_of_paths_are_numbers_on_the_map() -> None:
    positions = np.array([[0.0, 0.0], [1.0, 0.0]])
    names = ["a wide network, seed 0", "a deep network, seed 1"]
    said = words(path_distances(1 - np.eye(2), positions, 0.0, names, ["C0", "C1"], [], NOTE)).splitlines()
    assert said.count("1") >= 2  # below the matrix, and on the map
    assert "2: a deep network, seed 1" in said


def test_training_shows_every_curve_and_its_errors() -> None:
    axis = Axis("training step", ["0", "1", "100"], [0.0, 1.0, 100.0])
    values, errors = np.array([3.0, 2.0, 2.5]), np.array([0.1, np.nan, 0.2])
    figure = path_training(axis, {"length, rad": (values, errors)}, {"logits": (values / 3, errors)}, NOTE)
    assert not collisions(figure)
    assert not outside(figure)
    assert legend(figure) == ["logits"]
    assert np.array_equal(np.asarray(figure.axes[0].lines[0].get_ydata()), values)
    with pytest.raises(ValueError, match="'logits' must have 3 values"):
        path_training(axis, {}, {"logits": (values[:2], errors[:2])}, NOTE)
