"""Figures of the joint space say what the numbers say: nearest layers framed, noise told, names that keep apart."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from losskernel import figures
from losskernel.figures import JointPoints, Track

KINDS = [
    "input",
    "layer",
    "layer",
    "output",
    "target",
    "gradient",
    "laplace",
    "loss_kernel",
    "loss_kernel",
    "loss_kernel",
]
NAMED = {0: "inputs", 3: "softmax", 4: "class", 5: "gradients", 6: "Laplace kernel"}
NAMES = {**NAMED, 8: "loss kernel", 1: "layers.0", 2: "layers.1"}


def joint_points(**changed: Any) -> JointPoints:
    positions = np.random.default_rng(0).uniform(-1, 1, size=(10, 2))
    curved = {(a, b): np.linspace(positions[a], positions[b], 20) for a, b in pairwise([0, 1, 2, 3])}
    given: dict[str, Any] = {
        "positions": positions,
        "kinds": KINDS,
        "names": NAMES,
        "joined": curved,
        "path": Track("path through the layers", [0, 1, 2, 3]),
        "sweep": Track("rising localization", [7, 8, 5]),
        "localizations": [30.0, 300.0],
        "laplace": None,
        "training": [Track("loss kernel over training", [9, 8])],
        "run_kernel": 8,
        "failed": [7],
    }
    return JointPoints(**given | changed)


def words(figure: Any) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def keys(figure: Any) -> list[str]:
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_the_map_names_what_matters_and_tells_kinds_in_its_key() -> None:
    figure = figures.joint_map(joint_points(), "300 probes")
    assert {"inputs", "softmax", "class", "gradients", "loss kernel"} <= set(words(figure))
    wanted = {"inputs", "targets", "loss gradients", "this run's own", "its diagnosis fails", "rising localization"}
    assert wanted <= set(keys(figure))
    assert figure.legends[0].get_title().get_text() == "300 probes"
    assert "localization γ" in figure.axes[1].get_ylabel()


def test_names_and_key_stay_on_the_map() -> None:
    figure = figures.joint_map(joint_points(laplace=Track("the same in closed form", [6, 5])), "a note")
    figure.draw_without_rendering()
    frame = figure.bbox
    for box in [figure.legends[0].get_window_extent(), *(text.get_window_extent() for text in figure.axes[0].texts)]:
        assert box.x0 >= frame.x0 - 1
        assert box.x1 <= frame.x1 + 1


def test_a_map_without_sweep_or_training_is_drawn() -> None:
    figure = figures.joint_map(joint_points(sweep=None, localizations=[], training=[], failed=[]), "")
    assert len(figure.axes) == 1
    assert "rising localization" not in keys(figure)
    with pytest.raises(ValueError, match="hold no point 12"):
        figures.joint_map(joint_points(path=Track("path", [0, 12])), "")


def test_the_nearest_layer_is_framed_and_nothing_where_all_are_unrelated() -> None:
    distances = np.array([[1.2, 0.4, 0.9, 0.1], [1.57, 1.56, np.nan, 1.55]])
    figure = figures.kernels_layers(
        distances, ["loss kernel", "placebo"], ["inputs", "a", "b", "class"], np.zeros(2), 3
    )
    axes = figure.axes[0]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    assert [(round(frame.get_x() + 0.47), round(frame.get_y() + 0.44)) for frame in frames] == [(1, 0)]
    assert "0.40" in words(figure)
    assert len([word for word in words(figure) if word]) == 7
    with pytest.raises(ValueError, match=r"distances must be \[1, 4\]"):
        figures.kernels_layers(distances, ["loss kernel"], ["inputs", "a", "b", "class"], np.zeros(1))


def test_what_lies_within_the_noise_stands_in_italics() -> None:
    figure = figures.kernels_layers(np.array([[0.1, 0.4]]), ["k"], ["a", "b"], np.array([0.2]))
    assert [text.get_fontstyle() for text in figure.axes[0].texts] == ["italic", "normal"]


def test_many_layers_with_long_names_fit() -> None:
    rng = np.random.default_rng(0)
    kernels = [f"loss kernel, localization {10**index}" for index in range(6)]
    layers = [f"blocks.{index}.relu2.in" for index in range(24)]
    figure = figures.kernels_layers(rng.uniform(0.2, 1.5, (6, 24)), kernels, layers, np.zeros(6))
    figure.draw_without_rendering()
    assert not words(figure)  # too narrow for numbers
    assert all(label.get_window_extent().x0 >= 0 for label in figure.axes[0].get_yticklabels())


def test_the_sweep_shows_floor_guide_and_what_is_gone_in_the_noise() -> None:
    gamma = np.array([1e1, 1e2, 1e3, 1e4])
    corrected, failed = np.array([1.0, 0.1, 0.01, 0.0]), [False, False, False, True]
    exact = {"exact": (gamma, 10 / gamma)}
    figure = figures.localization_sweep(gamma, 10 / gamma + 0.01, corrected, np.full(4, 0.02), exact, failed)
    entries = {"noise floor", "exact", "sampled, raw", "without sampling noise", "slope −1", "its diagnosis fails"} | {
        "the same: 0 or less"
    }
    assert set(keys(figure)) == entries
    guide = next(line for line in figure.axes[0].lines if line.get_label() == "slope −1")
    x, y = np.log(guide.get_xdata()), np.log(guide.get_ydata())
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(-1)
    arrows = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert np.asarray(arrows[0].get_xdata()).tolist() == [1e4]
    assert figures.localization_sweep([10.0], [0.5]).axes[0].get_xscale() == "log"
    with pytest.raises(ValueError, match="angles must be one a localization"):
        figures.localization_sweep([10.0], [0.5, 0.2])


def labels_table() -> pd.DataFrame:
    rows = []
    for kernel in ("loss kernel", "gradients", "loss kernel, localization 100000"):
        for index, layer in enumerate(("inputs", "layers.0", "softmax")):
            value = 0.1 * index
            numbers = {
                "cosine": 0.5,
                "beyond": value,
                "low": value - 0.05,
                "high": value + 0.05,
                "beyond_corrected": value + 0.01,
            }
            chance = {"null_low": -0.02, "null_high": 0.02}
            rows.append({"target": "class", "kernel": kernel, "layer": layer} | numbers | chance)
    return pd.DataFrame(rows)


def test_agreement_beyond_labels_has_a_panel_a_kernel_and_a_row_a_layer() -> None:
    figure = figures.beyond_labels(
        labels_table(), ["loss kernel", "loss kernel, localization 100000"], "class", "a note"
    )
    assert len(figure.axes) == 2
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["inputs", "layers.0", "softmax"]
    drawn = next(line for line in figure.axes[0].lines if line.get_label() == "beyond the labels")
    np.testing.assert_allclose(np.asarray(drawn.get_xdata()), [0, 0.1, 0.2])
    assert "γ 100000" in figure.axes[1].get_title(loc="left")
    assert figure.axes[0].yaxis_inverted()
    with pytest.raises(ValueError, match=r"no rows of \['other'\]"):
        figures.beyond_labels(labels_table(), ["other"], "class")


def training(velocity: float) -> pd.DataFrame:
    steps = [0, 1, 10, 100]
    parts = [
        pd.DataFrame(
            {"what": name, "step": steps, "to_labels": 1.0, "to_end": [0.9, 0.6, 0.3, 0.0], "velocity": velocity}
        )
        for name in ("loss kernel", "layers.1")
    ]
    return pd.concat(parts)


def test_paths_over_training_begin_at_the_untrained_network() -> None:
    figure = figures.joint_training(training(1.2), ["loss kernel", "layers.1"], "class", "300 probes")
    assert len(figure.axes) == 3
    assert keys(figure) == ["loss kernel", "layers.1"]
    assert figure.axes[0].get_ylabel() == "distance to class, rad"
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "1", "10", "100"]
    np.testing.assert_allclose(np.asarray(figure.axes[1].lines[0].get_ydata()), [0.9, 0.6, 0.3, 0.0])
    assert len(figures.joint_training(training(np.nan), ["loss kernel"], "class").axes) == 2
    with pytest.raises(ValueError, match=r"no rows of \['softmax'\]"):
        figures.joint_training(training(1.2), ["softmax"], "class")
