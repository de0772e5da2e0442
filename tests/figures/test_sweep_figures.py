"""Figures of a comparison show the numbers they are given, and mark what they must."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from drawn import legend, rendered, words
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from losskernel.figures import Kernels, comparison, kernel_similarity
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.figures.sweeps.metrics_against_settings import Curve, Panel, Row

GAMMA = Axis("localization γ", ["0.01", "1", "100", "10000"], [0.01, 1, 100, 10000])
WORDS = ("fail", "warn", "pass", "none")


def curve(values: list[float], **more: object) -> Curve:
    array = np.array(values)
    return Curve("", "black", array, array - 0.1, array + 0.1, WORDS, **more)  # pyright: ignore[reportArgumentType]


def markers(axes: Axes) -> list[str]:
    return [str(line.get_marker()) for line in axes.lines if len(np.atleast_1d(line.get_xdata())) == 1]


# --- the axis


def test_values_over_more_than_a_decade_stand_on_a_logarithmic_axis() -> None:
    assert GAMMA.logarithmic
    assert not Axis("x", ["1", "2", "10"], [1, 2, 10]).logarithmic
    assert not Axis("x", ["-1", "100"], [-1, 100]).logarithmic
    assert not Axis("x", ["a", "b"]).logarithmic
    np.testing.assert_array_equal(Axis("x", ["a", "b"]).positions, [0, 1])


def test_values_that_crowd_on_a_plain_axis_have_round_names() -> None:
    figure = Figure()
    axes = figure.subplots()
    Axis("step size", ["-1", "0.001", "0.002"], [-1, 0.001, 0.002]).draw(axes, named=True)
    values = [float(text.get_text().replace("−", "-")) for text in axes.get_xticklabels()]
    assert len(values) > 3  # its own, not the three, of which two would run into one another
    np.testing.assert_allclose(np.diff(values), values[1] - values[0])


def test_a_zero_stands_one_gap_left_of_a_logarithmic_axis() -> None:
    axis = Axis("x", ["0", "1", "10", "100"], [0, 1, 10, 100])
    np.testing.assert_allclose(axis.positions, [0.1, 1, 10, 100])
    ticks = Figure().subplots()
    axis.draw(ticks, named=True)
    assert [label.get_text() for label in ticks.get_xticklabels()] == ["0", "1", "10", "100"]


def test_a_stretch_covers_its_values_and_no_others() -> None:
    low, high = GAMMA.span(1, 2)
    assert 0.01 < low < 1
    assert 100 < high < 10000
    alone = Axis("x", ["3"], [3.0])
    assert alone.span(0, 0)[0] < 3 < alone.span(0, 0)[1]


def test_curves_are_moved_apart_by_equal_shares_of_a_gap() -> None:
    np.testing.assert_allclose(GAMMA.shifted(0.5) / GAMMA.positions, 10)
    np.testing.assert_allclose(Axis("x", ["1", "3"], [1, 3]).shifted(0.1), [1.2, 3.2])


@pytest.mark.parametrize(
    ("values", "names", "printed"),
    [
        ([0.01, 1, 10000], ["0.01", "1", "10000"], ["$10^{-2}$", "$10^{0}$", "$10^{4}$"]),
        ([1, 10, 100], ["1", "10", "100"], ["1", "10", "100"]),
        ([5e-5, 1e-4], ["5e-05", "0.0001"], [r"$5\!\times\!10^{-5}$", "0.0001"]),
        (None, ["cost $5", "b"], [r"cost \$5", "b"]),
    ],
)
def test_names_are_printed_as_in_a_paper(values: list[float] | None, names: list[str], printed: list[str]) -> None:
    assert Axis("x", names, values).printed() == printed


def test_names_of_neighbours_stand_a_letter_apart() -> None:
    def named(axis: Axis, most: int) -> list[str]:
        axes = Figure().subplots()
        axis.draw(axes, named=True, most=most)
        return [text.get_text() for text in axes.get_xticklabels()]

    crowded = Axis("localization γ", ["10", "50", "250", "1e+08"], [10, 50, 250, 1e8])
    assert named(crowded, 9) == [f"$10^{{{power}}}$" for power in range(1, 9)]  # not 50250
    assert named(Axis("x", ["10", "100", "1e+03"], [10, 100, 1000]), 5) == ["$10^{1}$", "$10^{2}$", "$10^{3}$"]
    wide = Axis("x", ["10", "20", "30", "45", "60"], [10, 20, 30, 45, 60])
    assert named(wide, 9) == ["10", "20", "30", "45", "60"]
    many = named(Axis("first chain", [str(4 * job) for job in range(100)]), 9)
    assert many == [str(20 * tick) for tick in range(20)]


def test_long_names_of_values_leave_room_for_the_panels() -> None:
    names = [f"/home/someone/outputs/some/very/long/folder/of/a/run/step-{n}.pt" for n in range(3)]
    axis = Axis("checkpoint", names)
    panels = [Panel(f"{n}", [Curve("", "k", np.ones(3), np.ones(3), np.ones(3), WORDS[:3])]) for n in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rendered(comparison(panels, axis, [Row("", "k", WORDS[:3])]))
    printed = axis.printed()
    assert len(set(printed)) == 3
    assert max(map(len, printed)) <= 28
    assert printed[0].endswith("/step-0.pt")


def test_many_values_get_round_ticks() -> None:
    values = [float(f"{value:.3g}") for value in np.geomspace(1, 1e5, 25)]
    axes = Figure().subplots()
    Axis("x", [f"{value:g}" for value in values], values).draw(axes, named=True)
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"$10^{{{power}}}$" for power in range(6)]
    linear = Figure().subplots()
    Axis("x", [str(value) for value in range(10, 40)], list(range(10, 40))).draw(linear, named=True)
    assert "20" in [label.get_text() for label in linear.get_xticklabels()]
    assert len(linear.get_xticks()) < 10


def test_an_axis_needs_a_value_per_name() -> None:
    with pytest.raises(ValueError, match="values must be one per name, got 1 for 2 names"):
        Axis("x", ["1", "2"], [1])


# --- metrics


def test_the_strip_and_the_points_bear_the_verdicts() -> None:
    figure = comparison([Panel("ARI", [curve([0.1, 0.5, 0.9, math.nan])])], GAMMA, [Row("", "black", WORDS)])
    strip, panel = figure.axes
    assert markers(strip) == [VERDICTS[word].marker for word in WORDS]
    assert set(markers(panel)) >= {VERDICTS[word].marker for word in WORDS[:3]}
    assert legend(figure) == ["pass", "warn", "fail", "no result", "90 % interval"]
    rendered(figure)


def test_the_stable_stretch_is_shaded_where_it_is() -> None:
    panels = [Panel("ARI", [curve([0.1, 0.5, 0.9, 1.0])])]
    shaded = comparison(panels, GAMMA, [Row("", "black", WORDS, (1, 2))])
    (patch,) = shaded.axes[1].patches
    assert patch.get_x() == pytest.approx(GAMMA.span(1, 2)[0])  # pyright: ignore[reportAttributeAccessIssue]
    assert "stable region" in legend(shaded)
    assert not comparison(panels, GAMMA, [Row("", "black", WORDS)]).axes[1].patches
    several = comparison(panels, GAMMA, [Row("a", "black", WORDS, (1, 2)), Row("b", "red", WORDS)])
    assert not several.axes[1].patches  # each in its own row instead
    assert len(several.axes[0].collections) == 1


def test_control_and_floor_are_lines_of_their_own() -> None:
    measured = curve([0.1, 0.5, 0.9, 1.0], control=np.full(4, 0.3), floor=np.full(4, 0.01))
    figure = comparison([Panel("mean |R|", [measured])], GAMMA, [Row("", "black", WORDS)])
    drawn = [np.asarray(line.get_ydata()) for line in figure.axes[1].lines]
    assert any(np.array_equal(values, np.full(4, 0.3)) for values in drawn)
    assert any(np.array_equal(values, np.full(4, 0.01)) for values in drawn)
    assert {"control, nβ = 0", "Monte-Carlo floor"} <= set(legend(figure))


def test_thresholds_are_named_and_bounds_kept() -> None:
    far = [Panel("ESS", [curve([50, 200, 1000, 9000])], thresholds=[(400, "warn"), (100, "fail")])]
    figure = comparison(far, GAMMA, [Row("", "black", WORDS)])
    assert {"warn", "fail"} <= set(words(figure).split("\n"))
    assert figure.axes[1].get_yscale() == "log"
    bounded = comparison([Panel("ARI", [curve([0.1, 0.5, 0.9, 1.0])], bounds=(0, 1))], GAMMA, [Row("", "black", WORDS)])
    assert list(bounded.axes[1].get_yticks()) == [0, 0.5, 1]


def test_what_does_not_fit_the_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="panels must not be empty"):
        comparison([], GAMMA, [Row("", "black", WORDS)])
    with pytest.raises(ValueError, match="'ARI' has 4 values for 2 places"):
        comparison([Panel("ARI", [curve([1, 2, 3, 4])])], Axis("x", ["a", "b"]), [])
    with pytest.raises(ValueError, match="'short' has 1 values for 4 places"):
        comparison([Panel("ARI", [curve([1, 2, 3, 4])])], GAMMA, [Row("short", "black", ["pass"])])


# --- kernels


def kernels(paths: list[list[int]], names: list[str], count: int = 4) -> Kernels:
    positions = np.stack([np.arange(count), np.arange(count) % 2], 1).astype(float)
    distances = np.abs(positions[:, :1] - positions[:, 0]) / 10
    floor = np.full((count, count), 0.02)
    where = [spot % 4 for spot in range(count)]
    labels = [f"run {number}" for number in range(count)]
    zero = np.full(count, 0.4)
    return Kernels(distances, floor, zero, positions, 0.1, labels, ["pass"] * count, where, paths, names)


def test_the_matrix_shows_distances_and_on_its_diagonal_the_floor() -> None:
    figure = kernel_similarity(kernels([[0, 1, 2, 3]], [""]), GAMMA)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(np.diag(shown), 0.02)
    np.testing.assert_allclose(shown[0, 1:], [0.1, 0.2, 0.3])
    assert "0.30" in words(figure)
    rendered(figure)


def test_steps_are_drawn_from_each_value_to_the_next() -> None:
    steps = kernel_similarity(kernels([[0, 1, 2, 3]], [""]), GAMMA).axes[2]
    (drawn,) = [part for part in steps.collections if isinstance(part, LineCollection)]
    assert [[0.01, 0.1], [1, 0.1]] in [np.asarray(segment).tolist() for segment in drawn.get_segments()]
    assert any(np.array_equal(line.get_ydata(), np.full(4, 0.4)) for line in steps.lines)  # the controls
    (noise,) = [patch for patch in steps.patches if isinstance(patch, StepPatch)]
    np.testing.assert_allclose(noise.get_data()[0], np.full(3, 0.02))  # below each


def test_runs_of_several_curves_stand_in_blocks_and_share_a_key() -> None:
    figure = kernel_similarity(kernels([[0, 1, 2, 3], [7, 6, 5, 4]], ["nβ = 1", "nβ = 2"], 8), GAMMA)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["nβ = 1", "nβ = 2"]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown[0, 4:], [0.7, 0.6, 0.5, 0.4])
    assert {"nβ = 1", "nβ = 2", "γ = $10^{-2}$"} <= set(legend(figure))
    rendered(figure)


def test_paths_of_one_kernel_each_have_no_steps_to_explain() -> None:
    alone = replace(kernels([[0], [1]], ["1", "2"], count=2), to_control=np.full(2, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = kernel_similarity(alone, Axis("chains", ["2", "4"], [2, 4]))
    assert figure.axes[2].get_legend() is None


def test_a_logarithmic_panel_within_a_decade_has_values_between_its_powers() -> None:
    def ticks(*values: float) -> list[str]:
        panel = Panel("draws", [curve(list(values))], thresholds=((400.0, "warn"), (100.0, "fail")))
        figure = comparison([panel], GAMMA, [Row("", "k", WORDS)])
        rendered(figure)
        low, high = figure.axes[1].get_ylim()
        axis = figure.axes[1].yaxis
        pairs = zip(np.array(axis.get_majorticklocs()), axis.get_majorticklabels(), strict=True)
        return [text.get_text() for spot, text in pairs if low <= spot <= high]

    assert [text for text in ticks(85, 123, 208, 300) if text] == [
        r"$\mathdefault{10^{2}}$",
        r"$\mathdefault{2\times10^{2}}$",
    ]
    assert len(ticks(1, 10, 100, 1000)) == 4  # powers of ten alone


def test_without_an_order_there_is_no_path() -> None:
    figure = kernel_similarity(kernels([[0, 1, 2, 3]], [""]), Axis("model", list("abcd")))
    assert len(figure.axes) == 3  # matrix, map, colour bar
    assert all(len(np.atleast_1d(line.get_xdata())) == 1 for line in figure.axes[1].lines)
    assert "run 3" in words(figure)
    rendered(figure)


def test_names_of_points_close_together_are_joined() -> None:
    close = kernels([[0, 1, 2, 3]], [""])
    close.positions[1] = close.positions[0] + 1e-3
    assert "run 0, run 1" in words(kernel_similarity(close, GAMMA))


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = kernels([[0, 1, 2, 3]], [""])
    with pytest.raises(ValueError, match=r"positions must be \[4, 2\], got \(4, 3\); pass one entry per kernel"):
        Kernels(good.distances, good.floor, good.to_control, np.zeros((4, 3)), 0.0, good.names, [], [], [], [])


def test_names_that_would_run_into_one_another_stand_upright() -> None:
    def turned(names: list[str]) -> float:
        axes = Figure(figsize=(2.3, 2)).subplots()
        Axis("hidden", names).draw(axes, named=True)
        return axes.get_xticklabels()[0].get_rotation()

    assert turned(["[64]", "2 × 64", "4 × 64", "8 × 64", "4 × 16", "4 × 256"]) == 90
    assert turned(["[64]", "2 × 64", "4 × 64"]) == 0
