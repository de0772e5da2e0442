"""Comparisons from the command line, at the end of a sweep, and in Weights & Biases."""

import json
import re
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import wandb
import yaml
from command import TINY, call
from omegaconf import OmegaConf
from planted_runs import losses, plant, plant_sweep
from wandb_reader import read_runs

import losskernel as lk


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return plant_sweep(tmp_path / "planted" / "2026-01-01_00-00-00", [1, 10, 100], [0, 0.1, 0.2])


def test_the_command_writes_into_the_sweeps_own_folder_or_a_new_one(sweep: Path, tmp_path: Path, capsys: Any) -> None:
    assert call(f"runs={sweep}", "logger=none", "metrics=[separation/ari]", command="compare") == 0
    assert capsys.readouterr().out.startswith("comparison: 3 of 3 kernels pass the diagnosis\n")
    assert (sweep / "report.html").is_file()
    given = f"runs=[{sweep}/0,'{sweep}/[12]']"
    assert call(given, "logger=none", f"paths.outputs={tmp_path}/new", command="compare") == 0
    (made,) = (tmp_path / "new" / "compare").iterdir()
    assert len(pd.read_csv(made / "tables" / "runs.csv")) == 3
    assert (made / "figures" / "comparison.pdf").is_file()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runs=nowhere"], "runs=nowhere is not a folder; give run folders"),
        ([], r"Missing mandatory value: runs; set runs=\.\.\."),
        (["runs={sweep}", "metrics=[ari]"], "metrics: no run has 'ari'; choose from .*separation/ari"),
        (["runs={sweep}", "alike=high"], "alike must be a number, got 'high'"),
        (["runs={sweep}", "logger=wandb", "logger.mode=x"], r"logger\.mode must be one of"),
        (["runs={sweep}", "logger=wandb", "+logger.foo=1"], "logger: .*foo.*; check the values of logger"),
        (["runs={sweep}/0"], "1 finished run: a comparison needs 2"),
        (["runs={sweep}", "colour=red"], "Could not override 'colour'"),
    ],
)
def test_faults_of_the_command_are_one_line(overrides: list[str], message: str, sweep: Path, capsys: Any) -> None:
    given = [item.format(sweep=sweep) for item in overrides]
    extra = [] if any("logger=" in item for item in given) else ["logger=none"]
    assert call(*given, *extra, command="compare") == 1
    said = capsys.readouterr().err
    assert re.search(message, said.replace("\nlosskernel: ", " ")), said
    assert "Traceback" not in said


def test_a_sweep_ends_with_its_page_though_a_job_failed(tmp_path: Path, capsys: Any) -> None:
    overrides = ["sampler.localization=1e9,10,100", "logger=none", "analysis=[complexity]", "control=false"]
    assert call("-m", *overrides, *TINY, f"paths.outputs={tmp_path}") == 1  # the failure stays a failure
    said = capsys.readouterr()
    (folder,) = (tmp_path / "multitask").iterdir()
    assert "1 of the sweep's jobs " in said.err
    assert "comparison: " in said.out
    assert "run 0 has no result: sampler.step_size * sampler.localization must be < 4" in said.out
    assert said.out.rstrip().endswith(f"report.html   {folder / 'report.html'}")
    table = pd.read_csv(folder / "tables" / "runs.csv")
    assert list(table["sampler.localization"]) == [1e9, 10, 100]
    assert table["no_result"].notna().tolist() == [True, False, False]
    assert "no result" in (folder / "report.html").read_text()


def fake_jobs(monkeypatch: Any, angles: dict[float, float]) -> None:
    """Replace the run of a job by a planted one; without an angle it breaks."""

    def job(config: Any, folder: Path, **_: Any) -> None:
        value = float(config.sampler.localization)
        if value not in angles:
            raise ZeroDivisionError("a bug")
        resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        plant(folder, resolved, losses(angles[value], int(value)))

    monkeypatch.setattr("losskernel.cli.build.run_from", job)


def test_a_comparison_that_breaks_is_one_line_and_changes_no_exit_code(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    fake_jobs(monkeypatch, {1.0: 0.0, 2.0: 0.1})
    monkeypatch.setattr("losskernel.sweeps.compare", lambda *_, **__: 1 / 0)
    assert call("-m", "sampler.localization=1,2", "logger=none", f"paths.outputs={tmp_path}") == 0
    assert "the sweep's runs are not compared: division by zero" in capsys.readouterr().err


def test_one_job_is_no_comparison_and_none_is_no_word(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    fake_jobs(monkeypatch, {1.0: 0.0})
    assert call("-m", "sampler.localization=1", "logger=none", f"paths.outputs={tmp_path}") == 0
    assert "not compared: 1 finished run: a comparison needs 2" in capsys.readouterr().err
    assert call("-m", "sampler.foo=1,2", "logger=none", f"paths.outputs={tmp_path}/none") == 1
    assert "not compared" not in capsys.readouterr().err
    assert call("sampler.localization=1", "logger=none", f"paths.run={tmp_path}/single") == 0  # no sweep
    assert "compar" not in capsys.readouterr().err


def test_a_bug_in_one_job_keeps_its_traceback_and_the_page(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    fake_jobs(monkeypatch, {1.0: 0.0, 2.0: 0.1})
    with pytest.raises(ZeroDivisionError, match="a bug"):
        call("-m", "sampler.localization=1,2,3", "logger=none", f"paths.outputs={tmp_path}")
    assert "run 2 has no result: ZeroDivisionError: a bug" in capsys.readouterr().out


def test_the_comparison_can_be_left_out(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    fake_jobs(monkeypatch, {1.0: 0.0, 2.0: 0.1})
    arguments = ["-m", "sampler.localization=1,2", "logger=none", f"paths.outputs={tmp_path}"]
    assert call(*arguments, "~hydra.callbacks.compare") == 0
    assert "comparison:" not in capsys.readouterr().out


def nobody_logged_in(home: Path, monkeypatch: Any) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DISABLED", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home / name))


def test_a_sweep_ends_with_one_wandb_run_of_type_compare_in_its_group(tmp_path: Path, monkeypatch: Any) -> None:
    nobody_logged_in(tmp_path / "home", monkeypatch)
    fake_jobs(monkeypatch, {1.0: 0.0, 10.0: 0.1})  # which log nothing themselves
    given = ["sampler.localization=1,10,100", "logger.tags=[one]", f"paths.outputs={tmp_path}"]
    with pytest.raises(ZeroDivisionError):
        call("-m", *given)
    (folder,) = (tmp_path / "multitask").iterdir()
    (run,) = read_runs(folder)
    assert (run.about.job_type, run.about.run_group) == ("compare", folder.name)
    assert (run.about.display_name, list(run.about.tags)) == ("multitask: comparison", ["one"])
    assert run.config["swept"] == {"sampler.localization": [1.0, 10.0, 100]}
    assert run.logged("image-file") == {"figures/comparison", "figures/kernel_similarity"}
    assert run.logged("table-file") == {"tables/runs", "tables/distances", "tables/steps"}
    (table,) = folder.glob("wandb/**/media/table/tables/runs*.json")
    content = json.loads(table.read_text())
    assert len(content["data"]) == 3
    assert {"run", "sampler.localization", "verdict", "separation/within", "no_result"} <= set(content["columns"])
    assert (run.summary["runs_pass"], run.summary["runs_none"]) == (2, 1)
    assert run.summary["path/length"] > 0
    assert run.exit_code == 0


def test_the_page_is_written_where_wandb_cannot_be_reached(sweep: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.errors.CommError("no network")

    nobody_logged_in(tmp_path / "home", monkeypatch)
    monkeypatch.setattr(wandb, "init", refuse)
    assert call(f"runs={sweep}", "logger.mode=online", "metrics=[separation/ari]", command="compare") == 1
    assert (sweep / "report.html").is_file()


def test_the_callback_and_the_command_have_the_same_defaults() -> None:
    folder = Path(lk.__file__).parents[1] / "conf"
    command = yaml.safe_load((folder / "compare.yaml").read_text())
    callback = yaml.safe_load((folder / "config.yaml").read_text())["hydra"]["callbacks"]["compare"]
    assert {key: command[key] for key in ("metrics", "alike")} == {key: callback[key] for key in ("metrics", "alike")}
