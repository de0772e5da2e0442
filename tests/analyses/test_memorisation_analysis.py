"""The analysis memorisation: planted truth is found and reported, suspects are listed, and the real command does it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import losskernel_command
from test_memorisation import CLASSES, mislabelled_factors

from losskernel import LossKernel, LossTraces
from losskernel.analyses import Memorisation, Result
from losskernel.analyses.memorisation.memorisation import Witnesses, suspects_page
from losskernel.cli.build import summary
from losskernel.errors import InputError
from losskernel.runs.preflight import label_faults
from losskernel.runs.report import presentations
from losskernel.runs.run import Outcome


@pytest.fixture(autouse=True)
def _flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Map by chance: UMAP takes long to compile, and is tested with the maps."""

    def layout(kernel: LossKernel, *_: Any) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(kernel.probes, 2))

    monkeypatch.setattr("losskernel.analyses.memorisation.memorisation.umap_layout", layout)


def with_labels(traces: LossTraces, **labels: Any) -> LossTraces:
    every = {**traces.labels, **labels}
    made = LossTraces.from_arrays(traces.losses.values, labels=every, ids=traces.losses["probe"].values.tolist())
    kept = {name: traces.dataset[name] for name in traces.dataset.data_vars if name != "losses"}
    return LossTraces(made.dataset.assign(kept))


def without(traces: LossTraces, *names: str) -> LossTraces:
    return LossTraces(traces.dataset.drop_vars(names))


def ask(traces: LossTraces, **settings: Any) -> Result:
    given: dict[str, Any] = {"replicates": 50, "neighbours": 5} | settings
    analysis = Memorisation(**given)
    return analysis(LossKernel.from_traces(traces), traces)


# --- what it finds


def test_planted_mislabelled_probes_are_found() -> None:
    traces, marked = mislabelled_factors()
    traces = traces.with_baselines(
        {
            "margin": np.arange(80.0)[:, None],
            "logits": np.ones((80, 3)),  # no score: more than one column
        }
    )
    result = ask(traces)
    metrics = result.metrics
    for name in ("self_coupling", "opposition"):
        assert metrics[f"auroc_{name}"] == metrics[f"ap_{name}"] == metrics[f"recall_{name}"] == 1
        assert metrics[f"auroc_minus_loss_{name}"] == pytest.approx(1 - metrics["auroc_loss"])
    assert metrics["auroc_loss"] < 0.8  # the losses at the weights are planted to say nothing
    assert metrics["auroc_minus_loss_self_coupling_low"] > 0.1
    assert metrics["clustering"] > metrics["clustering_chance"] == pytest.approx(11 / 79)
    assert metrics["clustering_p"] == pytest.approx(1 / 51)
    assert metrics["likely_accuracy_mislabelled"] == metrics["likely_accuracy_clean"] == 1
    assert metrics["rival_accuracy_mislabelled"] == 1
    assert (metrics["probes"], metrics["disputed"]) == (80, 12)
    assert all(np.isfinite(value) for value in metrics.values())
    for name in ("auroc_mean_loss", "ap_margin", "recall_loss", "auroc_minus_rival_isolation", "clustering"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
        assert metrics[f"{name}_se"] >= 0
    table = result.tables["memorisation_detection"].set_index("score")
    assert table.index.tolist()[-2:] == ["loss", "margin"]
    assert set(table["kind"]) == {"kernel", "baseline"}
    assert set(result.tables["memorisation_suspects"]["id"][:12]) == set(np.flatnonzero(marked))
    assert set(result.figures) == {"score_distributions", "memorisation_map", "suspects_sheet"}
    assert set(result.pages) == {"suspects"}


def test_without_truth_suspects_are_ranked_all_the_same() -> None:
    traces, marked = mislabelled_factors()
    blind = without(traces, "mislabelled", "true_class")
    result = ask(blind, rank_by="opposition", shown=3)
    assert result.metrics == {"probes": 80, "disputed": 12}
    assert list(result.tables) == ["memorisation_suspects"]
    table = result.tables["memorisation_suspects"]
    assert set(table["id"][:12]) == set(np.flatnonzero(marked))
    assert table["score"].tolist() == table["opposition"].tolist()
    assert list(table)[:8] == ["rank", "id", "given", "likely", "score", "disputed", "rival", "support"]
    assert len(result.figures["suspects_sheet"].axes) == 3
    # A truth that says nothing, for no probe is mislabelled, is none; but that all labels are right is known.
    clean = with_labels(traces, mislabelled=np.zeros(80, dtype=bool), true_class=traces.labels["class"])
    answer = ask(clean)
    assert set(answer.metrics) == {
        "probes",
        "disputed",
        *(f"likely_accuracy{end}" for end in ("", "_se", "_low", "_high")),
    }
    assert answer.metrics["likely_accuracy"] == pytest.approx(68 / 80)


def test_another_label_may_hold_the_truth() -> None:
    traces, marked = mislabelled_factors()
    result = ask(with_labels(traces, mislabelled=np.arange(80) % 2, flipped=marked.astype(int)), truth="flipped")
    assert result.metrics["auroc_self_coupling"] == 1
    assert "flipped" in result.tables["memorisation_suspects"]


def test_twins_and_backdoored_probes_are_reported() -> None:
    traces, marked = mislabelled_factors()
    losses = traces.losses.values.copy()
    losses[..., 70], losses[..., 60] = losses[..., 25], losses[..., 26]
    twin = np.full(80, -1)
    twin[[25, 70]], twin[[26, 60]] = 0, 1
    traces = LossTraces(traces.dataset.assign(losses=traces.losses.copy(data=losses)))
    result = ask(with_labels(traces, twin=twin, backdoored=marked))
    assert result.metrics["twin_nearest"] == 1
    assert result.metrics["twin_rank"] == 1
    assert result.metrics["twin_pairs"] == 2
    assert result.tables["memorisation_twins"]["correlations"].to_numpy() == pytest.approx(np.ones(4))
    assert result.metrics["backdoored_auroc_self_coupling"] == result.metrics["auroc_self_coupling"]
    assert result.metrics["backdoored_clustering"] == result.metrics["clustering"]
    assert "backdoored_ap_self_coupling" not in result.metrics
    assert "memorisation_backdoored_detection" in result.tables
    alone = ask(with_labels(traces, twin=np.arange(80)))
    assert "twin_nearest" not in alone.metrics


def test_the_same_seed_gives_the_same_numbers_and_a_limit_hardly_others() -> None:
    traces, _ = mislabelled_factors(wrong=5, seed=3)
    traces = without(traces, "start_losses")
    first, again, few = ask(traces), ask(traces), ask(traces, limit=40)
    assert first.metrics == again.metrics
    assert "auroc_loss" not in first.metrics
    assert "auroc_minus_loss_self_coupling" not in first.metrics
    values = {key for key in first.metrics if not key.endswith(("_se", "_low", "_high"))}
    assert {key: first.metrics[key] for key in values} == {key: few.metrics[key] for key in values}


# --- what it refuses


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": 3}, "analysis.memorisation.label must be a name, got 3"),
        ({"truth": None}, "analysis.memorisation.truth must be a name"),
        ({"shown": 0}, "analysis.memorisation.shown must be >= 1, got 0"),
        ({"shown": 81}, "analysis.memorisation.shown must be <= 80 to be drawn, got 81"),
        ({"neighbours": 2.5}, "analysis.memorisation.neighbours must be a whole number"),
        ({"replicates": 1}, "analysis.memorisation.replicates must be >= 2"),
        ({"limit": 9}, "analysis.memorisation.limit must be >= 10"),
        ({"seed": -1}, "analysis.memorisation.seed must be >= 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Memorisation(**settings)


def test_labels_that_do_not_suit_are_refused_before_compute() -> None:
    analysis = Memorisation()
    labels = {"class": CLASSES, "mislabelled": np.array([0, 1, 1, 0])}
    assert label_faults({"memorisation": analysis}, labels) == []
    assert label_faults({"memorisation": analysis}, {"class": CLASSES}) == []
    for name, values in (
        ("mislabelled", CLASSES),
        ("mislabelled", np.arange(4)),
        ("backdoored", np.array([0, 0.5, 1, 1])),
    ):
        (fault,) = label_faults({"memorisation": analysis}, {"class": CLASSES, name: values})
        assert f"the label '{name}' must be true or false of each probe, got" in fault
    (fault,) = label_faults({"memorisation": analysis}, {"task": CLASSES})
    assert fault == "analysis.memorisation.label=class: there is no such probe label; choose from task"


def test_scores_that_do_not_exist_and_few_probes_are_refused() -> None:
    traces, _ = mislabelled_factors()
    with pytest.raises(InputError, match=r"rank_by=margin: choose one of self_coupling, .*, opposition, loss$"):
        ask(traces, rank_by="margin")
    with pytest.raises(InputError, match="needs >= 10 probes, got 9"):
        ask(LossTraces(traces.dataset.isel(probe=slice(9))))


# --- the page


class Cards(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.articles: list[dict[str, str | None]] = []
        self.pictures: list[str] = []
        self.options: list[str | None] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        computed = dict(attrs)
        self.tags.append(tag)
        if tag == "article":
            self.articles.append(computed)
        if tag == "img":
            self.pictures.append(computed["src"] or "")
        if tag == "option":
            self.options.append(computed["value"])

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_every_suspect_with_its_pictures() -> None:
    traces, marked = mislabelled_factors()
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    result = ask(LossTraces(traces.dataset.assign(thumbnails=(("probe", "h", "w", "c"), images))))
    page = result.pages["suspects"]
    cards = Cards(page)
    assert len(cards.articles) == 80
    assert sum(item["data-disputed"] == "1" for item in cards.articles[:12]) == 12
    table = result.tables["memorisation_suspects"]
    assert [json.loads(item["data-classes"] or "") for item in cards.articles] == table[
        ["given", "likely"]
    ].values.tolist()
    assert cards.options == ["", *CLASSES]
    assert len(cards.pictures) == 80 * 4  # each with three witnesses
    assert all(source.startswith("data:image/png;base64,") for source in cards.pictures)
    assert "http" not in page.replace("http-equiv", "")
    assert cards.words.count("wrong") == marked.sum()
    assert cards.words.count("right") == 80 - marked.sum()


def test_names_are_words_and_no_markup() -> None:
    evil = "<script>alert('x')</script>\"&"
    table = pd.DataFrame({"rank": [1, 2], "id": [evil, "b"], "given": [evil, "10"], "likely": ["9", "10"]})
    table = table.assign(score=[1.5, -0.25], rival=["9", evil], probe=[0, 1])
    witnessed = Witnesses(np.array([[1, -1], [-1, -1]]), np.array([[-0.5, 0.0], [0.0, 0.0]]))
    page = suspects_page(table, witnessed, [evil, "b"], {}, "self_coupling")
    cards = Cards(page)
    assert cards.tags.count("script") == 1
    assert json.loads(cards.articles[0]["data-classes"] or "") == [evil, "9"]
    assert cards.articles[0]["data-name"] == evil.lower()
    assert cards.options == ["", "9", "10", evil]  # numbers in their order
    assert cards.pictures == []
    assert "−0.50" in cards.words
    assert "if wrong" in cards.words
    assert "true" not in cards.words


# --- the command


def test_the_summary_names_the_sheet(tmp_path: Path) -> None:
    traces, _ = mislabelled_factors()
    metrics = {f"memorisation/{name}": value for name, value in ask(traces).metrics.items()}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "suspects.html").touch()
    diagnosis: Any = type("Passed", (), {"verdict": "pass", "reasons": [], "remedy": ""})
    said = summary(Outcome(metrics, diagnosis, tmp_path, shown=presentations({"memorisation": Memorisation})), "class")
    assert re.search(r"^  mislabelled: AUROC, self-coupling +1 ± 0$", said, re.MULTILINE)
    assert re.search(r"^  labels disputed +12$", said, re.MULTILINE)
    assert f"  suspects.html {tmp_path}/figures/suspects.html" in said
    assert "suspects.csv" not in said


@pytest.mark.slow
def test_the_experiment_runs_through_the_real_command_line(tmp_path: Path) -> None:
    small = (
        "experiment=memorisation",
        "analysis=[memorisation]",
        "wrapper.training_probes.limit=60",
        "wrapper.symmetric_noise.rate=0.2",
        "training.steps=200",
        "training.checkpoints=4",
        "analysis.memorisation.shown=8",
        "analysis.memorisation.replicates=20",
        "schedule.chains=2",
        "schedule.burn_in=20",
        "schedule.draws=30",
        "logger=none",
        "progress=false",
    )
    # Without compilation UMAP maps a few probes in a second instead of fifteen.
    run = tmp_path / "run"
    done = losskernel_command(*small, f"paths.run={run}", cwd=tmp_path, env={"NUMBA_DISABLE_JIT": "1"})
    assert done.returncode == 0, done.stderr
    assert f"  suspects.html {run}/figures/suspects.html" in done.stdout
    assert f"  suspects.csv  {run}/tables/memorisation_suspects.csv" in done.stdout
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["memorisation/auroc_self_coupling"] > 0.8
    assert metrics["memorisation/probes"] == 60
    table = pd.read_csv(run / "tables" / "memorisation_suspects.csv", dtype={"given": str, "true_class": str})
    assert table["mislabelled"].tolist() == (table["given"] != table["true_class"]).tolist()
    assert {"margin", "el2n", "grand", "self_influence", "area_under_margin", "loss", "opposition"} <= set(table)
    page = (run / "figures" / "suspects.html").read_text(encoding="utf-8")
    assert len(Cards(page).pictures) > 60
    assert "srcdoc=" in (run / "report.html").read_text(encoding="utf-8")
