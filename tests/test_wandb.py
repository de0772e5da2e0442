"""What a run leaves with W&B, read back from the offline file: no network, no login."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from command import TINY, call, tiny
from wandb_reader import Run, read_runs

import losskernel as lk
from losskernel.cli.build import run_from
from losskernel.errors import InputError, TraceError
from losskernel.wandb_tracker import WandbTracker, logged_in

ANALYSES = "analysis=[convergence,separation,embedding]"


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: Any) -> None:
    alone(tmp_path / "home", monkeypatch)


def alone(home: Path, monkeypatch: Any) -> None:
    """A home in which nobody has logged in, and W&B's own folders inside it."""
    home.mkdir()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DISABLED", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))


def one(folder: Path) -> Run:
    (run,) = read_runs(folder)
    return run


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
    about = run.about
    assert (about.project, about.display_name, about.job_type, about.run_group) == ("losskernel", "study", "run", "")
    assert list(about.tags) == ["one", "two"]
    assert run.exit_code == 0


def test_the_summary_holds_every_number_and_the_verdict(recorded: tuple[Path, Run]) -> None:
    folder, run = recorded
    for name, value in json.loads((folder / "metrics.json").read_text()).items():
        assert run.summary[name] == pytest.approx(value), name
    assert "separation/ari" in run.summary
    assert run.summary["verdict"] == "fail"
    assert "effective draws" in run.summary["reasons"]
    assert not any("50" in name for name in run.summary)  # settings are no part of a metric's name


def test_the_history_follows_the_draws(recorded: tuple[Path, Run]) -> None:
    folder, run = recorded
    assert run.curve("draw") == list(range(1, 21))
    losses = lk.open_traces(folder).losses.mean("probe")
    for chain in (0, 1):
        np.testing.assert_allclose(run.curve(f"chain_{chain}/probe_loss"), losses[chain], rtol=1e-5)
        assert len(run.curve(f"chain_{chain}/distance")) == 20


def test_figures_tables_and_the_interactive_map_are_logged(recorded: tuple[Path, Run]) -> None:
    folder, run = recorded
    assert run.logged("image-file") == {f"figures/{path.stem}" for path in (folder / "figures").glob("*.png")}
    assert "figures/kernel_matrix" in run.logged("image-file")
    assert {"tables/separation_groups", "tables/embedding_map"} <= run.logged("table-file")
    assert run.logged("html-file") == {"interactive/map"}
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


def test_a_sweep_is_one_group_of_separate_runs(tmp_path: Path) -> None:
    sweep = ["-m", "sampler.localization=10,100", "logger=wandb", "logger.artifact_mb=0", "analysis=[complexity]"]
    assert call(*sweep, *TINY, f"paths.outputs={tmp_path / 'outputs'}") == 0
    (folder,) = (tmp_path / "outputs" / "multitask").iterdir()
    runs = [one(folder / str(job)) for job in (0, 1)]
    assert [run.config["sampler"]["localization"] for run in runs] == [10, 100]
    assert {run.about.run_group for run in runs} == {folder.name}
    assert len({run.about.run_id for run in runs}) == 2
    assert [run.exit_code for run in runs] == [0, 0]
    assert all(run.curve("draw") == list(range(1, 21)) for run in runs)
    assert runs[0].summary["complexity/llc"] != runs[1].summary["complexity/llc"]
    assert wandb.run is None


def test_a_failing_run_is_closed_as_failed_and_the_next_is_its_own(tmp_path: Path, monkeypatch: Any) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with monkeypatch.context() as patch:
        patch.setattr("losskernel.run.sample", lambda *_, **__: 1 / 0)
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


def test_wandb_can_be_switched_off_by_its_own_variable(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path / "run"
    run_from(tiny(folder, "logger=wandb", "analysis=[complexity]"), folder, None)
    assert read_runs(tmp_path) == []
    assert (folder / "metrics.json").is_file()


def test_a_run_that_wandb_cannot_open_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.errors.CommError("no network")

    tracker = WandbTracker(tmp_path, name="x", mode="online")
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"W&B cannot open a run: no network; use logger\.mode=offline"):
        tracker.start({})
    tracker.finish("failed")


def test_auto_is_online_only_where_somebody_is_logged_in(tmp_path: Path, monkeypatch: Any) -> None:
    assert not logged_in()
    assert WandbTracker(tmp_path, name="x").mode == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert WandbTracker(tmp_path, name="x").mode == "online"
    assert WandbTracker(tmp_path, name="x", mode="offline").mode == "offline"
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "home" / ".netrc").touch(mode=0o600)  # as `wandb login` does; netrc refuses what others can read
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password " + "x" * 40)
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not logged_in()
    (tmp_path / "home" / ".netrc").write_text("not a netrc")
    assert not logged_in()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mode": "later"}, r"logger\.mode must be one of \('auto', 'online', 'offline'\), got 'later'"),
        ({"artifact_mb": -1}, r"logger\.artifact_mb must be >= 0, got -1"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        WandbTracker(tmp_path, name="x", **setting)
