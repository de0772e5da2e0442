"""Every metric of the analyses that come along says what it means, and a run's folder, page and tracker show it."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.utils import get_object
from markupsafe import escape
from omegaconf import OmegaConf
from planted_runs import plant_sweep
from planted_tree import planted, tree_file
from test_joint import planted as joint_points
from test_path_analysis import study

import losskernel.analyses as lka
import losskernel.cli
from losskernel import LossKernel, LossTraces
from losskernel.analyses.result import meaning_of
from losskernel.runs.analyse import analyse
from losskernel.runs.folder import RunFolder
from losskernel.runs.report import is_beside, meanings_of, write_report
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sweeps import compare

ANALYSES = sorted((Path(losskernel.cli.CONF) / "analysis").glob("*.yaml"))
ABOUT = {
    "identity": {
        "sampler": {"sampler": "SGLD", "step_size": 1e-3, "nbeta": 10.0, "localization": 5.0},
        "schedule": {"draws": 60, "thinning": 2, "burn_in": 50},
    },
    "parameters": {"moving": 7},
    "start_train_loss": {"value": 0.5},
    "train_size": 100,
}


@pytest.fixture(autouse=True)
def _flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Map by chance: UMAP takes long to compile, and is tested with the maps."""

    def layout(kernel: LossKernel, near: Any, least: float, dimensions: int, seed: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(kernel.probes, dimensions))

    for module in ("atlas", "embedding", "memorisation.memorisation"):
        monkeypatch.setattr(f"losskernel.analyses.{module}.umap_layout", layout)


@cache
def everything() -> LossTraces:
    """Traces with all that any analysis reads: 48 probes of a known tree, labels, records and baselines."""
    bare, rng = planted(draws=60, meta=ABOUT), np.random.default_rng(0)
    kinds = bare.labels["kind"]
    count = len(kinds)
    wrong = np.arange(count) % 5 == 0
    labels = {
        "class": kinds,
        "true_class": np.where(wrong, np.roll(kinds, 1), kinds),
        "mislabelled": wrong,
        "backdoored": np.arange(count) % 7 == 0,
        "twin": np.where(np.arange(count) < 10, np.arange(count) // 2, -1),
        "role": np.where(np.arange(count) < 8, "query", "train"),
        "level_1": np.array([kind[:1] for kind in kinds]),
        "level_2": np.array([kind[:2] for kind in kinds]),
    }
    levels = np.linspace(0.1, 1, 8)
    rows = {
        "penultimate": rng.normal(size=(count, 5)),
        "margin": rng.normal(size=(count, 1)),
        "retrained_members": (rng.random((count, 6)) < 0.5).astype(float),
        "retrained_losses": rng.normal(size=(count, 12)),
        "retrained_margins": rng.normal(size=(count, 12)),
    }
    for kind in ("noise", "adversarial"):
        rows |= {f"{kind}_levels": np.tile(levels, (count, 1)), f"{kind}_flips": rng.random((count, 8))}
    records = {name: ("chain", rng.uniform(1, 2, 4)) for name in ("curvature", "acceptance", "step_inflation")}
    records |= {
        name: (("chain", "draw"), rng.uniform(1, 2, (4, 60))) for name in ("train_loss", "distance", "gradient_norm")
    }
    records |= {
        "relaxation_rate": ("chain", rng.uniform(0.1, 0.2, 4)),
        "start_losses": ("probe", rng.uniform(0, 1, count)),
        "precision_noise": (("chain", "check", "probe"), 0.01 * rng.normal(size=(4, 3, count))),
    }
    named = {name: ("probe", values) for name, values in labels.items()}
    dataset = bare.dataset.assign_coords(named).assign(records)
    return LossTraces(dataset.assign_attrs(labels=["kind", *labels])).with_baselines(rows)


def one_chain_twice() -> LossTraces:
    """The same, but for a chain that is another's copy."""
    dataset = everything().dataset.copy(deep=True)
    dataset["losses"][1] = dataset["losses"][0].values
    return LossTraces(dataset)


def hardly_sampled() -> LossTraces:
    """The same, but for the draws: a few, so that the kernel is mostly noise."""
    return LossTraces(everything().dataset.isel(draw=slice(0, 4)))


def without_truth() -> LossTraces:
    """The same, but for the label that says which probes are mislabelled."""
    return LossTraces(everything().dataset.drop_vars("mislabelled"))


def answered(name: str, folder: Path) -> tuple[Any, dict[str, float]]:
    """A real analysis and all the metrics that it has of what is planted."""
    tree: dict[str, Any] = {"label": "kind", "taxonomy": tree_file(folder)}
    analyses: dict[str, Callable[[], Any]] = {
        "atlas": lambda: lka.Atlas(**tree, neighbours=5, animate=False),
        "attribution": lambda: lka.Attribution(replicates=3, shown=2),
        "complexity": lka.Complexity,
        "convergence": lka.Convergence,
        "discovery": lambda: lka.Discovery(**tree, permutations=3),
        "embedding": lambda: lka.Embedding(colour_by=["class"], neighbours=5),
        "hierarchy": lambda: lka.Hierarchy(**tree, permutations=3, neighbours=3),
        "joint": lambda: lka.JointSpace(permutations=3),
        "levels": lka.Levels,
        "memorisation": lambda: lka.Memorisation(replicates=3, shown=4, neighbours=3),
        "neighbours": lka.Neighbours,
        "path": lka.Paths,
        "robustness": lambda: lka.Robustness(permutations=3, k=3),
        "separation": lambda: lka.Separation(group="level_1", permutations=3),
        "spectrum": lka.Spectrum,
    }
    analysis = analyses[name]()
    if getattr(analysis, "of_points", False):
        return analysis, analysis(joint_points() if name == "joint" else study()).metrics
    others = {"convergence": one_chain_twice, "hierarchy": hardly_sampled, "memorisation": without_truth}
    numbers: dict[str, float] = {}
    for traces in [everything(), *([others[name]()] if name in others else [])]:
        numbers |= analysis(LossKernel.from_traces(traces), traces).metrics
    return analysis, numbers


@pytest.mark.parametrize("path", ANALYSES, ids=lambda path: path.stem)
def test_every_metric_has_a_meaning_and_every_meaning_a_metric(path: Path, tmp_path: Path) -> None:
    analysis, metrics = answered(path.stem, tmp_path)
    (settings,) = OmegaConf.load(path).values()
    assert isinstance(analysis, get_object(settings["_target_"]))
    plain = [name for name in metrics if not is_beside(name, metrics)]
    said = {name: meaning_of(name, analysis) for name in plain}
    assert [name for name, sentence in said.items() if not sentence] == []
    assert not any("{" in sentence or len(sentence) > 160 for sentence in said.values())
    meanings = getattr(analysis, "meanings", {})
    assert bool(meanings) == bool(metrics)
    used = {
        pattern
        for pattern, sentence in meanings.items()
        for name in plain
        if said[name] == meaning_of(name, _Says({pattern: sentence}))
    }
    assert set(meanings) - used == set()


class _Says:
    """What has meanings and nothing else."""

    def __init__(self, meanings: Mapping[str, str]) -> None:
        self.meanings = meanings


def test_a_part_stands_for_any_text_and_the_letter_comes_first() -> None:
    analysis = _Says({"{score}_p": "p of {score}", "rate_{score}": "{score}'s rate, {braces} kept", "top_p": "exact"})
    assert meaning_of("loss_gain_p", analysis) == "p of loss_gain"
    assert meaning_of("rate_layers.0 (a+b)", analysis) == "layers.0 (a+b)'s rate, {braces} kept"
    assert meaning_of("rate_x_p", analysis) == "p of rate_x"
    assert meaning_of("top_p", analysis) == "exact"
    assert meaning_of("rate_", analysis) == meaning_of("another", analysis) == meaning_of("top_p", object()) == ""


# What a run shows of them.


class Own:
    """A user's analysis, which says nothing of what its metrics mean."""

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> lka.Result:
        return lka.Result({"mine": 1.0, "mine_se": 0.1})


class Listening(Tracker):
    """Keeps the tables that it is shown."""

    def __init__(self) -> None:
        self.tables: dict[str, pd.DataFrame] = {}

    def show(self, pictures: Mapping[str, Path], tables: Mapping[str, pd.DataFrame], pages: Mapping[str, Path]) -> None:
        self.tables |= tables


def test_the_folder_the_page_and_the_tracker_show_meanings(tmp_path: Path) -> None:
    files, listening, traces = RunFolder(tmp_path), Listening(), everything()
    spectrum = lka.Spectrum()
    analyse(traces, {"modes": spectrum, "own": Own()}, files, listening, control=traces)
    said = meanings_of(tmp_path)
    rank = spectrum.meanings["effective_rank"]
    assert said["modes/effective_rank"] == rank
    assert said["control/modes/effective_rank"] == f"{rank} (of the control run at nbeta = 0)"
    assert said["diagnosis/rhat"] == lka.Convergence.meanings["rhat"]
    assert not any("own" in name or name.endswith(("_se", "_low", "_high")) for name in said)
    measured = json.loads((tmp_path / "diagnosis.json").read_text())["metrics"]
    assert {name.removeprefix("diagnosis/") for name in said if name.startswith("diagnosis/")} == set(measured)
    pd.testing.assert_frame_equal(listening.tables["meanings"], pd.read_csv(tmp_path / "tables" / "meanings.csv"))
    page = (tmp_path / "report.html").read_text()
    assert f"<abbr title='{escape(rank)}'>effective_rank</abbr>" in page
    assert "<th scope='row'>mine</th>" in page
    assert "'>rhat</abbr>" in page
    assert "<summary>What the numbers mean</summary>" in page
    assert "<h3>Meanings</h3>" not in page  # it is no table of results

    analyse(traces, {"complexity": lka.Complexity()}, files, listening)  # one more question keeps what was said
    assert meanings_of(tmp_path).items() >= said.items()
    assert meanings_of(tmp_path)["complexity/llc"] == lka.Complexity.meanings["llc"]


def test_a_run_of_users_own_analyses_alone_has_none(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"own/mine": 1.0}')
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "meanings.csv").write_text("word,other\nkernel,core\n")  # a table of their own
    page = write_report(tmp_path).read_text()
    assert meanings_of(tmp_path) == {}
    assert "<abbr" not in page
    assert "What the numbers mean" not in page


def test_a_comparison_says_what_its_columns_mean(tmp_path: Path) -> None:
    sweep = plant_sweep(tmp_path / "sweep", [1.0, 2.0], [0.0, 0.1])
    (sweep / "1" / "tables").mkdir()
    (sweep / "1" / "tables" / "meanings.csv").write_text("metric,meaning\nseparation/within,mean |R| <of pairs>\n")
    compare(sorted(sweep.iterdir()), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "title='separation/within: mean |R| &lt;of pairs&gt;'" in page
    assert "title='separation/across'" in page
