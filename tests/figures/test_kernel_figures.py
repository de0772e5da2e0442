import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from drawn import legend, rendered, words
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from mpl_toolkits.mplot3d.axes3d import Axes3D

from losskernel.figures import (
    interactive_map,
    interactive_page,
    kernel_matrix,
    loss_traces,
    map_2d,
    map_3d,
    neighbour_sheet,
    paper,
    spectrum,
    stamp,
    within_across,
)
from losskernel.figures.shared.colouring import colour_by
from losskernel.figures.shared.style import MANY, OKABE_ITO, palette

RNG = np.random.default_rng(0)


def _two_tasks(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    # R is 0.5 within a task and 0 across; the tasks alternate along the rows
    task = np.array(["add", "mul"] * (count // 2))
    correlation = 0.5 * (task[:, None] == task[None])
    np.fill_diagonal(correlation, 1.0)
    return correlation, task


def _images(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:2]]


# --- kernel_matrix


def test_the_left_matrix_has_contiguous_groups() -> None:
    correlation, task = _two_tasks()
    left, right = _images(kernel_matrix(correlation, task))
    same = np.kron(np.eye(2), np.ones((20, 20))).astype(bool)
    for matrix in (left, right):  # these two clusters are so clear that both orders find them
        assert (matrix[same] >= 0.5).all()
        assert (matrix[~same] == 0).all()
    assert not np.array_equal(left, correlation)


def test_the_order_permutes_rows_and_columns_alike() -> None:
    features = RNG.normal(size=(30, 5))
    correlation = np.asarray(np.corrcoef(features))
    for matrix in _images(kernel_matrix(correlation, RNG.integers(0, 3, 30))):
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
        np.testing.assert_allclose(np.linalg.eigvalsh(matrix), np.linalg.eigvalsh(correlation), atol=1e-12)


def test_given_clusters_stay_contiguous() -> None:
    correlation, _ = _two_tasks()
    clusters = RNG.permutation(np.repeat([0, 1, 2, 3], 10))
    marked = correlation + 1e-3 * clusters[:, None] + 1e-3 * clusters[None]  # each row's diagonal tells its cluster
    right = _images(kernel_matrix(marked, None, clusters))[1]
    order = np.rint((np.diag(right) - 1.0) / 2e-3).astype(int)
    assert np.count_nonzero(np.diff(order)) == 3


def test_the_colour_limit_leaves_out_the_diagonal() -> None:
    correlation, task = _two_tasks()
    weak = np.where(np.eye(len(task), dtype=bool), 1.0, correlation / 10)
    image = kernel_matrix(weak, task).axes[0].images[0]
    assert image.get_clim() == pytest.approx((-0.05, 0.05))


def test_an_identity_matrix_still_has_a_colour_scale() -> None:
    assert kernel_matrix(np.eye(4)).axes[0].images[0].get_clim() == (-1.0, 1.0)


def test_a_large_matrix_is_thinned_evenly_and_says_so() -> None:
    groups = np.repeat([0, 1], 750)
    figure = kernel_matrix(np.eye(1500), groups)
    assert _images(figure)[0].shape == (1000, 1000)
    assert figure.axes[0].get_xlabel() == "probe (an even 1,000 of 1,500)"


def test_few_groups_are_in_a_legend_and_more_stand_at_the_axis_if_they_fit() -> None:
    correlation, task = _two_tasks()
    assert legend(kernel_matrix(correlation, task)) == ["add", "mul"]
    names = np.array([f"class {number}" for number in range(20)] * 2)
    figure = kernel_matrix(correlation, names)
    assert legend(figure) == []
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()][9:11] == ["class 9", "class 10"]
    crowded = np.array([f"class {number}" for number in range(40)])
    assert kernel_matrix(correlation, crowded, group_name="class").axes[0].get_ylabel() == "40 groups of class"


# --- the others


def test_within_across_marks_means_and_floor() -> None:
    within, across = RNG.uniform(0.3, 0.5, 400), np.abs(RNG.normal(0, 0.02, 400)) + 1e-4
    figure = within_across(within, across, 0.016)
    assert f"mean {within.mean():.2g}" in words(figure)
    assert f"mean {across.mean():.2g}" in words(figure)
    assert legend(figure) == ["same task", "different task", "Monte-Carlo floor 0.016"]
    assert figure.axes[0].get_xscale() == "log"


def test_signed_values_have_a_linear_axis_and_densities_of_mass_one() -> None:
    figure = within_across(RNG.normal(0.3, 0.1, 500), RNG.normal(0, 0.1, 2000))
    assert figure.axes[0].get_xscale() == "linear"
    steps = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    assert len(steps) == 4  # a filled and an outlined one each
    for patch in steps:
        density, edges, _ = patch.get_data()
        assert np.sum(density * np.diff(edges)) == pytest.approx(1.0)


def test_a_map_names_its_groups_once() -> None:
    xy = RNG.normal(size=(60, 2))
    far = np.repeat([[0, 0], [50, 0], [0, 50]], 20, axis=0)
    groups = np.repeat(["ant", "bee", "cat"], 20)
    direct = map_2d(xy + far, groups, "animal")
    assert [text.get_text() for text in direct.axes[0].texts] == ["ant", "bee", "cat"]
    assert legend(direct) == []
    assert legend(map_2d(np.tile(xy[:20], (3, 1)), groups, "animal")) == [
        "ant",
        "bee",
        "cat",
    ]  # equal medians leave no room
    assert legend(map_3d(RNG.normal(size=(60, 3)), groups, "animal")) == ["ant", "bee", "cat"]


def test_many_numbers_get_a_colour_bar() -> None:
    assert map_2d(RNG.normal(size=(60, 2)), np.arange(60), "depth").axes[-1].get_xlabel() == "depth"


def test_three_views_show_the_same_points_from_different_sides() -> None:
    views = map_3d(RNG.normal(size=(20, 3)), np.arange(20) % 2, "parity").axes[:3]
    assert len({view.azim for view in views if isinstance(view, Axes3D)}) == 3
    assert len({view.get_xlim() for view in views}) == 1


def test_loss_traces_count_sampler_steps() -> None:
    draws = RNG.uniform(1, 2, (3, 10))
    figure = loss_traces(draws, RNG.uniform(1, 2, (3, 4)), 5, 200, 0.9, draws + 1)
    line, distance = figure.axes[0].lines[0], figure.axes[1].lines[0]
    np.testing.assert_array_equal(np.asarray(line.get_xdata())[:5], [50, 100, 150, 200, 205])
    np.testing.assert_array_equal(distance.get_xdata(), 200 + 5 * np.arange(1, 11))
    np.testing.assert_array_equal(distance.get_ydata(), draws[0] + 1)
    assert "loss at w* = 0.9" in legend(figure)
    assert len(loss_traces(draws, None, 5, 0, None, None).axes) == 1


def test_spectrum_sorts_and_reports_shares() -> None:
    figure = spectrum(np.array([1.0, 6.0, 3.0, -1e-9]), 2.1, np.eye(4)[:2], np.array(list("abab")))
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [6, 3, 1])
    np.testing.assert_allclose(np.asarray(figure.axes[1].lines[0].get_ydata()), [0.6, 0.9, 1.0, 1.0])
    assert "60%" in words(figure)
    assert "1 not positive" in words(figure)


def test_neighbour_sheet_prints_each_similarity() -> None:
    captions = [f"probe {number}" for number in range(6)]
    queries, neighbours = np.array([0, 3]), np.array([[1, 2], [4, 5]])
    similarity = np.array([[0.9, -0.25], [0.5, 0.1]])
    for images in (None, RNG.uniform(size=(6, 4, 4)), RNG.integers(0, 256, (6, 4, 4, 3))):
        figure = neighbour_sheet(queries, neighbours, similarity, images, captions)
        labels = [axes.get_xlabel() for axes in figure.axes]
        assert [label.split("\n")[-1] for label in labels] == [
            "query",
            "R = 0.90",
            "R = −0.25",
            "query",
            "R = 0.50",
            "R = 0.10",
        ]
        assert rendered(figure)


def test_edges_of_pictures_have_no_colours_that_no_legend_explains() -> None:
    captions = [f"probe {number}" for number in range(12)]
    pictures = RNG.integers(0, 256, (12, 4, 4, 3))
    for groups, coloured in ((2, True), (12, False)):
        labels = np.arange(12) % groups
        figure = neighbour_sheet(np.array([0]), np.array([[1, 2, 3]]), np.zeros((1, 3)), pictures, captions, labels)
        edges = {tuple(axes.spines["left"].get_edgecolor()) for axes in figure.axes[:4]}
        assert len(edges) == (2 if coloured else 1)
        assert bool(figure.legends) == coloured


def test_the_stamp_is_seen_and_takes_no_room_from_the_data() -> None:
    figure = map_2d(RNG.normal(size=(20, 2)), np.arange(20), "index")
    height = figure.get_size_inches()[1]
    assert stamp(figure, "FAILED diagnosis: chains still climb") is figure
    assert "chains still climb" in words(figure)
    assert figure.get_size_inches()[1] > height
    with pytest.raises(ValueError, match="text must say what is wrong"):
        stamp(figure, " ")


def test_the_interactive_map_shows_one_label_at_a_time() -> None:
    labels = {"task": np.array(["a", "<b>"] * 10), "depth": np.linspace(0, 1, 20)}
    figure = interactive_map(RNG.normal(size=(20, 2)), RNG.normal(size=(20, 3)), labels, ["data:,"] * 20)
    traces: list[Any] = list(figure.data)
    assert [trace.type for trace in traces] == ["scattergl", "scatter3d"] * 3
    assert [trace.visible for trace in traces] == [True] * 4 + [False] * 2
    layout: Any = figure.layout
    shown = [list(button.args[1]) for button in layout.updatemenus[0].buttons]
    assert shown == [[True] * 4 + [False] * 2, [False] * 4 + [True] * 2]
    assert sorted(np.concatenate([trace.customdata for trace in traces[:4:2]])) == list(range(20))
    assert traces[0].text[0] == "probe 1<br>task: &lt;b&gt;<br>depth: 0.05263"
    page = interactive_page(figure)
    assert "thumbnails" in page
    assert "<script src=" not in page


# --- colours


def test_groups_and_scales_are_told_apart() -> None:
    assert colour_by(np.arange(12), "labels", 12).scale is None
    assert colour_by(np.arange(13), "labels", 13).scale is not None
    assert colour_by(np.array(["item 10", "item 9", "item 9"]), "labels", 3).names == ["item 9", "item 10"]
    mixed = colour_by(np.array(["z", "a", "z", "b"]), "labels", 4)
    np.testing.assert_array_equal(mixed.codes, [2, 0, 2, 1])
    np.testing.assert_array_equal(mixed.order, [1, 3, 0, 2])
    np.testing.assert_array_equal(mixed.rgba[0], mixed.rgba[2])


def test_an_unknown_number_is_grey() -> None:
    values = np.append(np.arange(20.0), np.nan)
    rgba = colour_by(values, "labels", 21).rgba
    assert np.ptp(rgba[-1, :3]) == 0
    assert np.isfinite(rgba).all()


def test_palettes_never_repeat_a_colour() -> None:
    assert palette(8) == list(OKABE_ITO)
    for count in (2, 8, 9, len(MANY), 33, 200):
        assert len(set(palette(count))) == count
    with pytest.raises(ValueError, match="count must be >= 0"):
        palette(-1)


# --- refusals

_XY = np.zeros((4, 2))
_NEAR = np.zeros((4, 2), dtype=int)
_TEXT = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: kernel_matrix(np.zeros((3, 4))), r"correlation must be \[N, N\].*got \(3, 4\)"),
        (lambda: kernel_matrix(np.zeros((1, 1))), "N >= 2"),
        (lambda: kernel_matrix(np.full((3, 3), np.nan)), "correlation must be finite"),
        (lambda: kernel_matrix(np.eye(3), np.arange(4)), r"groups must have shape \(3,\), got \(4,\)"),
        (
            lambda: kernel_matrix(np.eye(3), None, np.arange(4)),
            r"clusters must be \[3\], got \(4,\)",
        ),
        (lambda: within_across(np.zeros(0), np.ones(3)), r"within must be \[pairs\], not empty"),
        (lambda: within_across(np.ones(3), np.ones((3, 3))), r"across must be \[pairs\].*got \(3, 3\)"),
        (lambda: within_across(np.ones(3), np.array([np.inf])), "across must be finite"),
        (lambda: map_2d(np.zeros((4, 3)), np.arange(4), "x"), r"xy must be \[N, 2\].*got \(4, 3\)"),
        (lambda: map_2d(np.full((4, 2), np.nan), np.arange(4), "x"), "xy must be finite"),
        (lambda: map_2d(_XY, np.arange(3), "x"), r"labels must have shape \(4,\), got \(3,\)"),
        (lambda: map_3d(_XY, np.arange(4), "x"), r"xyz must be \[N, 3\].*got \(4, 2\)"),
        (lambda: interactive_map(np.zeros(4), None, {"a": np.arange(4)}, None), r"xy must be \[N, 2\]"),
        (lambda: interactive_map(_XY, _XY, {"a": np.arange(4)}, None), r"xyz must be \[4, 3\], got \(4, 2\)"),
        (lambda: interactive_map(_XY, None, {}, None), "labels must name at least one label"),
        (
            lambda: interactive_map(_XY, None, {"a": np.arange(4)}, ["x"]),
            r"thumbnails must be \[4\], got \(1,\); pass one per probe",
        ),
        (
            lambda: interactive_map(_XY, None, {"a": np.arange(3)}, None),
            r"labels\['a'\] must have shape \(4,\)",
        ),
        (lambda: loss_traces(np.zeros(4), None, 1, 0, None, None), r"draws must be \[chains, draws\]"),
        (lambda: loss_traces(_XY, None, 0, 0, None, None), "steps_per_draw must be >= 1, got 0"),
        (lambda: loss_traces(_XY, None, 1, -1, None, None), "burn_in_steps must be >= 0, got -1"),
        (lambda: loss_traces(_XY, np.zeros((3, 2)), 1, 9, None, None), r"burn_in must be \[4, moments\]"),
        (
            lambda: loss_traces(_XY, None, 1, 0, None, np.zeros((4, 3))),
            r"distance must be \[4, 2\], got \(4, 3\)",
        ),
        (lambda: spectrum(np.zeros((2, 2)), 1.0, None), r"eigenvalues must be \[M\].*got \(2, 2\)"),
        (lambda: spectrum(np.array([1.0, -1.0]), 1.0, None), "eigenvalues must have a positive sum"),
        (lambda: spectrum(np.ones(3), 1.0, np.ones((7, 3))), r"modes must be \[k <= 6, N\], got \(7, 3\)"),
        (lambda: spectrum(np.ones(3), 1.0, None, np.arange(3)), "groups need modes"),
        (lambda: spectrum(np.ones(3), 1.0, np.ones((1, 3)), np.arange(4)), r"groups must have shape \(3,\)"),
        (lambda: neighbour_sheet(_XY, _XY, _XY, None, _TEXT), r"query_indices must be \[Q\]"),
        (
            lambda: neighbour_sheet(np.arange(2), _XY, _XY, None, _TEXT),
            r"neighbour_indices must be \[2, k <= 12\]",
        ),
        (
            lambda: neighbour_sheet(np.arange(4), _NEAR, np.zeros(4), None, _TEXT),
            r"similarity must be \[4, 2\]",
        ),
        (
            lambda: neighbour_sheet(np.arange(4), _NEAR, _XY, None, _TEXT[:2]),
            "captions must cover probe 3, got 2",
        ),
        (
            lambda: neighbour_sheet(np.arange(4), _NEAR, _XY, np.zeros((3, 2, 2)), _TEXT),
            r"images must be \[4, H, W\]",
        ),
        (lambda: neighbour_sheet(np.arange(4), _XY, _XY, None, _TEXT), "must be integers, got float64"),
    ],
)
def test_wrong_arguments_are_refused_with_the_remedy(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


# --- manners


def test_figures_leave_matplotlib_and_their_arguments_as_they_were() -> None:
    settings = dict(matplotlib.rcParams)
    correlation, task = _two_tasks()
    before = correlation.copy()
    assert rendered(kernel_matrix(correlation, task))
    np.testing.assert_array_equal(correlation, before)
    assert dict(matplotlib.rcParams) == settings


def test_a_pdf_keeps_its_text_as_text() -> None:
    with io.BytesIO() as file, paper():
        map_2d(RNG.normal(size=(5, 2)), np.arange(5), "index").savefig(file, format="pdf")
        assert b"/Type3" not in file.getvalue()


def test_importing_figures_loads_nothing_heavy() -> None:
    heavy = ("torch", "plotly", "umap", "hydra", "wandb", "pytorch_lightning", "matplotlib.pyplot", "pandas")
    code = f"import sys, losskernel.figures; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
