"""W&B's own variables, files and limits: where they win, and what they must not break."""

import json
from pathlib import Path
from typing import Any

import pytest
import wandb
from command import config, tiny
from wandb.sdk.lib.wbauth import write_netrc_auth
from wandb_reader import read_runs
from wandb_runs import alone, one

from losskernel.cli.build import run_from
from losskernel.errors import InputError
from losskernel.runs.tracking import WandbTracker
from losskernel.runs.tracking.wandb_connection import logged_in


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: Any) -> None:
    alone(tmp_path / "home", monkeypatch)


def test_wandb_can_be_switched_off_by_its_own_variable(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path / "run"
    run_from(tiny(folder, "logger=wandb", "analysis=[complexity]"), folder, None)
    assert read_runs(tmp_path) == []
    assert (folder / "metrics.json").is_file()
    assert not (folder / "wandb.json").exists()


def test_auto_is_online_only_where_somebody_is_logged_in(tmp_path: Path, monkeypatch: Any) -> None:
    assert not logged_in()
    assert WandbTracker(tmp_path, name="x").mode == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert WandbTracker(tmp_path, name="x").mode == "online"
    assert WandbTracker(tmp_path, name="x", mode="offline").mode == "offline"
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "home" / ".netrc").touch(mode=0o600)  # as `wandb login` does; netrc refuses what others can read
    (tmp_path / "home" / ".netrc").write_text("not a netrc")
    assert not logged_in()


@pytest.mark.parametrize("server", [None, "https://wandb.example.org:8080"])
def test_what_wandb_login_leaves_is_found(server: str | None, tmp_path: Path, monkeypatch: Any) -> None:
    wandb.teardown()  # W&B reads its variables and files once
    if server is not None:  # as `wandb login --host` does
        (tmp_path / "home" / "config").mkdir()
        (tmp_path / "home" / "config" / "settings").write_text(f"[default]\nbase_url = {server}\n")
    assert not logged_in()
    write_netrc_auth(host=wandb.Settings().base_url if server is None else server, api_key="x" * 40)
    assert logged_in()
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.example.org")
    assert not logged_in()
    wandb.teardown()


def test_the_users_own_name_and_tags_are_kept(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_NAME", "mine")
    monkeypatch.setenv("WANDB_TAGS", "paper,draft")
    assert config("logger=wandb").logger.name == "mine"
    tracker = WandbTracker(tmp_path, name="mine", tags=["one"])
    tracker.start({})
    tracker.finish("finished")
    assert list(one(tmp_path).about.tags) == ["one", "paper", "draft"]


def test_an_id_of_the_users_is_not_that_of_every_job_of_a_sweep(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "mine1234")
    wandb.teardown()
    for name, group in (("alone", None), ("first", "friday"), ("second", "friday")):
        tracker = WandbTracker(tmp_path / name, name=name, group=group)
        (tmp_path / name).mkdir()
        tracker.start({})
        tracker.finish("finished")
    wandb.teardown()
    ids = [one(tmp_path / name).about.run_id for name in ("alone", "first", "second")]
    assert ids[0] == "mine1234"
    assert len({*ids}) == 3


def test_names_are_as_short_as_wandb_takes_them_and_still_apart(tmp_path: Path) -> None:
    # Its service refuses more than 128 characters, at `wandb sync` and with all that was recorded.
    tracker = WandbTracker(tmp_path, name="n" * 300 + " · 7", group="g" * 300)
    tracker.start({})
    tracker.finish("finished")
    about = one(tmp_path).about
    assert len(about.display_name) <= 128
    assert len(about.run_group) <= 128
    assert about.display_name.endswith(" · 7")


def test_names_of_digits_are_names(tmp_path: Path) -> None:
    numbers: Any = {"name": 5, "project": 2026}  # as Hydra reads logger.name=5
    tracker = WandbTracker(tmp_path, job_type="compare", **numbers)
    tracker.start({})
    tracker.finish("finished")
    about = one(tmp_path).about
    assert (about.display_name, about.project) == ("5: comparison", "2026")


def test_a_mode_that_wandb_does_not_know_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "later")
    with pytest.raises(InputError, match=r"W&B cannot open a run: .*mode Input should be 'online', 'offline'"):
        WandbTracker(tmp_path, name="x").start({})
    monkeypatch.setenv("WANDB_MODE", "")
    assert WandbTracker(tmp_path, name="x").mode == "offline"


# --- under W&B's own agent


def test_an_agents_run_id_and_project_win(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    chosen = tmp_path / "config.yaml"
    chosen.write_text("sampler.localization:\n  value: 50.0\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "agents01")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(chosen))
    monkeypatch.setenv("WANDB_SILENT", "false")
    wandb.teardown()
    folder = tmp_path / "run"
    run_from(tiny(folder, "logger=wandb", "logger.artifact_mb=0", "analysis=[]", "logger.project=ours"), folder, None)
    wandb.teardown()
    run = one(folder)
    assert (run.about.run_id, run.about.project, run.about.sweep_id) == ("agents01", "theirs", "sweep123")
    assert run.about.run_group == ""
    assert run.config["sampler.localization"] == run.config["sampler"]["localization"] == 50.0
    assert json.loads((folder / "wandb.json").read_text())["id"] == "agents01"
    assert "Ignoring" not in capsys.readouterr().err
