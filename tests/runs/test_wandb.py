"""What a run leaves with W&B, read back from the offline file: no network, no login."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from command import TINY, call, config, tiny
from wandb_reader import Run, read_runs
from wandb_runs import alone, draws, one

import losskernel as lk
from losskernel.cli.build import run_from
from losskernel.cli.launchers import sweep_jobs as naming
from losskernel.errors import InputError, TraceError
from losskernel.runs.tracking import WandbTracker
from losskernel.runs.tracking.tracker import CLOCK
from losskernel.runs.tracking.wandb_tracker import recorded as as_recorded
from losskernel.runs.tracking.wandb_tracker import verdict_panel
from losskernel.sweeps.read_runs import JOBS

ANALYSES = "analysis=[convergence,separation,embedding]"


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: Any) -> None:
    alone(tmp_path / "home", monkeypatch)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run with every kind of thing to record."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    with pytest.MonkeyPatch.context() as patch:
        alone(folder.parent / "home", patch)
        run_from(tiny(folder, "logger=wandb", ANALYSES, "logger.tags=[one,two]", "name=study"), folder, None)
    return folder, one(folder)


def test_the_run_holds_the_configuration_and_what_it_is(recorded: tuple[Path, Run]) -> None:
    run = recorded[1]
    assert run.config["sampler"]["localization"] == 50.0
    assert run.config["schedule"]["draws"] == 20
    assert run.config["model"]["tasks"] == 2
    # What people sweep, by one word, so that a parallel-coordinates panel finds it.
    short = {"localization": 50.0, "nbeta": 100.0, "step_size": 1e-3, "seed": 0, "chains": 2, "burn_in": 10}
    short |= {"draws": 20, "thinning": 1, "batch_size": 64, "model_name": "MultitaskMLP", "wrapper_name": "none"}
    short |= {"dataset_name": "arithmetic", "sampler_name": "SGHMC"}
    assert {name: run.config[name] for name in short} == short
    about = run.about
    assert (about.project, about.display_name, about.job_type, about.run_group) == ("losskernel", "study", "run", "")
    assert list(about.tags) == ["one", "two", "MultitaskMLP", "arithmetic", "SGHMC", "fail"]
    assert run.exit_code == 0


def test_the_summary_holds_every_number_and_the_verdict(recorded: tuple[Path, Run]) -> None:
    folder, run = recorded
    for name, value in json.loads((folder / "metrics.json").read_text()).items():
        assert run.summary[name] == pytest.approx(value), name
    assert "separation/ari" in run.summary
    assert run.summary["verdict"] == "fail"
    assert "effective draws" in run.summary["reasons"]
    assert {"separation/within_se", "separation/within_low", "separation/within_high"} <= set(run.summary)
    assert not any("50" in name for name in run.summary)  # settings are no part of a metric's name
    diagnosis = json.loads((folder / "diagnosis.json").read_text())["metrics"]
    for name in ("rhat", "ess", "ess_kernel", "stiffness"):
        assert run.summary[f"diagnosis/{name}"] == pytest.approx(diagnosis[name])
    assert run.summary["seconds"] > run.summary["sampling_seconds"] > 0
    assert run.summary["draws_per_second"] == pytest.approx(40 / run.summary["sampling_seconds"])
    assert not any(name.startswith("chain_") for name in run.summary)  # a column for every chain helps nobody


def test_the_history_follows_the_draws_and_the_clock(recorded: tuple[Path, Run]) -> None:
    folder, run = recorded
    assert run.curve("draw") == list(range(-9, 21))  # burn-in first
    assert [row["_step"] for row in run.history if "draw" in row] == list(range(1, 31))
    assert run.curve(CLOCK) == sorted(run.curve(CLOCK))
    losses = lk.open_traces(folder).losses.mean("probe")
    for chain in (0, 1):
        np.testing.assert_allclose(run.curve(f"probe_loss/chain_{chain}"), losses[chain], rtol=1e-5)
        assert len(run.curve(f"distance/chain_{chain}")) == 30
    assert {run.axes[each].step_metric for each in ("probe_loss/*", "train_loss/*", "distance/*", CLOCK)} == {"draw"}
    assert "trainer/global_step" not in run.history[0]


def test_figures_tables_and_the_interactive_map_are_logged(recorded: tuple[Path, Run]) -> None:
    folder, run = recorded
    assert run.logged("image-file") == {f"figures/{path.stem}" for path in (folder / "figures").glob("*.png")}
    assert "figures/kernel_matrix" in run.logged("image-file")
    assert {"tables/separation_groups", "tables/embedding_map"} <= run.logged("table-file")
    assert run.logged("html-file") == {"interactive/map", "trust/verdict"}
    assert "trust/screens" in run.logged("table-file")
    media = {path.suffix for path in folder.glob("wandb/**/files/media/**/*") if path.is_file()}
    assert {".png", ".html", ".json"} <= media


def test_traces_and_kernel_are_artifacts(recorded: tuple[Path, Run]) -> None:
    folder, run = recorded
    files = [path for path in (folder / "traces.zarr").rglob("*") if path.is_file()]
    assert {f"traces.zarr/{path.relative_to(folder / 'traces.zarr')}" for path in files} == set(run.artifacts["traces"])
    assert run.artifacts["kernel"] == {"kernel.npz": (folder / "kernel.npz").stat().st_size}


@pytest.mark.parametrize("largest", [0, 0.02])
def test_what_is_larger_than_the_limit_is_not_uploaded(largest: float, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_from(tiny(folder, "logger=wandb", "analysis=[complexity]", f"logger.artifact_mb={largest}"), folder, None)
    size = {"kernel": (folder / "kernel.npz").stat().st_size}
    size["traces"] = sum(path.stat().st_size for path in (folder / "traces.zarr").rglob("*") if path.is_file())
    kept = {name for name, total in size.items() if total <= largest * 2**20}
    assert {"traces", "kernel"} & set(one(folder).artifacts) == kept


def test_a_sweep_is_one_group_of_separate_runs(tmp_path: Path, capsys: Any) -> None:
    sweep = ["-m", "sampler.localization=10,100", "logger=wandb", "logger.artifact_mb=0", "analysis=[complexity]"]
    assert call(*sweep, *TINY, f"paths.outputs={tmp_path / 'outputs'}") == 0
    (folder,) = (tmp_path / "outputs" / "multitask").iterdir()
    runs = [one(folder / str(job)) for job in (0, 1)]
    assert [run.config["sampler"]["localization"] for run in runs] == [10, 100]
    assert {run.about.run_group for run in runs} == {folder.name}
    assert len({run.about.run_id for run in runs}) == 2
    assert [run.exit_code for run in runs] == [0, 0]
    assert [run.about.display_name for run in runs] == ["multitask γ=10 · 0", "multitask γ=100 · 1"]
    assert all({"sweep", "MultitaskMLP"} <= set(run.about.tags) for run in runs)
    assert all([row["draw"] for row in draws(run)] == list(range(1, 21)) for run in runs)
    assert runs[0].summary["complexity/llc"] != runs[1].summary["complexity/llc"]
    assert wandb.run is None
    said = capsys.readouterr()
    assert "anonymous" not in said.err + said.out
    (both,) = [run for run in read_runs(folder / "wandb") if run.about.job_type == "compare"]
    assert both.about.run_group == folder.name
    assert {"tables/runs"} <= both.logged("table-file")
    assert "figures/comparison" in both.logged("image-file")


def test_a_failing_run_is_closed_as_failed_and_the_next_is_its_own(tmp_path: Path, monkeypatch: Any) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with monkeypatch.context() as patch:
        patch.setattr("losskernel.runs.run.sample", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_from(tiny(first, "logger=wandb", "analysis=[complexity]"), first, None)
    assert wandb.run is None
    stopped = tiny(second, "logger=wandb", "analysis=[complexity]", "logger.artifact_mb=0", "on_fail=stop")
    with pytest.raises(TraceError, match="fails its diagnosis"):
        run_from(stopped, second, None)
    assert wandb.run is None
    failed, stop = one(first), one(second)
    assert (failed.exit_code, stop.exit_code) == (1, 1)
    assert "verdict" not in failed.summary
    assert stop.summary["verdict"] == "fail"
    assert failed.about.run_id != stop.about.run_id


def test_a_fault_known_before_compute_opens_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"sampler\.step_size"):
        run_from(tiny(folder, "logger=wandb", "sampler.step_size=-1"), folder, None)
    assert read_runs(tmp_path) == []


def test_a_run_that_wandb_cannot_open_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.errors.CommError("no network")

    tracker = WandbTracker(tmp_path, name="x", mode="online")
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"W&B cannot open a run: no network; use logger\.mode=offline"):
        tracker.start({})
    tracker.finish("failed")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mode": "later"}, r"logger\.mode must be one of \('auto', 'online', 'offline'\), got 'later'"),
        ({"artifact_mb": -1}, r"logger\.artifact_mb must be >= 0, got -1"),
        ({"tags": "one"}, r"logger\.tags must be a list, got 'one'; write logger\.tags=\[one\]"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        WandbTracker(tmp_path, name="x", **setting)


def test_long_lists_are_told_by_their_length() -> None:
    found = as_recorded({"a": {"b": list(range(51)), "c": (1, 2)}, "sampler": {"nbeta": "batch", "step_size": 0.1}})
    assert found == {"a": {"b": "51 values", "c": [1, 2]}, "sampler": {"nbeta": "batch", "step_size": 0.1}} | {
        "step_size": 0.1
    }


def test_a_run_that_diverges_has_failed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    asked = [*TINY, "logger=wandb", "analysis=[]", "sampler=sgld", "sampler.step_size=1.0", "sampler.localization=1"]
    assert call(*asked, f"paths.run={folder}") == 1
    run = one(folder)
    assert (run.exit_code, run.preempted) == (1, False)
    # What was set by hand stands in its name, up to four of it.
    assert run.about.display_name == "multitask steps=50 chains=2 burn_in=10 draws=20 ..."


# --- names


def test_a_name_that_was_given_is_used_as_it_is(tmp_path: Path) -> None:
    asked = config("logger=wandb", "logger.name=mine", "logger.tags=[one]")
    assert naming.described(asked, tmp_path, None) == {"tags": ["one", "MultitaskMLP", "arithmetic", "SGHMC"]}


def test_a_sweep_around_a_run_is_a_kind_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "dynamics" / "step_8").mkdir(parents=True)
    (tmp_path / "dynamics" / JOBS).write_text("{}")
    found = naming.described(config("logger=wandb"), tmp_path / "dynamics" / "step_8", "toy_dynamics")
    assert (found["job_type"], found["group"], found["name"]) == ("dynamics", "toy_dynamics", "multitask")
    assert found["tags"][-1] == "sweep"


@pytest.mark.parametrize(
    ("value", "short"),
    [
        ("12.345678", "12.35"),
        ("1e-05", "1e-05"),
        ("outputs/toy/checkpoints/step_8.pt", "step_8"),
        ('["trunk.0/*"]', '["trunk.0/*"]'),
        ("adam", "adam"),
        ("x" * 40, "x" * 21 + "..."),
    ],
)
def test_values_are_told_in_few_characters(value: str, short: str) -> None:
    assert naming._short(value) == short


# --- the panel


def test_the_verdict_panel_says_why(recorded: tuple[Path, Run]) -> None:
    folder = recorded[0]
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    page = verdict_panel(diagnosis)
    assert "✕ FAILED" in page
    for reason in diagnosis["reasons"]:
        assert reason.replace("<", "&lt;") in page
    assert page.count("<tr>") == 1 + len(diagnosis["screens"])
    assert page.rindex("✕ fail") < page.index("✓ pass")  # the worst first
    assert verdict_panel({"verdict": "pass", "control": {"verdict": "warn"}}).count("control at nbeta = 0: warn") == 1
    assert "Not diagnosed" in verdict_panel({})
    (logged,) = folder.glob("wandb/offline-run-*/files/media/html/trust/verdict_*.html")
    assert logged.read_text() == page
