"""Figures of kernels around a run: what is drawn where, and what is refused."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from losskernel import figures
from losskernel.figures.shared.sweep_axis import Axis

STEPS = Axis("training step", ["0", "1", "10", "100"], [0.0, 1.0, 10.0, 100.0])
LINE = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
PASS = ["pass"] * 4


def words(figure: Any) -> str:
    """Every text of a figure, its legends' among them."""
    texts = [text.get_text() for axes in figure.axes for text in (axes.title, axes._left_title, *axes.texts)]
    return " ".join([*texts, *(text.get_text() for legend in figure.legends for text in legend.get_texts())])


def test_along_training_draws_both_ends_and_the_steps_between() -> None:
    losses = np.array([2.0, 1.0, 0.5, 0.4])
    figure = figures.along_training(STEPS, LINE, np.full((4, 4), 0.1), ["fail", "warn", "pass", "pass"], losses)
    left, right = figure.axes
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in left.lines}
    np.testing.assert_array_equal(lines["to the first"], [0, 1, 2, 3])
    np.testing.assert_array_equal(lines["to the last"], [3, 2, 1, 0])
    (steps,) = [pieces for pieces in left.collections if pieces.get_label() == "to the next"]
    np.testing.assert_array_equal([np.asarray(path.vertices)[:, 1] for path in steps.get_paths()], np.ones((3, 2)))
    np.testing.assert_array_equal(right.lines[0].get_ydata(), losses)
    assert left.get_xscale() == "log"
    assert all(word in words(figure) for word in ("fail", "warn", "pass", "noise alone"))
    bare = figures.along_training(STEPS, LINE, np.full((4, 4), np.nan), PASS, np.full(4, np.nan))
    assert len(bare.axes) == 1
    assert "noise" not in words(bare)


@pytest.mark.parametrize("name", ["distances", "floor", "verdicts", "losses"])
def test_along_training_refuses_arrays_of_other_steps(name: str) -> None:
    given: dict[str, Any] = {"distances": LINE, "floor": LINE, "verdicts": PASS, "losses": np.ones(4)}
    with pytest.raises(ValueError, match=f"{name} must be .*one per step"):
        figures.along_training(STEPS, **(given | {name: given[name][:3]}))


LAYOUTS = np.random.default_rng(0).normal(size=(12, 30, 2)).cumsum(axis=0)
LABELS = np.array(["a", "b", "c"] * 10)
TITLES = [f"step {step}" for step in range(12)]


def test_aligned_maps_are_eight_at_most_with_both_ends_on_one_scale() -> None:
    verdicts = ["pass"] * 11 + ["fail"]
    figure = figures.aligned_maps(LAYOUTS, LABELS, "kind", TITLES, verdicts)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 8
    assert [panels[0].get_title(), panels[-1].get_title()] == ["step 0", "step 11 (fail)"]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    scaled = figures.aligned_maps(LAYOUTS[:2], np.linspace(0, 1, 30), "depth", TITLES[:2], verdicts[:2])
    assert not scaled.legends
    many = figures.aligned_maps(LAYOUTS[:3], np.array([f"n{i + 1}" for i in range(30)] * 1), "w", TITLES[:3], PASS[:3])
    assert len(many.legends) == 1


def test_a_probe_moves_gently_from_its_place_to_the_next() -> None:
    corners = [[-1.0, -1.0], [1.0, 1.0]]
    layouts = np.array([[*corners, [-0.5, 0.5]], [*corners, [0.5, 0.5]], [*corners, [0.5, -0.5]]])
    labels, notes = np.array(["corner", "corner", "mover"]), ["loss 2", "loss 1", "loss 0.5"]
    animation = figures.moving_map(layouts, labels, TITLES[:3], notes, [0.0, 1.0, 4.0])
    picture: Any = Image.open(io.BytesIO(animation))
    assert (picture.n_frames, picture.size[0], picture.info["loop"]) == (17, 480, 0)
    centres, bars, times = [], [], []
    for frame in range(17):
        picture.seek(frame)
        times.append(picture.info["duration"])
        shot = np.asarray(picture.convert("RGB")).astype(int)
        field = shot[44:524]
        rows, columns = np.nonzero(np.abs(field - np.array([230, 159, 0])).sum(axis=2) < 30)  # the second colour
        centres.append([columns.mean(), rows.mean()])
        bars.append(int((np.abs(shot[534] - 38).sum(axis=1) < 10).sum()))
    share = np.arange(8) / 8
    eased = share**2 * (3 - 2 * share)
    x = np.concatenate([-0.5 + eased, np.full(9, 0.5)])
    y = np.concatenate([np.full(8, 0.5), 0.5 - eased, [-0.5]])
    half = centres[16][0] - centres[0][0]  # pixels of one unit of the map
    np.testing.assert_allclose(np.array(centres)[:, 0], 239.5 + half * x, atol=1.5)
    np.testing.assert_allclose(np.array(centres)[:, 1], 239.5 - half * y, atol=1.5)
    assert times[0] == times[8] > times[1]  # it stays at every stage
    assert bars == sorted(bars)
    assert abs(bars[8] / bars[16] - 1 / 4) < 0.05  # where the second stage stands on the bar


def test_a_map_of_many_points_and_a_scale_of_colours_can_move() -> None:
    layouts = np.random.default_rng(0).normal(size=(2, 4500, 2))
    picture: Any = Image.open(io.BytesIO(figures.moving_map(layouts, np.linspace(0, 1, 4500), TITLES[:2])))
    assert picture.n_frames == 9
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 40


@pytest.mark.parametrize(
    ("layouts", "titles", "message"),
    [
        (LAYOUTS[0], TITLES[:30], r"layouts must be \[P, N, 2\]"),
        (LAYOUTS[:2], TITLES[:3], "titles must be one per map, got 3 for 2"),
        (LAYOUTS[:2] * np.nan, TITLES[:2], "layouts must be finite"),
    ],
)
def test_maps_refuse_what_is_none(layouts: Any, titles: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.aligned_maps(layouts, LABELS, "kind", titles, ["pass"] * len(titles))
    with pytest.raises(ValueError, match=message):
        figures.moving_map(layouts, LABELS, titles)


def test_maps_refuse_verdicts_and_notes_of_other_maps() -> None:
    with pytest.raises(ValueError, match="verdicts must be one per map, got 1 for 2"):
        figures.aligned_maps(LAYOUTS[:2], LABELS, "kind", TITLES[:2], ["pass"])
    with pytest.raises(ValueError, match="notes must be one per map, got 1 for 2"):
        figures.moving_map(LAYOUTS[:2], LABELS, TITLES[:2], ["loss"])


def test_group_couplings_share_one_scale_and_name_failures() -> None:
    means = np.random.default_rng(0).random((3, 4, 4))
    figure = figures.group_couplings(means, list("abcd"), ["whole", "x", "y"], ["pass", "pass", "fail"], "R²", "kind")
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_title()]
    assert len({image.norm for image in images}) == 1
    assert images[0].norm.vmax == means.max()
    assert [axes.get_title() for axes in figure.axes[:3]] == ["whole", "x", "y\n(fail)"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list("abcd")
    with pytest.raises(ValueError, match=r"means must be \[B, 3, 3\]"):
        figures.group_couplings(means, list("abc"), ["whole", "x", "y"], PASS[:3], "R²", "kind")
    with pytest.raises(ValueError, match="titles and verdicts must be 3, got 1 and 3"):
        figures.group_couplings(means, list("abcd"), ["whole"], PASS[:3], "R²", "kind")


def shares(**changed: Any) -> figures.BlockShares:
    numbers = np.array([1.0, 0.4, 0.5])
    given: dict[str, Any] = dict.fromkeys(("weights", "self_coupling", "cka", "ceiling", "neighbours"), numbers)
    given |= {"self_coupling_se": 0.1 * numbers, "neighbours_se": 0.1 * numbers, "chance": 0.1}
    given |= {"within": numbers, "across": 0.1 * numbers, "names": ["whole", "a", "b"], "verdicts": PASS[:3]}
    return figures.BlockShares(**(given | changed))


def test_block_shares_have_a_row_per_block_and_no_panel_without_numbers() -> None:
    figure = figures.block_shares(shares(verdicts=["pass", "warn", "fail"]), "R²")
    assert [len(axes.patches) for axes in figure.axes] == [3, 3, 3, 0]
    assert [patch.get_width() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)] == [1.0, 0.4, 0.5]
    names = figure.axes[0].get_yticklabels()
    assert [text.get_text() for text in names] == ["whole", "a", "b"]
    assert len({text.get_color() for text in names}) == 3
    assert "name: fail" in words(figure)
    nothing = np.full(3, np.nan)
    bare = figures.block_shares(shares(within=nothing, across=nothing, cka=nothing), "R²")
    assert len(bare.axes) == 3
    assert len(bare.axes[1].patches) == 0
    assert "within groups" not in words(bare)
    with pytest.raises(ValueError, match="cka must have one entry per block, 3, got 2"):
        shares(cka=nothing[:2])
