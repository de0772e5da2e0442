"""Chains of several jobs become one run: a folder as one job would have left it, whole, and only once."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr
import yaml
from command import TINY, call, stamps
from omegaconf import OmegaConf
from planted_runs import TASK, configuration, losses, plant
from test_compare_command import nobody_logged_in
from wandb_reader import read_runs

import losskernel as lk
from losskernel.cli.commands.compare_runs import join_kernels
from losskernel.errors import TraceError
from losskernel.representations.baselines.collect import read_representations
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sweeps.comparison_page import caption_of_metrics
from losskernel.sweeps.design import lay_out
from losskernel.sweeps.joined_runs import JoinedRuns, folder_names, group_by_kernel
from losskernel.sweeps.read_runs import Run, find_runs, read_run


def part(folder: Path, first: int, controlled: bool = False, **changes: Any) -> Path:
    """A finished run of two chains of the planted kernel."""
    extra: dict[str, Any] = {"schedule": {"chains": 2}, "analysis": {}, "chain_offset": first}
    weights, sampler = changes.pop("weights", "w"), changes.pop("sampler", {})
    config = configuration(**sampler) | extra | changes
    plant(folder, config, spectrum__effective_rank=2.0 + first)
    for name in ("traces", "control")[: 1 + controlled]:
        meta = {"config": config, "identity": {"seed": config["seed"], "model": {"weights": weights}}}
        traces = lk.LossTraces.from_arrays(losses(0, first, chains=2), {"task": TASK}, meta=meta)
        lk.LossTraces(traces.dataset.assign_coords(chain=[first, first + 1])).save(folder / f"{name}.zarr")
    return folder


def unfinished(folder: Path, first: int, **changes: Any) -> Path:
    """A run that was stopped before its first draw."""
    shutil.rmtree(part(folder, first, **changes) / "traces.zarr")
    (folder / "metrics.json").unlink()
    return folder


def ask(sweep: Path, analyses: dict[str, Any]) -> None:
    """Have the runs of a sweep been asked something."""
    for path in sweep.glob("*/config.yaml"):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"analysis": analyses}))


def join(folder: Path, *more: str) -> int:
    return call("--join", f"runs={folder}", "logger=none", *more, command="compare")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for job, first in enumerate((0, 2, 4)):
        part(tmp_path / "sweep" / str(job), first, controlled=True)
    return tmp_path / "sweep"


# --- a sweep, for real


def test_a_sweep_over_chains_ends_with_whole_kernels(tmp_path: Path, capsys: Any) -> None:
    usual = [*TINY, "analysis=[complexity]", "logger=none"]
    swept = ["chain_offset=range(0,4,2)", "sampler.localization=50,500"]
    assert call("-m", *usual, *swept, f"paths.sweep={tmp_path}/sweep") == 0
    said = capsys.readouterr()
    home = tmp_path / "sweep" / "joined"
    for value in (50, 500):
        assert f"joined: chains 0 to 3, sampled by 2 runs, in {home}/localization_{value}\n" in said.out
    assert "comparison: 0 of 2 kernels pass the diagnosis, 2 FAIL" in said.out
    assert not said.err

    joined, one = home / "localization_50", tmp_path / "one"
    assert call(*usual, "schedule.chains=4", "control=true", f"paths.run={one}") == 0
    for name in ("traces.zarr", "control.zarr"):
        xr.testing.assert_equal(lk.open_traces(joined / name).dataset, lk.open_traces(one / name).dataset)
    for name in ("metrics.json", "diagnosis.json", "analyses.json"):
        assert (joined / name).read_text() == (one / name).read_text(), name
    stored, alone = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (joined, one))
    assert stored | {"paths": None} == alone | {"paths": None}
    left, lacking = ({path.name for path in folder.iterdir()} for folder in (one, joined))
    assert not left - lacking - {".lock", "losskernel.log"}
    assert json.loads((joined / "status.json").read_text())["state"] == "finished"

    before = stamps(joined)
    assert join(tmp_path / "sweep") == 0
    assert "joined before, nothing new: chains 0 to 3, sampled by 2 runs, in" in capsys.readouterr().out
    assert stamps(joined) == before
    assert call(f"run={joined}", "analysis=[spectrum]", command="analyse") == 0
    assert call(*usual, "schedule.chains=4", "control=true", f"paths.run={joined}") == 0  # it is that job's run
    assert "has finished before; nothing was done" in capsys.readouterr().out


def planted_jobs(monkeypatch: Any, lost: Sequence[int]) -> None:
    """Replace the run of a job by a planted one; those with some first chains break."""

    def job(config: Any, folder: Path, **_: Any) -> None:
        if config.chain_offset in lost:
            raise TraceError("a node was lost")
        resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        if not (folder / "traces.zarr").exists():
            part(folder, config.chain_offset, **resolved | {"analysis": {}, "name": "planted"})

    monkeypatch.setattr("losskernel.cli.build.run_from", job)


def test_a_sweep_that_lost_a_job_is_joined_when_that_is_repeated(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    command = ["-m", "schedule.chains=2", "chain_offset=range(0,6,2)", "logger=none", f"paths.sweep={tmp_path}/sweep"]
    planted_jobs(monkeypatch, [4])
    assert call(*command) == 1  # of the job
    said = capsys.readouterr()
    assert f"losskernel: planted is not joined: {tmp_path}/sweep/2: a node was lost; continue what is" in said.err
    assert "  2    4            none" in said.out  # the parts are shown as they are
    assert not list((tmp_path / "sweep" / "joined").glob("[!.]*"))
    planted_jobs(monkeypatch, [])
    assert call(*command) == 0
    assert "joined: chains 0 to 5, sampled by 3 runs, in" in capsys.readouterr().out


def test_a_joined_kernel_has_one_wandb_run_of_its_own(tmp_path: Path, monkeypatch: Any) -> None:
    nobody_logged_in(tmp_path / "home", monkeypatch)
    planted_jobs(monkeypatch, [])
    assert (
        call("-m", "schedule.chains=2", "chain_offset=0,2", "logger.tags=[one]", f"paths.sweep={tmp_path}/sweep") == 0
    )
    folder = tmp_path / "sweep" / "joined" / "planted"
    (first,) = read_runs(folder)
    assert (first.about.job_type, first.about.run_group) == ("join", "sweep")
    assert (first.about.display_name, list(first.about.tags)[:1]) == ("planted: joined", ["one"])
    assert first.config["schedule"]["chains"] == 4
    assert first.summary["verdict"]
    assert (
        call("-m", "schedule.chains=2", "chain_offset=0,2,4", "logger.tags=[one]", f"paths.sweep={tmp_path}/sweep") == 0
    )
    assert {run.about.run_id for run in read_runs(folder)} == {first.about.run_id}


# --- by command


def test_one_kernel_is_shown_by_itself(sweep: Path, capsys: Any) -> None:
    ask(sweep, {"spectrum": {"_target_": "losskernel.analyses.Spectrum"}})
    assert join(sweep) == 0
    said = capsys.readouterr().out
    folder = sweep / "joined" / "planted"
    assert said.startswith(f"joined: chains 0 to 5, sampled by 3 runs, in {folder}\ndiagnosis: ")
    assert "effective rank of R" in said
    assert not (sweep / "report.html").exists()
    assert {path.name for path in (sweep / "joined").iterdir()} - {".lock"} == {"planted"}
    page = (folder / "report.html").read_text()
    assert "joined/planted</p>" in page
    assert "chains 2 to 3" in page  # where they come from
    assert lk.open_traces(folder / "control.zarr").losses.shape[0] == 6


def test_what_came_later_is_joined_anew_and_a_gap_is_told(sweep: Path, capsys: Any) -> None:
    later = sweep.parent / "later"
    (sweep / "1").rename(later)
    assert join(sweep) == 0
    assert "sampled by 2 runs, in " in (said := capsys.readouterr().out)
    assert "; chains 2 to 3 between them are missing\n" in said
    folder = sweep / "joined" / "planted"
    (folder / "wandb-join.json").write_text('{"id": "x"}')
    (folder / "wandb").mkdir()
    (folder / "note.txt").write_text("of before")
    later.rename(sweep / "1")
    assert join(sweep) == 0
    assert f"joined: chains 0 to 5, sampled by 3 runs, in {folder}\n" in capsys.readouterr().out
    assert lk.open_traces(folder).losses["chain"].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert not (folder / "note.txt").exists()
    assert json.loads((folder / "wandb-join.json").read_text()) == {"id": "x"}  # one W&B run goes on
    assert (folder / "wandb").is_dir()


def test_chains_that_lie_nowhere_else_are_not_lost(sweep: Path, capsys: Any) -> None:
    assert join(sweep) == 0
    before = stamps(sweep / "joined" / "planted")
    shutil.rmtree(sweep / "0" / "traces.zarr")  # its metrics are still there
    assert join(sweep) == 1
    assert f"planted is not joined: {sweep}/0: its trace is gone; continue what" in capsys.readouterr().err
    (sweep / "0" / "traces.zarr").write_text("no trace")
    assert join(sweep) == 1
    assert "its trace cannot be read: " in capsys.readouterr().err
    shutil.rmtree(sweep / "0")
    assert join(sweep) == 1
    assert "joined/planted holds chains 0 to 1, which none of these runs has; give those" in capsys.readouterr().err
    assert stamps(sweep / "joined" / "planted") == before


@pytest.mark.parametrize("when", ["analysing", "sampled"])
def test_what_is_broken_off_leaves_what_was_there(sweep: Path, monkeypatch: Any, when: str) -> None:
    assert join(sweep) == 0
    part(sweep / "3", 6, controlled=True)
    before = stamps(sweep / "joined" / "planted")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("losskernel.sweeps.joined_runs.analyse" if when == "analysing" else "shutil.copytree", stop)
    (sweep / "0" / "checkpoints").mkdir()
    assert join(sweep) == 130
    assert stamps(sweep / "joined" / "planted") == before
    assert {path.name for path in (sweep / "joined").iterdir()} - {".lock"} == {"planted"}


@pytest.mark.parametrize("killed", [True, False])
def test_between_two_renames_nothing_is_lost(sweep: Path, monkeypatch: Any, killed: bool, capsys: Any) -> None:
    assert join(sweep) == 0
    folder = sweep / "joined" / "planted"
    before, rename = stamps(folder), os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target) == folder and ".before" not in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target)

    part(sweep / "3", 6, controlled=True)
    monkeypatch.setattr("losskernel.sweeps.joined_runs.os.replace", full)
    with monkeypatch.context() as kill:
        if killed:
            kill.setattr("losskernel.sweeps.joined_runs._clean_up", lambda _: None)
        assert join(sweep) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert folder.exists() is not killed
    shutil.rmtree(sweep / "0")  # whose chains are nowhere else now
    assert join(sweep) == 1
    assert "joined/planted holds chains 0 to 1, which none of these runs has; give those" in capsys.readouterr().err
    assert stamps(folder) == before


def test_an_unfinished_part_is_named_and_its_kernel_refused(sweep: Path, capsys: Any) -> None:
    unfinished(sweep / "3", 6)
    other = {"localization": 10.0}
    for job, first in ((4, 0), (5, 2)):
        part(sweep / str(job), first, sampler=other)
    part(sweep / "6", 0, sampler={"localization": 1.0})
    assert join(sweep) == 1
    said = capsys.readouterr()
    line = f"losskernel: localization_50 is not joined: {sweep}/3: it stopped before the first draw; continue what is"
    assert line in said.err
    assert len(said.err.splitlines()) == 1
    assert "joined: chains 0 to 3, sampled by 2 runs" in said.out
    assert "comparison: " in said.out  # of the whole one and of that which is alone
    assert "run localization_50 has no result: localization_50 is not joined" in said.out
    assert [path.name for path in (sweep / "joined").glob("*_*")] == ["localization_10"]


def test_two_parts_of_which_one_is_unfinished_are_no_comparison(tmp_path: Path, capsys: Any) -> None:
    part(tmp_path / "0", 0)
    unfinished(tmp_path / "1", 2)
    assert join(tmp_path) == 1
    line = f"planted is not joined: {tmp_path}/1: it stopped before the first draw; continue what is unfinished, then"
    assert capsys.readouterr().err.startswith(f"losskernel: {line}")
    for job in range(2, 10):
        unfinished(tmp_path / str(job), 2 * job)
    assert join(tmp_path) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/3: it stopped before the first draw; 6 others; continue what is" in said
    assert f"{tmp_path}/4" not in said


def test_a_pattern_takes_the_parts_and_not_what_was_joined_of_them(sweep: Path, capsys: Any) -> None:
    assert join(sweep) == 0
    capsys.readouterr()
    assert call("--join", f"runs='{sweep}/*'", "logger=none", f"out={sweep}", command="compare") == 0
    assert "joined before, nothing new: chains 0 to 5, sampled by 3 runs" in capsys.readouterr().out
    assert [path.name for path in find_runs(f"{sweep}/*")] == ["0", "1", "2"]
    for given in (f"{sweep.parent}/*/joined", f"{sweep}/joined/*", sweep / "joined"):  # where that is meant
        assert [path.name for path in find_runs(given)] == ["planted"]


def test_runs_of_other_kernels_are_refused_with_what_differs(tmp_path: Path, capsys: Any) -> None:
    part(tmp_path / "0", 0)
    part(tmp_path / "1", 2, sampler={"localization": 7.0})
    assert join(tmp_path) == 1
    said = (
        "no two of these 2 runs sampled chains of one kernel: they differ in sampler.localization: 50.0 in 0, 7.0 in 1"
    )
    assert said in capsys.readouterr().err
    assert join(tmp_path / "0") == 1
    assert (
        "no other run than this one sampled chains of one kernel: give those of all its jobs" in capsys.readouterr().err
    )
    assert join(tmp_path, "join=maybe") == 1
    assert "join must be true or false, got 'maybe'" in capsys.readouterr().err


def test_a_chain_twice_is_refused(sweep: Path, capsys: Any) -> None:
    shutil.copytree(sweep / "1", sweep / "3")
    assert join(sweep) == 1
    assert f"chain 2 of seed 0 stands in {sweep}/1 and in {sweep}/3; join each chain once" in capsys.readouterr().err
    assert not list((sweep / "joined").glob("[!.]*"))


def test_an_analysis_that_breaks_leaves_the_trace_and_is_asked_again(sweep: Path, capsys: Any) -> None:
    ask(sweep, {"separation": {"_target_": "losskernel.analyses.Separation", "group": "nothing"}})
    folder = sweep / "joined" / "planted"
    for _ in range(2):
        assert join(sweep) == 1
        assert f"{folder}: analysis.separation.group=nothing: there is no such probe label" in capsys.readouterr().err
        assert lk.open_traces(folder).losses.shape[0] == 6
        assert json.loads((folder / "status.json").read_text())["state"] == "failed"


def test_what_all_parts_share_is_taken_from_the_first(sweep: Path) -> None:
    first = sweep / "0"
    (first / "checkpoints").mkdir()
    (first / "checkpoints" / "trained.pt").write_bytes(b"weights")
    rows = {"features": (("probe", "unit"), np.ones((40, 2)))}
    xr.Dataset(rows, attrs={"order": ["features"], "asked": {}}).to_zarr(first / "baselines.zarr", consolidated=False)
    for job in range(3):  # a further kernel
        shutil.copytree(sweep / str(job) / "control.zarr", sweep / str(job) / "kernels" / "nbeta=0.zarr")
    shutil.rmtree(sweep / "2" / "control.zarr")
    assert join(sweep) == 0
    folder = sweep / "joined" / "planted"
    assert (folder / "checkpoints" / "trained.pt").samefile(first / "checkpoints" / "trained.pt")
    assert read_representations(folder / "baselines.zarr")["features"].shape == (40, 2)
    assert lk.open_traces(folder / "kernels" / "nbeta=0.zarr").losses.shape[0] == 6
    assert lk.open_traces(first / "kernels" / "nbeta=0.zarr").losses.shape[0] == 2
    assert not (folder / "control.zarr").exists()
    message = json.loads((folder / "diagnosis.json").read_text())["control"]
    assert message == {"verdict": "none", "reasons": [f"no control was sampled in {sweep}/2"]}


def test_a_further_kernel_that_some_jobs_lack_is_named(sweep: Path, capsys: Any) -> None:
    shutil.copytree(sweep / "0" / "control.zarr", sweep / "0" / "kernels" / "nbeta=1, try 2.zarr")
    assert join(sweep) == 1
    message = f"kernels/nbeta=1, try 2.zarr was sampled by some jobs, not in {sweep}/1, {sweep}/2; run all jobs at"
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (sweep / "joined" / "planted").exists()


# --- which runs are of one kernel


def read(*folders: Path) -> list[Run]:
    return [read_run(folder) for folder in folders]


def test_runs_are_grouped_by_all_that_must_agree(tmp_path: Path) -> None:
    runs = read(
        part(tmp_path / "0", 4),
        part(tmp_path / "1", 0, sampler={"localization": 1.0}),
        part(tmp_path / "2", 0),
        part(tmp_path / "3", 2, seed=1),
        unfinished(tmp_path / "4", 2),
        part(tmp_path / "5", 2, analysis={}, threads=3),
    )
    result = group_by_kernel(runs)
    assert [[run.folder.name for run in group.runs] for group in result] == [["2", "5", "0"], ["1"], ["3"]]
    assert [[run.folder.name for run in group.waiting] for group in result] == [["4"], [], []]
    assert folder_names(result) == ["localization_50-seed_0", "localization_1-seed_0", "localization_50-seed_1"]
    assert folder_names(result[:1]) == ["planted"]


def test_names_of_kernels_hold_no_paths(tmp_path: Path) -> None:
    def names(key: str, *values: Any) -> list[str]:
        return folder_names([JoinedRuns({}, [Run(Path(f"x/{n}/0"), {key: value})]) for n, value in enumerate(values)])

    assert names("checkpoint", "/a/b/step-1.pt", "/a/b/step-2.pt") == ["checkpoint_step-1.pt", "checkpoint_step-2.pt"]
    assert names("sampler.parameters", ["head.*"], None) == ["parameters_head", "parameters_null"]
    assert names("sampler.nbeta", -1, 1) == ["nbeta_-1", "nbeta_1"]
    assert names("checkpoint", "/a/last.pt", "/b/last.pt") == ["0-0", "1-0"]  # as much of their paths as differs
    alone = JoinedRuns({}, [Run(tmp_path, {"name": "my runs/digits"})])
    assert folder_names([alone]) == ["digits"]


def test_weights_from_other_files_make_another_kernel_unless_they_are_the_same(tmp_path: Path) -> None:
    given = zip((None, "a", "b", "b"), "wwvv", strict=True)
    folders = [part(tmp_path / str(n), 2 * n, checkpoint=file, weights=extra) for n, (file, extra) in enumerate(given)]
    runs = read(*folders)
    assert [[run.folder.name for run in group.runs] for group in group_by_kernel(runs)] == [["0", "1"], ["2", "3"]]
    waiting = read(unfinished(tmp_path / "4", 8, checkpoint="b"))
    assert [len(group.waiting) for group in group_by_kernel([*runs, *waiting])] == [0, 1]


def test_a_job_that_came_to_nothing_belongs_where_what_was_asked_of_it_does(tmp_path: Path) -> None:
    for job, value in enumerate((1.0, 2.0)):
        part(tmp_path / str(job), 0, sampler={"localization": value})
    lost = tmp_path / "2" / ".hydra"
    lost.mkdir(parents=True)
    asked = {"sampler": {"localization": 2.0}, "chain_offset": 2, "dataset": {"seed": "${seed}"}}
    (lost / "config.yaml").write_text(yaml.safe_dump(asked))
    (tmp_path / "3").mkdir()  # nothing is known of it
    result = group_by_kernel(read(*(tmp_path / str(job) for job in range(4))))
    assert [[run.folder.name for run in group.all] for group in result] == [["0"], ["1", "2"], ["3"]]


def test_a_run_without_its_control_is_not_complete_while_it_is_at_work(tmp_path: Path) -> None:
    folder = part(tmp_path / "0", 0, controlled=True) / "metrics.json"
    both = read(part(tmp_path / "1", 2, threads=1), folder.parent)
    assert [len(group.runs) for group in group_by_kernel(both)] == [2]
    config = yaml.safe_load((tmp_path / "0" / "config.yaml").read_text()) | {"control": True}
    (tmp_path / "0" / "config.yaml").write_text(yaml.safe_dump(config))
    folder.unlink()
    assert [len(group.runs) for group in group_by_kernel(read(tmp_path / "0"))] == [1]
    shutil.rmtree(tmp_path / "0" / "control.zarr")
    assert [len(group.waiting) for group in group_by_kernel(read(tmp_path / "0"))] == [1]


def test_a_folder_of_another_kernel_is_not_taken(sweep: Path) -> None:
    def nowhere(_: Path) -> Tracker:
        return Tracker()

    home = sweep / "joined"
    assert join_kernels(read(sweep / "0", sweep / "1"), home, nowhere).joined[0].folder.name == "planted"
    others = [part(sweep / str(job), first, sampler={"nbeta": 3.0}) for job, first in ((7, 0), (8, 2))]
    assert join_kernels(read(*others), home, nowhere).joined[0].folder.name == "planted-2"
    both = join_kernels(read(*sorted(sweep.glob("[0-9]"))), home, nowhere)
    assert [item.folder.name for item in both.joined] == ["planted", "planted-2"]
    assert [item.outcome.before for item in both.joined] == [False, True]  # chains 4 and 5 are new


# --- where they are not joined


def test_jobs_that_differ_in_their_chains_are_replicates(tmp_path: Path) -> None:
    runs = read(*(part(tmp_path / f"{n}{c}", c, sampler={"nbeta": n}) for n in (1.0, 2.0) for c in (0, 2)))
    design = lay_out(runs)
    assert design.keys == ["sampler.nbeta"]
    assert [design.at(0, where) for where in (0, 1)] == [[0, 1], [2, 3]]
    assert design.names == ["1, chains from 0", "1, chains from 2", "2, chains from 0", "2, chains from 2"]
    assert "Points are means over jobs, bars their range" in caption_of_metrics(runs, design, [], "")
    alone = lay_out(runs[:2])
    assert (alone.axis.label, alone.axis.names) == ("first chain", ["0", "2"])
