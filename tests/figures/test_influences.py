import numpy as np
import pandas as pd
import pytest
from drawn import collisions, legend, outside, rendered, smallest, words

from losskernel.figures import datamodelling_scores, influential_sheet, predicted_outcomes

METHODS = [
    *("covariance", "correlation", "trak", "influence", "influence_cosine", "gradients", "gradients_cosine"),
    *("penultimate", "penultimate_cosine", "same_class", "random", "a_baseline_of_your_own_with_a_long_name"),
]


def _table(methods: list[str], outputs: tuple[str, ...] = ("loss", "margin")) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for output in outputs:
        for method in methods:
            value = rng.uniform(-0.1, 0.8)
            bounds = {"lds_low": value - 0.05, "lds_high": value + 0.05, "chance_low": -0.05, "chance_high": 0.05}
            rows.append({"method": method, "output": output, "lds": value, **bounds})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("methods", [METHODS, ["covariance"], ["random", "trak"]])
def test_scores_are_sorted_and_readable(methods: list[str]) -> None:
    table = _table(methods)
    figure = datamodelling_scores(table, (0.9, 0.87, 0.93))
    assert collisions(figure) == []
    assert outside(figure) == []
    assert smallest(figure) >= 6
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    first = table[table["output"] == "loss"].set_index("method")["lds"]
    best = str(first.idxmax())
    printed = {"covariance": "loss kernel, K", "correlation": "loss kernel, R", "trak": "TRAK"}
    assert names[0].startswith(printed.get(best, best.split("_")[0])[:8])
    assert legend(figure)[:2] == ["of minus the loss", "of the margin"]
    assert "noise ceiling" in legend(figure)


def test_scores_of_one_output_need_no_ceiling() -> None:
    figure = datamodelling_scores(_table(["covariance", "trak"], ("loss",)))
    rendered(figure)
    assert "of the margin" not in legend(figure)
    assert "noise ceiling" not in legend(figure)


def test_a_table_without_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table must have rows and the columns .*; it lacks \['lds_low'\]"):
        datamodelling_scores(_table(["trak"]).drop(columns="lds_low"))
    with pytest.raises(ValueError, match="it lacks rows"):
        datamodelling_scores(_table(["trak"]).iloc[:0])


@pytest.mark.parametrize("queries", [1, 2, 3])
def test_predictions_stand_against_outcomes(queries: int) -> None:
    rng = np.random.default_rng(1)
    both = [rng.normal(size=(2, 50)) for _ in range(queries)]
    titles = ["query with a long name of its own (#1234567)\nrank correlation 0.51"] * queries
    figure = predicted_outcomes([pair[0] for pair in both], [pair[1] for pair in both], titles, "minus the loss")
    assert collisions(figure) == []
    assert outside(figure) == []
    assert len(figure.axes) == queries
    assert "rank correlation 0.51" in words(figure)


def test_predictions_must_fit_their_outcomes() -> None:
    one = [np.zeros(3)]
    rendered(predicted_outcomes(one, one, ["constant"], "loss"))
    with pytest.raises(ValueError, match="give one to 3 queries, each with predicted, actual and a title, got 4"):
        predicted_outcomes(one * 4, one * 4, ["a"] * 4, "loss")
    with pytest.raises(ValueError, match=r"one number per subset, got \(3,\) and \(4,\)"):
        predicted_outcomes(one, [np.zeros(4)], ["a"], "loss")


def _sheet(rows: int, k: int, images: np.ndarray | None, captions: list[str]) -> tuple:
    rng = np.random.default_rng(2)
    probes = rng.permutation(len(captions))[: rows * (2 * k + 1)].reshape(rows, -1)
    influence = np.sort(rng.normal(size=(rows, 2 * k)), axis=1)[:, ::-1]
    error = np.full((rows, 2 * k), 0.1)
    return probes[:, 0], probes[:, 1 : 1 + k], probes[:, 1 + k :], influence, error, images, captions


@pytest.mark.parametrize(("rows", "k"), [(1, 1), (6, 4), (3, 5)])
@pytest.mark.parametrize("kind", ["grey", "colour", "text"])
def test_the_sheet_keeps_helpful_and_harmful_apart(rows: int, k: int, kind: str) -> None:
    captions = [f"{'Leonberger dog' if kind == 'text' else probe % 10} (#{1000 + probe})" for probe in range(60)]
    rng = np.random.default_rng(3)
    images = {"grey": rng.random((60, 8, 8)), "colour": rng.integers(256, size=(60, 16, 16, 3)), "text": None}[kind]
    figure = influential_sheet(*_sheet(rows, k, images, captions))
    assert collisions(figure) == []
    assert outside(figure) == []
    assert len(figure.axes) == rows * (2 * k + 1)
    said = words(figure)
    assert "query" in said
    if k > 1:
        assert "helpful: more of them lowers the query's loss" in said
    edges = [axes.spines["left"].get_edgecolor() for axes in figure.axes[1 : 2 * k + 1]]
    assert len(set(edges[:k])) == len(set(edges[k:])) == 1
    assert edges[0] != edges[k]


def test_cells_may_be_empty() -> None:
    queries, helpful, harmful, influence, error, images, captions = _sheet(2, 3, None, [str(n) for n in range(60)])
    helpful, influence, error = helpful.copy(), influence.copy(), error.copy()
    helpful[0] = -1
    influence[0, :3] = error[0, :3] = np.nan
    figure = influential_sheet(queries, helpful, harmful, influence, error, images, captions)
    assert len(figure.axes) == 2 * 7 - 3
    assert "nan" not in words(figure)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, np.zeros((1, 2), int), r"queries must be \[Q\], not empty, got \(1, 2\)"),
        (1, np.zeros((2, 6), int), r"helpful must be \[2, k <= 5\], got \(2, 6\)"),
        (2, np.zeros((2, 2), int), r"harmful must be \(2, 3\) as helpful is, got \(2, 2\)"),
        (3, np.zeros((2, 3)), r"influence and error must be \(2, 6\), got \(2, 3\)"),
        (1, np.full((2, 3), 60), r"indices must be probes below 60, or -1 for none, got .*60"),
        (5, np.zeros((2, 8, 8)), r"images must be \[60, H, W\] or .*got \(2, 8, 8\)"),
    ],
)
def test_a_sheet_of_the_wrong_shape_is_refused(index: int, value: np.ndarray, message: str) -> None:
    arguments = list(_sheet(2, 3, None, [str(number) for number in range(60)]))
    arguments[index] = value
    with pytest.raises(ValueError, match=message):
        influential_sheet(*arguments)
