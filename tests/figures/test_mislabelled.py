"""Figures of memorisation: all is there, nothing collides, hard cases are drawn, bad input is refused."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawn import collisions, legend, outside, rendered, smallest, texts, words
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from losskernel.figures import marked_map, score_distributions, suspects_sheet
from losskernel.figures.mislabelled import standardised
from losskernel.figures.shared.style import DOUBLE, OKABE_ITO

SCORES = ["self_coupling", "mean_loss", "rival_class", "opposition", "loss", "margin", "area_under_margin"]
LONG = ["Welsh springer spaniel", "Größe und Äußeres", "n02102040 English springer", "1", "$x_1$"]


def some_scores(count: int = 300, wrong: int = 30, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    marked = np.arange(count) < wrong
    return {name: rng.normal(size=count) + 3 * marked for name in SCORES}, marked


def inner_legend(axes: Axes) -> list[str]:
    key = axes.get_legend()
    return [] if key is None else [text.get_text() for text in key.get_texts()]


def some_suspects(count: int = 40, **changes: Any) -> dict[str, Any]:
    given = [LONG[index % 5] for index in range(count)]
    rng = np.random.default_rng(0)
    return {
        "given": given,
        "likely": [LONG[(index // 2) % 5] for index in range(count)],
        "scores": -np.sort(-rng.exponential(size=count) * 1e4),
        "images": rng.integers(0, 256, (count, 16, 24, 3), dtype=np.uint8),
        "captions": [f"train/spaniel/{index:06d}.jpeg" for index in range(count)],
        "rivals": [LONG[(index + 1) % 5] for index in range(count)],
        "truth": [LONG[(index // 3) % 5] for index in range(count)],
    } | changes


# --- distributions


def test_every_score_has_a_row_with_its_note() -> None:
    scores, marked = some_scores()
    notes = {name: f"0.99{index} ± 0.001" for index, name in enumerate(scores)}
    figure = score_distributions(scores, marked, notes)
    said = words(figure)
    assert [name.replace("_", " ") in said for name in scores] == [True] * 7
    assert [note in said for note in notes.values()] == [True] * 7
    assert "AUROC" in said
    (axes,) = figure.axes
    assert inner_legend(axes) == ["other probes", "mislabelled"]
    assert collisions(figure) == []
    assert outside(figure) == []
    assert smallest(figure) >= 6
    assert figure.get_size_inches()[0] == DOUBLE


def test_without_truth_there_is_one_colour_and_tails_and_constants_are_drawn() -> None:
    rng = np.random.default_rng(0)
    hard = {"tail": rng.standard_cauchy(500), "constant": np.ones(500), "binary": (np.arange(500) == 3).astype(float)}
    figure = score_distributions(hard)
    assert inner_legend(figure.axes[0]) == ["all probes"]
    assert "AUROC" not in words(figure)
    assert collisions(figure) == []
    one = score_distributions({"loss": np.zeros(2)}, np.array([True, False]))
    assert np.isfinite(one.axes[0].get_xlim()).all()
    rendered(one)


def test_ridges_stand_where_the_scores_do() -> None:
    scores, marked = some_scores()
    figure = score_distributions({"loss": scores["loss"]}, marked)
    axes = figure.axes[0]
    peaks = {}
    for line in axes.lines:
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        if len(x) > 2:
            peaks[to_hex(str(line.get_color()))] = x[y.argmax()]
    z = np.arcsinh(standardised(scores["loss"]))
    assert peaks[OKABE_ITO[5].lower()] == pytest.approx(z[~marked].mean(), abs=0.4)
    assert peaks[OKABE_ITO[3].lower()] == pytest.approx(z[marked].mean(), abs=0.4)
    ticks = dict(zip([text.get_text() for text in axes.get_xticklabels()], axes.get_xticks(), strict=True))
    assert ticks["0"] == 0
    assert ticks["1"] == pytest.approx(np.arcsinh(1))


def test_scores_are_standardised_by_their_quartiles() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=100_000)
    np.testing.assert_allclose(standardised(values), (values - 3) / 2, atol=0.05)
    np.testing.assert_array_equal(standardised(np.ones(5)), np.zeros(5))
    assert standardised(np.array([0, 0, 0, 0, 1.0])).max() == pytest.approx(1 / np.std([0, 0, 0, 0, 1]))


@pytest.mark.parametrize(
    ("scores", "marked", "message"),
    [
        ({}, None, "scores must name at least one score"),
        ({"a": np.ones(3), "b": np.ones(4)}, None, r"scores\['b'\] must be finite \[3\], got \(4,\)"),
        ({"a": np.array([1.0, np.nan])}, None, r"scores\['a'\] must be finite"),
        ({"a": np.ones(3)}, np.ones(2, dtype=bool), r"marked must be \[3\], got \(2,\)"),
    ],
)
def test_bad_scores_are_refused(scores: Any, marked: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_distributions(scores, marked)


# --- map


def test_marked_probes_stand_out_on_the_map() -> None:
    rng = np.random.default_rng(0)
    xy, groups, marked = rng.normal(size=(200, 2)), np.arange(200) % 4, np.arange(200) < 20
    figure = marked_map(xy, groups, marked, "class as given")
    plain, above = [part for part in figure.axes[0].collections if isinstance(part, PathCollection)]
    assert (len(np.asarray(plain.get_offsets())), len(np.asarray(above.get_offsets()))) == (180, 20)
    np.testing.assert_array_equal(np.sort(np.asarray(above.get_offsets()), axis=0), np.sort(xy[:20], axis=0))
    assert np.min(above.get_linewidth()) > 0 == np.max(plain.get_linewidth())
    assert legend(figure) == ["mislabelled (20)", "class as given:", "0", "1", "2", "3"]
    assert collisions(figure) == []
    assert outside(figure) == []


@pytest.mark.parametrize(("count", "groups"), [(20_000, 1000), (300, 30), (40, 5), (300, 0)])
def test_maps_of_many_and_few_and_of_long_names_are_legible(count: int, groups: int) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, max(groups, 1), count)
    names = rng.normal(size=count) if groups == 0 else numbers if groups > 5 else np.array(LONG)[numbers]
    names = (
        np.array([f"class {n}" for n in numbers]) if groups == 30 else names.astype(str) if groups == 1000 else names
    )
    marked = None if groups == 5 else rng.random(count) < 0.01
    figure = marked_map(rng.normal(size=(count, 2)), names, marked, "class as given")
    assert collisions(figure) == []
    assert outside(figure) == []
    left, right = figure.axes[0].get_position().intervalx
    assert right - left > 0.45
    if groups == 1000:
        assert "1,000 values of class as given" in legend(figure)
    if marked is None:
        assert not any("mislabelled" in entry for entry in legend(figure))


def test_bad_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"xy must be \[N, 2\], not empty, got \(3, 3\)"):
        marked_map(np.ones((3, 3)), np.ones(3), None, "class")
    with pytest.raises(ValueError, match="xy must be"):
        marked_map(np.array([[0.0, np.inf]]), np.ones(1), None, "class")
    with pytest.raises(ValueError, match=r"marked must be \[3\], got \(2,\)"):
        marked_map(np.ones((3, 2)), np.ones(3), np.ones(2, dtype=bool), "class")


# --- sheet


@pytest.mark.parametrize(
    ("count", "changes"), [(1, {}), (9, {"truth": None}), (24, {"images": None, "truth": None}), (40, {})]
)
def test_the_sheet_is_legible(count: int, changes: dict[str, Any]) -> None:
    figure = suspects_sheet(**some_suspects(count, **changes))
    assert len(figure.axes) == count
    assert collisions(figure) == []
    assert outside(figure) == []
    assert smallest(figure) >= 6
    assert figure.get_size_inches()[0] == DOUBLE


def test_a_cell_says_what_is_known() -> None:
    grey = np.zeros((3, 8, 8, 1), dtype=np.uint8)
    given, likely = ["4", "4", "4"], ["9", "4", "4"]
    scores, names = np.array([2.5, -1.0, 0.5]), list("abc")
    figure = suspects_sheet(given, likely, scores, grey, names, ["9", "9", "4"], ["9", "9", "4"], "loss_gain")
    said = [text.get_text() for text in texts(figure)]
    assert said[:12] == [
        "4",
        "→ 9",
        "✓ 9",
        "1.  2.5",
        "4",
        "→ same, else 9",
        "✗ 9",
        "2.  −1",
        "4",
        "→ same",
        "✓ 4",
        "3.  0.5",
    ]
    assert [text.get_fontweight() for text in texts(figure)[:12] if "→" in text.get_text()] == [
        "bold",
        "normal",
        "normal",
    ]
    frames = [to_hex(part.spines["left"].get_edgecolor()) for part in figure.axes]
    assert frames == [OKABE_ITO[3].lower(), OKABE_ITO[3].lower(), OKABE_ITO[5].lower()]
    assert "loss gain" in words(figure)
    assert legend(figure) == ["label wrong", "label right"]
    blind = suspects_sheet(given, likely, scores, grey, names, ["9", "9", "4"])
    assert "✓" not in words(blind)
    assert legend(blind) == []


def test_pictures_keep_their_shape_and_their_grey() -> None:
    wide = some_suspects(2)
    image = suspects_sheet(**wide).axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), wide["images"][0])
    grey = np.full((2, 8, 8, 1), 100, dtype=np.uint8)
    image = suspects_sheet(**some_suspects(2, images=grey)).axes[0].images[0]
    assert np.asarray(image.get_array()).shape == (8, 8)
    assert image.get_clim() == (0, 255)


@pytest.mark.parametrize("name", ["likely", "scores", "images", "captions", "rivals", "truth"])
def test_lengths_that_differ_are_refused(name: str) -> None:
    parts = some_suspects(4)
    with pytest.raises(ValueError, match=rf"{name} must have one entry per suspect \(4\), got 3"):
        suspects_sheet(**parts | {name: parts[name][:3]})
    with pytest.raises(ValueError, match="given must name at least one suspect"):
        suspects_sheet([], [], np.array([]), None, [], [])


def test_nothing_is_left_to_the_global_state_of_pyplot() -> None:
    suspects_sheet(**some_suspects(2))
    assert plt.get_fignums() == []
