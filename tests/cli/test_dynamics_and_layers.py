"""losskernel-dynamics and losskernel-layers: real sweeps around a finished run, by the command line."""

import json
import re
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import yaml
from command import TINY, call, config, run_python
from omegaconf import OmegaConf
from planted_runs import losses, plant
from test_compare_command import nobody_logged_in
from wandb_reader import read_runs

import losskernel as lk
import losskernel.cli
from losskernel.cli.commands.dynamics_and_layers import one_value, quoted, recompose, resolved
from losskernel.errors import InputError

AWKWARD = "a run, of b=c {d}"
SMALL = (*TINY, "training.steps=20", "training.checkpoints=2", "logger=none", "analysis=[complexity]")
TRUNK, HEAD = 160, 33  # weights of the two parts of the toy's network


def trained(folder: Path, *overrides: str) -> Path:
    """A run whose folder has a name that needs quoting."""
    assert call(*SMALL, f"paths.run='{folder}'", *overrides) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / AWKWARD, "seed=3")


class Shown:
    """Stands for what a page is made of."""

    def overview(self) -> str:
        return "shown"


def stored(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "config.yaml").read_text())


def times(folder: Path) -> dict[str, int]:
    """When each file of the jobs was last written."""
    files = [path for path in folder.glob("step-*/**/*") if path.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_dynamics_samples_at_every_checkpoint_and_leaves_finished_ones_alone(
    run: Path, monkeypatch: Any, capsys: Any
) -> None:
    words = (f"run={run}", "schedule.draws=25", "sampler.localization=70", "analysis=[complexity]")
    sweep = run / "dynamics"

    # Stopped within the second job, as by Ctrl-C: nothing is lost, nothing further is begun.
    class Stop:
        def __enter__(self) -> Any:
            return lambda: 2 * (sweep / "step-0000001" / "traces.zarr" / "zarr.json").exists()

        def __exit__(self, *_: Any) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr("losskernel.sampling.sample.stop_on_signal", Stop)
        assert call(*words, command="dynamics") == 130
    assert sorted(path.parent.name for path in sweep.glob("*/config.yaml")) == ["step-0000000", "step-0000001"]
    with pytest.raises(lk.errors.TraceError, match="is unfinished"):
        lk.open_traces(sweep / "step-0000001")
    assert not (sweep / "report.html").exists()

    before = times(sweep)
    assert call(*words, command="dynamics") == 0
    said = capsys.readouterr().out
    assert "1 finished, 2 to do" in said
    assert said.rstrip().endswith(f"report.html   {sweep / 'report.html'}")
    page = str(sweep / "step-0000000" / "report.html")
    assert times(sweep)[page] == before[page]
    whole = lk.open_traces(sweep / "step-0000001")
    assert whole.losses.shape == (2, 25, 40)

    # Each job is the run but for its weights and what was asked.
    own = stored(run)
    for step in (0, 1, 20):
        made = stored(sweep / f"step-{step:07d}")
        assert made["checkpoint"] == str(run / "checkpoints" / f"step-{step:07d}.pt")
        assert (made["schedule"]["draws"], made["sampler"]["localization"], made["seed"]) == (25, 70, 3)
        assert made["model"] == own["model"]
        assert made["dataset"] == own["dataset"]
        assert made["schedule"] == own["schedule"] | {"draws": 25}
        assert list(made["analysis"]) == ["complexity"]
        assert made["control"] is False
    assert pd.read_csv(sweep / "tables" / "path.csv")["step"].tolist() == [0, 1, 20]

    # Once more: no job runs, only the page is made.
    before, shown = times(sweep), without_page(monkeypatch)
    assert call(*words, command="dynamics") == 0
    assert "3 finished, 0 to do" in capsys.readouterr().out
    assert times(sweep) == before
    assert shown == [sweep]

    # Other questions are asked of the same traces; other settings want another folder.
    assert call(*words[:-1], "analysis=[]", "checkpoints=last", command="dynamics") == 0
    traces = {path: time for path, time in before.items() if "traces.zarr" in path}
    assert traces.items() <= times(sweep).items()
    assert not stored(sweep / "step-0000020").get("analysis")
    capsys.readouterr()
    assert call(f"run={run}", command="dynamics") == 1
    said = capsys.readouterr().err
    assert "sampled with other settings" in said
    assert "schedule.draws: stored 25, asked 20" in said
    assert "choose another folder by paths.sweep=..." in said


def test_layers_moves_one_block_at_a_time(run: Path, monkeypatch: Any, capsys: Any) -> None:
    assert call(f"run={run}", command="layers") == 0
    sweep = run / "layers"
    said = capsys.readouterr().out
    assert "whole, trunk, head" in said
    moving = {}
    for name in ("whole", "trunk", "head"):
        traces = lk.open_traces(sweep / name)
        moving[name] = traces.meta["parameters"]["moving"]
        assert traces.meta["parameters"]["all"] == TRUNK + HEAD
    assert moving == {"whole": TRUNK + HEAD, "trunk": TRUNK, "head": HEAD}
    # The whole is the run itself, to the last bit.
    assert lk.open_traces(sweep / "whole").losses.equals(lk.open_traces(run).losses)
    assert stored(sweep / "trunk")["sampler"]["parameters"] == ["trunk.*"]
    table = pd.read_csv(sweep / "tables" / "blocks.csv")
    assert table["block"].tolist() == ["whole", "trunk", "head"]
    assert table["weights"].tolist() == [TRUNK + HEAD, TRUNK, HEAD]
    assert list(json.loads((sweep / "jobs.json").read_text())) == ["whole", "trunk", "head"]
    # A block of one's own joins the others.
    without_page(monkeypatch)
    assert call(f"run={run}", "blocks=[[trunk.*,head.bias]]", command="layers") == 0
    assert "1 finished, 1 to do" in capsys.readouterr().out
    assert list(json.loads((sweep / "jobs.json").read_text())) == ["whole", "trunk", "head", "trunk+head.bias"]
    assert lk.open_traces(sweep / "trunk+head.bias").meta["parameters"]["moving"] == TRUNK + 1


def planted_run(folder: Path, *overrides: str, request: list[str] | None = None) -> Path:
    """A finished run in name only: its configuration, what was asked for, and files where checkpoints would be."""
    plant(folder, cast(dict[str, Any], OmegaConf.to_container(config(*overrides), resolve=True)))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides) if request is None else request))
    (folder / "checkpoints").mkdir()
    for name in ("step-0000000.pt", "step-0000005.pt", "step-0000010.pt", "trained.pt"):
        (folder / "checkpoints" / name).touch()
    return folder


def without_page(monkeypatch: Any) -> list[Path]:
    """Leave out the page, where it is not the point; return the folders of which one was wanted."""
    wanted: list[Path] = []
    for target in (
        "losskernel.sweeps.over_training.over_training.over_training",
        "losskernel.sweeps.over_blocks.over_blocks",
    ):
        monkeypatch.setattr(target, lambda folder, **_: wanted.append(folder) or Shown())
    return wanted


def fake_jobs(monkeypatch: Any, broken: tuple[str, ...] = ()) -> list[tuple[str, Any, dict[str, Any]]]:
    """Replace the run of a job by a planted one; return, as they come, (folder's name, group, configuration)."""
    done: list[tuple[str, Any, dict[str, Any]]] = []

    def job(config: Any, folder: Path, sweep: Any, **_: Any) -> None:
        if folder.name in broken:
            raise InputError("this job is broken")
        made = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        done.append((folder.name, sweep, made))
        plant(folder, made, losses(0.1 * len(done), len(done)))

    monkeypatch.setattr("losskernel.cli.build.run_from", job)
    return done


def test_the_others_are_shown_where_a_job_fails_and_it_is_tried_again(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    run = planted_run(tmp_path / "run", "logger=none", "experiment=digits")
    fake_jobs(monkeypatch, broken=("step-0000005",))
    assert call(f"run={run}", command="dynamics") == 1
    said = capsys.readouterr()
    assert "1 of the sweep's jobs did not finish" in said.err
    assert "this job is broken" in said.err
    assert "run step-0000005 has no result: this job is broken" in said.out
    assert pd.read_csv(run / "dynamics" / "tables" / "path.csv")["step"].tolist() == [0, 10]
    again, _ = fake_jobs(monkeypatch), without_page(monkeypatch)
    assert call(f"run={run}", command="dynamics") == 0
    assert [name for name, _, _ in again] == ["step-0000005"]
    assert again[0][2]["model"]["_target_"] == "losskernel.models.MLP"  # the recipe of the run


def test_where_nothing_can_be_shown_the_jobs_own_failure_is_told(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run = planted_run(tmp_path / "run", "logger=none")
    fake_jobs(monkeypatch, broken=("step-0000005", "step-0000010"))
    assert call(f"run={run}", command="dynamics") == 1
    said = capsys.readouterr().err
    assert "there is nothing to show yet: 1 finished run: a comparison needs 2" in said
    assert "2 of the sweep's jobs did not finish" in said
    # One checkpoint alone is too little, and no failure of a job.
    fake_jobs(monkeypatch)
    assert call(f"run={run}", "paths.sweep=" + str(tmp_path / "one"), "checkpoints=5", command="dynamics") == 1
    assert "1 finished run: a comparison needs 2" in capsys.readouterr().err


def test_the_records_share_a_group_that_names_the_run(tmp_path: Path, monkeypatch: Any) -> None:
    nobody_logged_in(tmp_path / "home", monkeypatch)
    run = planted_run(tmp_path / "2026-01-01", "name=mine")
    jobs = fake_jobs(monkeypatch)
    assert call(f"run={run}", "checkpoints=[0,10]", command="dynamics") == 0
    assert {group for _, group, _ in jobs} == {"2026-01-01_dynamics"}
    (record,) = read_runs(run / "dynamics")
    assert (record.about.job_type, record.about.run_group) == ("compare", "2026-01-01_dynamics")
    assert record.logged("image-file") >= {"figures/along_training", "figures/comparison"}
    assert record.logged("table-file") >= {"tables/path", "tables/maps"}
    assert any("moving_map" in name for name in record.logged("video-file"))
    assert record.summary["path/chord"] > 0


FAULTS = {
    "no run": ("dynamics", [], r"run is missing; set run=\.\.\., the folder of a finished run"),
    "no folder": ("layers", ["run=nowhere"], "run=nowhere is not a folder; give the folder of a finished run"),
    "no command": (
        "dynamics",
        ["run={bare}"],
        "has no .hydra/overrides.yaml.*give the folder of a run of the losskernel",
    ),
    "flag": ("dynamics", ["run={run}", "--cfg", "job"], "losskernel-dynamics takes key=value and --help, got --cfg"),
    "sweep": ("dynamics", ["run={run}", "seed=1,2"], "seed=1,2: give one value; what is swept"),
    "checkpoint": ("dynamics", ["run={run}", "checkpoint=x"], r"checkpoint is not to be set: .*checkpoints=\.\.\."),
    "weights": ("layers", ["run={run}", "sampler.parameters=[a]"], r"sampler\.parameters is not.*by blocks=\.\.\."),
    "recipe": ("dynamics", ["run={run}", "experiment=digits"], "experiment is not to be set"),
    "folder": ("dynamics", ["run={run}", "paths.run=x"], r"paths\.run is not to be set: .*; paths\.sweep=\.\.\. names"),
    "alike": ("layers", ["run={run}", "alike=high"], "alike must be a number, got 'high'"),
    "step": ("dynamics", ["run={run}", "checkpoints=[7]"], r"none of step 7; choose all, last, or from \[0, 5, 10\]"),
    "block": ("layers", ["run={run}", "blocks=[[nope.*]]"], r"'nope\.\*' matches no weight; the names are trunk"),
    "unknown key": ("dynamics", ["run={run}", "schedule.drawz=1"], "Could not override 'schedule.drawz'"),
    "own weights": ("dynamics", ["run={given}"], "kept no checkpoints along its training"),
    "points alone": ("dynamics", ["run={points}"], r"samples nothing \(schedule=none\).*add schedule=default"),
    "untrained": ("layers", ["run={bare2}"], "has no trained weights; continue it with paths.run="),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line_before_any_job(fault: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    command, words, message = FAULTS[fault]
    jobs = fake_jobs(monkeypatch)
    places = {"run": planted_run(tmp_path / "run", "logger=none"), "bare": tmp_path / "bare"}
    (tmp_path / "bare").mkdir()
    for name, given in (("given", "model.pt"), ("bare2", "null")):
        places[name] = planted_run(tmp_path / name, "logger=none", f"checkpoint={given}")
        for path in (tmp_path / name / "checkpoints").iterdir():
            path.unlink()
    places["points"] = planted_run(tmp_path / "points", "logger=none", "schedule=none")
    assert call(*(word.format(**places) for word in words), command=command) == 1
    said = capsys.readouterr()
    assert re.search(message, said.err.replace("\nlosskernel: ", " ")), said.err
    assert "Traceback" not in said.err
    assert jobs == []


def test_a_run_with_weights_of_its_own_is_sampled_around_them(tmp_path: Path, monkeypatch: Any) -> None:
    run = planted_run(tmp_path / "run", "logger=none", "checkpoint=weights/model.pt")
    (run / "checkpoints" / "trained.pt").unlink()
    made = {"hydra": {"runtime": {"cwd": "/where/it was", "config_sources": []}}}
    (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(made))
    jobs, _ = fake_jobs(monkeypatch), without_page(monkeypatch)
    assert call(f"run='{run}'", command="layers") == 0
    assert {item["checkpoint"] for _, _, item in jobs} == {"/where/it was/weights/model.pt"}


def test_a_restricted_run_is_the_whole_of_its_blocks(tmp_path: Path, monkeypatch: Any) -> None:
    run = planted_run(tmp_path / "run", "logger=none", "sampler.parameters=[trunk.*]")
    jobs, _ = fake_jobs(monkeypatch), without_page(monkeypatch)
    assert call(f"run={run}", command="layers") == 0
    assert [name for name, _, _ in jobs] == ["trunk", "trunk.weight", "trunk.bias"]


def test_what_a_run_had_comes_back_though_its_recipe_has_changed(tmp_path: Path) -> None:
    own = ["experiment=digits", "schedule.draws=77", "analysis=[separation]", "analysis.separation.neighbours=4"]
    run = planted_run(tmp_path / "run", *own)
    then = stored(run)
    then["sampler"] |= {"step_size": 9e-9, "_target_": "losskernel.SGLD"}
    then["sampler"].pop("momentum")
    then["dataset"]["root"] = "it's a \\ place, with=signs"
    then["training"]["optimizer"]["betas"] = [0.5, {"deep": [None, True]}]
    then.pop("wrapper")  # a key that did not exist then
    (run / "config.yaml").write_text(yaml.safe_dump(then))
    words, again = recompose(run, ["control=false"], [])
    now = resolved(again)
    for key in then.keys() - {"paths", "checkpoint", "control", "logger"}:
        assert now[key] == then[key], key
    assert now["wrapper"] == {}
    assert now["control"] is False
    assert "schedule.draws=77" in words


def test_what_is_given_wins_over_all_that_the_run_had(tmp_path: Path) -> None:
    own = ["experiment=digits", "sampler=sgld", "sampler.localization=7", "analysis=[separation]"]
    run = planted_run(tmp_path / "run", *own, "analysis.separation.neighbours=4", "control=true")
    then = stored(run)
    then["sampler"]["step_size"] = then["schedule"]["thinning"] = 17
    (run / "config.yaml").write_text(yaml.safe_dump(then))
    given = ["sampler=sghmc", "analysis=[complexity]", "schedule.draws=5", "logger=csv"]
    _, again = recompose(run, ["control=false"], given)
    recipe = config("experiment=digits", "sampler=sghmc")
    assert again.sampler == recipe.sampler  # the group anew, with the recipe's own values
    assert list(again.analysis) == ["complexity"]
    assert (again.schedule.draws, again.schedule.thinning, again.control) == (5, 17, False)
    assert again.logger._target_ == "losskernel.runs.tracking.CSVTracker"
    _, kept = recompose(run, ["control=false"], ["control=true"])
    assert (kept.control, kept.sampler.localization, kept.sampler.step_size) == (True, 7, 17)


def test_baselines_that_look_back_at_training_are_left_out(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run = planted_run(tmp_path / "run", "logger=none", "experiment=digits", "baselines=suspicion")
    jobs, _ = fake_jobs(monkeypatch), without_page(monkeypatch)
    assert call(f"run={run}", "checkpoints=0", command="dynamics") == 0
    assert "without the baselines that look back at training: el2n, grand" in capsys.readouterr().out
    assert {"margin", "uncertainty"} <= set(jobs[0][2]["baselines"])
    assert not {"el2n", "grand"} & set(jobs[0][2]["baselines"])
    assert (
        call(f"run={run}", "checkpoints=5", "baselines=[suspicion]", "paths.sweep=" + str(tmp_path), command="dynamics")
        == 0
    )
    assert "el2n" in jobs[1][2]["baselines"]


def test_a_registry_of_ones_own_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "my conf" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\nname: mine\nsampler:\n  localization: 77.0\n"
    (tmp_path / "my conf" / "experiment" / "mine.yaml").write_text(recipe)
    run = planted_run(tmp_path / "run", "experiment=multitask", request=["experiment=mine"])
    sources = [
        {"path": losskernel.cli.CONF, "schema": "file", "provider": "main"},
        {"path": str(tmp_path / "my conf"), "schema": "file", "provider": "command-line"},
        {"path": str(tmp_path / "gone"), "schema": "file", "provider": "own"},
    ]
    made = {"hydra": {"runtime": {"cwd": "/", "config_sources": sources}}}
    (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(made))
    then = stored(run) | {"name": "mine"}
    (run / "config.yaml").write_text(yaml.safe_dump(then))
    words, again = recompose(run, [], [])
    assert words[0] == f"hydra.searchpath=['file://{tmp_path}/my conf']"
    assert again.name == "mine"
    assert again.sampler.localization == 50  # as stored, not as the recipe says now


@pytest.mark.parametrize("value", [None, True, 3, 1e-7, "a", "it's \\", "a,b=c: [d]", [1, ["x y"]], {"a": "b,c"}, []])
def test_values_survive_the_grammar_of_overrides(value: Any) -> None:
    assert one_value(f"key={quoted(value)}") == value


@pytest.mark.parametrize(("command", "key"), [("dynamics", "checkpoints: all"), ("layers", "blocks: auto")])
def test_help_loads_nothing_heavy_and_names_the_keys(command: str, key: str, tmp_path: Path) -> None:
    heavy = {"torch", "pytorch_lightning", "matplotlib", "sklearn", "umap", "nltk", "wandb", "xarray"}
    seen = f"import atexit, sys; atexit.register(lambda: print({heavy} & set(sys.modules)))"
    request = f"import losskernel.cli; sys.argv = ['losskernel-{command}', '--help']; losskernel.cli.{command}()"
    done = run_python("-c", f"{seen}; {request}", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert f"losskernel-{command} is powered by Hydra" in done.stdout
    assert key in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_jobs_of_a_sweep_elsewhere_keep_its_own_name() -> None:
    from losskernel.cli import group_of

    assert group_of(Path("outputs/multitask/2026-01-01")) == "2026-01-01"
    assert group_of(Path("sweep")) == "sweep"
