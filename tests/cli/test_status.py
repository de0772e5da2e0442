"""losskernel-status: a table of jobs that run, wait, died or ended, from what lies in their folders alone."""

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import TINY, Forked, call, run_python

import losskernel as lk
from losskernel.cli.commands.status import ask_slurm, read_sweeps, seconds_left, status_from, swept, table
from losskernel.cli.job_status.job_state import Job, read_job
from losskernel.cli.job_status.sweeps import Sweep, command_of, sweeps_in
from losskernel.runs.status.status_file import RunStatus, process_began, read_status, timestamp
from losskernel.storage.locks import locked_folder

NOW = 1_800_000_000.0
WORDS = ("experiment=digits", "sampler.localization=1,10,100,300,1000", "seed=1")


def nobody(_: Sequence[str]) -> None:
    """A scheduler that does not answer."""


def multirun(folder: Path, words: Sequence[str] = WORDS, ago: float = 1, **hydra: Any) -> None:
    """Write what Hydra leaves of a sweep, begun so many seconds ago."""
    message = {"task": list(words), "hydra": ["hydra/launcher=slurm", "hydra.mode=MULTIRUN"]}
    made = {"sweep": {"subdir": "${hydra:job.num}"}, "overrides": message, "job": {"name": "losskernel"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": made | hydra}))
    os.utime(folder / "multirun.yaml", (NOW - ago, NOW - ago))


def begun(folder: Path, *words: str, ago: float | None = None, **status: Any) -> Path:
    """Write what a job leaves that has begun, and what it said so many seconds ago; nothing where that is None."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(words)))
    os.utime(folder / ".hydra" / "overrides.yaml", (NOW - 1, NOW - 1))
    if ago is not None:
        common = {"started": timestamp(NOW - 700), "host": "node07", "process": 4711, "process_began": 5, "restarts": 0}
        said = {"time": timestamp(NOW - ago), "advanced": timestamp(NOW - ago), "slurm_job": "902", "slurm_array": None}
        (folder / "status.json").write_text(json.dumps(common | said | status))
    return folder


def jobs_in(folder: Path, now: float = NOW, ask: Any = nobody) -> dict[str, Job]:
    return {job.name: job for sweep in read_sweeps([str(folder)], now, ask) for job in sweep.jobs}


def words_for(number: int) -> list[str]:
    return ["experiment=digits", f"sampler.localization={(1, 10, 100, 300, 1000)[number]}", "seed=1"]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of five: one finished, two at work, one that failed, one to come."""
    folder = tmp_path / "sweep"
    multirun(folder)
    begun(folder / "0", *words_for(0), ago=120, state="finished", verdict="pass", draws=3200, of=3200)
    at = {"state": "sampling", "draws": 1840, "of": 3200, "draws_per_second": 8.24, "seconds_left": 165.0}
    good = {"so_far": {"words": "R-hat 1.01, ESS 612"}, "doing": "chains 0-7 of 8"}
    begun(folder / "1", *words_for(1), ago=3, slurm_array="890_1", **at, **good)
    still = {"state": "sampling", "draws": 0, "of": 3200, "step": 120, "steps": 2500, "seconds_left": 400.0}
    more = {"at_least": True, "kernel": "control", "doing": "control: chains 0-7 of 8, burn-in", "restarts": 2}
    begun(folder / "2", *words_for(2), ago=4, **(still | more))
    begun(folder / "3", *words_for(3), ago=60, state="failed", error=ERROR, draws=0, of=3200)
    return folder


ERROR = "chain 3 left the finite numbers; lower sampler.step_size"
GOLDEN = """
job swept state draws a second left seen where verdict
0 localization=1 finished 3,200/3,200 2 min ago node07 902 pass
1 localization=10 sampling 1,840/3,200 8.2 3 min 3 s ago node07 890_1 R-hat 1.01, ESS 612
2 localization=100 burn-in control (restart 2) step 120/2,500 > 7 min 4 s ago node07 902
3 localization=300 failed 0/3,200 60 s ago node07 902
4 localization=1000 waiting
FOLDER: 5 jobs: 1 finished, 2 sampling, 1 failed, 1 waiting; at least 12 min left
R-hat and ESS: of the probes' mean loss, so far; the diagnosis follows when all is drawn
3 failed: chain 3 left the finite numbers; lower sampler.step_size
"""


def lines(text: str) -> list[str]:
    """Return lines without what the width of columns makes of spaces."""
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def test_a_sweep_is_a_table(sweep: Path) -> None:
    (listed,) = read_sweeps([str(sweep)], NOW, nobody)
    message = table(listed, None)
    assert lines(message) == lines(GOLDEN.replace("FOLDER", str(sweep)))
    rows = message.splitlines()[:6]
    ends = {row.index("3,200/3,200") + 11 for row in rows if "3,200/3,200" in row}
    assert ends == {rows[0].index("draws") + 5}  # numbers stand below each other
    assert len({row.index("localization") for row in rows[1:]}) == 1


@pytest.mark.parametrize("width", [120, 100, 60, 40])
def test_a_narrow_terminal_folds_what_is_long(sweep: Path, width: int) -> None:
    (listed,) = read_sweeps([str(sweep)], NOW, nobody)
    message = table(listed, width)
    rows = message.partition(str(sweep))[0].splitlines()
    if width >= 60:
        assert all(len(row) <= width for row in rows)
    for words in ("localization=1000", "8.2", "R-hat", "612", "1,840/3,200", "> 7 min", "890_1"):
        assert words in "\n".join(rows), words


def test_what_is_common_to_all_jobs_is_not_repeated() -> None:
    def job(*words: str) -> Job:
        return Job(Path(), "", words)

    one, other = ("a.x=1", "b.x=2", "c.y=1", "paths.run=a"), ("a.x=2", "b.x=2", "c.y=3")
    assert swept([job(*one), job(*other)]) == ["x=1 y=1", "x=2 y=3"]
    assert swept([job("a.x=1", "b.x=2"), job("a.x=2", "b.x=3")]) == ["a.x=1 b.x=2", "a.x=2 b.x=3"]
    assert swept([job("a.x=1")]) == [""]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    begun(tmp_path / "run", "seed=1", ago=5, state="sampling")
    code = "import sys; from losskernel.cli.commands.status import status_from; sys.exit(status_from(sys.argv[1:]))"
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        words = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(words, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_time_left_counts_those_that_wait() -> None:
    def job(state: str, **status: Any) -> Job:
        said = {"started": timestamp(NOW - 100), "time": timestamp(NOW)} | status
        return Job(Path(), "", state=state, ended=state == "finished", status=said)

    finished, here = job("finished"), job("sampling", seconds_left=20.0)
    assert seconds_left([finished]) == (None, True)
    assert seconds_left([finished, here]) == (20.0, False)
    assert seconds_left([finished, here, job("waiting")]) == (20 + 110, False)  # 100 and 120 s a job
    assert seconds_left([here, here, job("waiting"), job("waiting")]) == ((40 + 240) / 2, True)  # with their analyses
    assert seconds_left([here, job("sampling", seconds_left=300.0)]) == (300, False)
    assert seconds_left([here, job("training")]) == (20, True)
    assert seconds_left([job("training")]) == (None, True)


# --- life and death


def test_a_job_without_a_sign_for_a_minute_is_silent(tmp_path: Path) -> None:
    begun(tmp_path / "0", ago=59, state="sampling")
    begun(tmp_path / "1", ago=61, state="analysing", draws=3, of=9)
    begun(tmp_path / "2", ago=3600, state="finished")
    listed = jobs_in(tmp_path)
    assert [job.state for job in listed.values()] == ["sampling", "silent", "finished"]
    assert (listed["1"].note, listed["1"].ended, listed["1"].age) == ("dead or stuck", False, 61)


def test_a_job_that_beats_and_gets_no_further_is_said_to(tmp_path: Path) -> None:
    for number, state in enumerate(("sampling", "analysing")):
        begun(tmp_path / str(number), ago=2, state=state, advanced=timestamp(NOW - 900))
    assert [job.note for job in jobs_in(tmp_path).values()] == ["alive, but no further since 15 min", ""]


def test_what_is_asked_just_now_is_named(tmp_path: Path) -> None:
    for number, doing in enumerate(("embedding", "embedding, path", "")):
        begun(tmp_path / str(number), ago=1, state="analysing", doing=doing, draws=9, of=9)
    (listed,) = read_sweeps([str(tmp_path)], NOW, nobody)
    rows = table(listed, None).splitlines()[1:4]
    states = [row.partition("9/9")[0].split(maxsplit=1)[1].strip() for row in rows]
    assert states == ["analysing embedding", "analysing", "analysing"]


def test_processes_of_this_machine_are_looked_up(tmp_path: Path) -> None:
    here, extra = socket.gethostname(), {"process": os.getpid(), "process_began": process_began(os.getpid())}
    begun(tmp_path / "0", ago=400, state="sampling", host=here, **extra)
    begun(tmp_path / "1", ago=2, state="sampling", host=here, process=os.getpid(), process_began=-1)
    begun(tmp_path / "2", ago=2, state="sampling", host="elsewhere", process=os.getpid(), process_began=-1)
    begun(tmp_path / "3", ago=400, state="finished", host=here, process=os.getpid(), process_began=-1)
    listed = jobs_in(tmp_path)
    assert [job.state for job in listed.values()] == ["silent", "silent", "sampling", "finished"]
    assert listed["0"].note == f"process {os.getpid()} is there, and stopped or stuck"
    assert (listed["1"].note, listed["1"].ended) == (f"process {os.getpid()} is gone: killed?", True)


STATES = {"7": "PENDING", "8": "RUNNING", "10": "HELD", "12": "OUT_OF_MEMORY", "13_4": "PENDING"}


@pytest.mark.parametrize(
    ("said", "job", "state", "ended", "note"),
    [
        ("interrupted", "7", "waiting", False, "SLURM: PENDING, goes on where it was"),
        ("interrupted", "8", "starting", False, "SLURM: RUNNING"),
        ("interrupted", "9", "interrupted", True, "stopped; SLURM knows 9 no more"),
        ("sampling", "7", "waiting", False, "SLURM: PENDING, goes on where it was"),
        ("sampling", "8", "silent", False, "SLURM: RUNNING"),
        ("sampling", "10", "waiting", False, "SLURM: HELD, goes on where it was; scontrol release 10"),
        ("sampling", "11", "silent", True, "SLURM knows 11 no more: killed?"),
        ("sampling", "12", "silent", True, "SLURM: OUT_OF_MEMORY: killed?"),
        ("failed", "7", "failed", True, "stopped"),
        ("", "13_4", "waiting", False, "SLURM: PENDING"),
        ("", "13_5", "not begun", True, "SLURM knows 13_5 no more: killed?"),
    ],
)
def test_slurm_is_asked_about_jobs_in_doubt(
    said: str, job: str, state: str, ended: bool, note: str, tmp_path: Path
) -> None:
    request: list[Sequence[str]] = []

    def ask(ids: Sequence[str]) -> Mapping[str, str]:
        request.append(ids)
        return {item: STATES[item] for item in ids if item in STATES}

    multirun(tmp_path, ["seed=0,1,2,3,4,5"])
    number = job.partition("_")[2] or "0"
    if said:
        begun(tmp_path / number, ago=400, state=said, slurm_job="1", slurm_array=job, error="stopped")
    else:
        for item in (f"9_{number}", job):  # submitit's, of an earlier start of the sweep too
            (tmp_path / ".submitit" / item).mkdir(parents=True)
    listed = jobs_in(tmp_path, ask=ask)[number]
    assert request == ([] if said == "failed" else [[job]])
    assert (listed.state, listed.ended, listed.note) == (state, ended, note)


def test_squeue_is_called_once_for_all(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (4, 5):
        (sweep / ".submitit" / f"890_{number}").mkdir(parents=True)
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    for name in ("squeue", "sacct"):
        script = f'#!/bin/sh\necho {name} "$@" >> {calls}\ntest {name} = squeue && echo "890_4|PENDING|Priority"\n'
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    (listed,) = read_sweeps([str(sweep)], NOW, ask_slurm)
    assert listed.jobs[4].note == "SLURM: PENDING"
    (call,) = calls.read_text().splitlines()
    assert "--jobs=890" in call
    monkeypatch.setenv("PATH", str(tmp_path))
    unasked = jobs_in(sweep, ask=ask_slurm)["4"]
    message = "submitted to SLURM as 890_4, which cannot be asked from here"
    assert (unasked.state, unasked.ended, unasked.note) == ("not begun", False, message)


# --- what never began

BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
SLURM = {"_target_": "hydra_plugins.losskernel_launchers.SlurmLauncher"}
SLURM |= {"submitit_folder": "${hydra.sweep.dir}/.submitit/%j"}
QUIET = "no job of the sweep has begun in"


@pytest.mark.parametrize(
    ("ago", "state", "ended", "note"),
    [
        (59, "waiting", False, ""),
        (61, "not begun", False, f"{QUIET} 61 s: was it refused?"),
        (1200, "not begun", True, f"{QUIET} 20 min: was it refused?"),
    ],
)
def test_a_sweep_of_which_nothing_began_is_not_said_to_come(
    ago: float, state: str, ended: bool, note: str, tmp_path: Path
) -> None:
    multirun(tmp_path, ["seed=0,1"], ago)
    (sweep,) = read_sweeps([str(tmp_path)], NOW, nobody)
    assert [(job.state, job.ended, job.note) for job in sweep.jobs] == [(state, ended, note)] * 2
    rows = table(sweep, None).splitlines()
    again = f"to begin, or to be told why not: losskernel -m hydra/launcher=slurm seed=0,1 paths.sweep={tmp_path}"
    assert rows[4:] == [f"0, 1 not begun: {note}"] * bool(note) + [again] * ended


def test_a_run_that_left_its_configuration_alone_is_not_said_to_come(tmp_path: Path) -> None:
    for name, ago in (("0", 59), ("1", 61), ("2", 601)):
        overrides = begun(tmp_path / name) / ".hydra" / "overrides.yaml"
        os.utime(overrides, (NOW - ago, NOW - ago))
    listed = jobs_in(tmp_path)
    message = "it was refused, or killed, or is still at its model and data"
    assert [(job.state, job.ended, job.note) for job in listed.values()] == [
        ("starting", False, ""),
        ("not begun", False, message),
        ("not begun", True, message),
    ]


def test_jobs_that_slurm_has_not_taken_are_told_from_those_that_it_may_have(tmp_path: Path) -> None:
    def message(now: float = NOW, ask: Any = nobody) -> set[tuple[str, bool, str]]:
        return {(job.state, job.ended, job.note) for job in jobs_in(tmp_path, now, ask).values()}

    multirun(tmp_path, ["seed=0,1"], 120, launcher=SLURM)
    refused = "SLURM has not taken the sweep's jobs"
    assert message() == {("not begun", False, refused)}
    assert message(NOW + 1000) == {("not begun", True, refused)}
    multirun(tmp_path, ["seed=0,1"], 120, launcher=SLURM | {"submitit_folder": "/elsewhere/%j"})
    assert message(NOW + 1000) == {("not begun", False, "whether SLURM has it, nothing here tells")}
    (tmp_path / ".submitit").mkdir()
    (tmp_path / ".submitit" / ".submission_file_0af.sh").touch()  # as it stays where sbatch refuses
    assert message(NOW + 1000) == {("not begun", True, refused)}
    for number in (0, 1):
        (tmp_path / ".submitit" / f"7_{number}").mkdir()
    told_here = {(f"submitted to SLURM as 7_{number}, which cannot be asked from here") for number in (0, 1)}
    assert message(NOW + 1000) == {("not begun", False, item) for item in told_here}
    waiting = {"7_0": "PENDING", "7_1": "PENDING"}
    assert message(NOW + 1000, lambda ids: waiting) == {("waiting", False, "SLURM: PENDING")}


def test_jobs_around_a_run_are_found_at_slurm_by_what_they_sweep(tmp_path: Path) -> None:
    blocks = {"first": ["a.*"], "second": ["b.*", "c"], "third": "/my path/step-3.pt"}
    (tmp_path / "jobs.json").write_text(json.dumps(blocks))  # the first had finished before
    begun(tmp_path / "first", ago=9000, state="finished")
    words = ["seed=1", "sampler.parameters=['b.*','c'],'/my path/step-3.pt'"]
    multirun(tmp_path, words, 9000, launcher=SLURM, sweep={"subdir": "${of:${checkpoint}}"})
    for number in (0, 1):
        (tmp_path / ".submitit" / f"7_{number}").mkdir(parents=True)
    listed = jobs_in(tmp_path, ask=lambda ids: {"7_0": "HELD", "7_1": "PENDING"})
    assert [job.note.partition(";")[0] for job in listed.values()] == ["", "SLURM: HELD", "SLURM: PENDING"]
    assert listed["third"].words[-1] == "sampler.parameters='/my path/step-3.pt'"


def test_a_sweep_of_one_job_is_no_array_of_slurm(tmp_path: Path) -> None:
    multirun(tmp_path, ["seed=1"], launcher=SLURM)
    for earlier_and_now in ("11", "12"):
        (tmp_path / ".submitit" / earlier_and_now).mkdir(parents=True)
    assert jobs_in(tmp_path, ask=lambda ids: {"12": "PENDING"})["0"].note == "SLURM: PENDING"
    multirun(tmp_path, ["seed=1"])  # of another launcher they are processes
    assert jobs_in(tmp_path)["0"].slurm == ""


def test_what_submitit_keeps_of_a_job_that_broke_before_it_began_is_told(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (tmp_path / "harmed").touch, ()

    multirun(tmp_path, ["seed=0,1,2"], launcher=SLURM)
    left = [("error", "Traceback ...\n  in it\nImportError: no torch\n"), ("success", Harm()), ("error", Harm())]
    for number, result in enumerate(left):
        target = tmp_path / ".submitit" / f"7_{number}"
        target.mkdir(parents=True)
        (target / f"7_{number}_0_result.pkl").write_bytes(pickle.dumps(result))
        (target / f"7_{number}_0_log.out").touch()
    (sweep,) = read_sweeps([str(tmp_path)], NOW, lambda _: {})
    assert [(job.state, job.ended) for job in sweep.jobs] == [("failed", True)] + [("not begun", True)] * 2
    assert not (tmp_path / "harmed").exists()
    log = tmp_path / ".submitit" / "7_0" / "7_0_0_log.out"
    assert f"0 failed: ImportError: no torch; log {log}" in table(sweep, None)


@pytest.mark.parametrize(
    ("host", "began", "state", "note"),
    [
        ("here", "now", "waiting", ""),
        ("here", "before", "not begun", "the process that did the jobs one after another is gone"),
        ("elsewhere", "before", "not begun", "no job of the sweep has been at work for 2 min: has its command ended?"),
    ],
)
def test_jobs_of_one_process_come_while_it_lives(host: str, began: str, state: str, note: str, tmp_path: Path) -> None:
    multirun(tmp_path, ["seed=0,1,2"], 400, launcher=BASIC)
    process = {"process": os.getpid(), "process_began": process_began(os.getpid()) if began == "now" else -1}
    target = socket.gethostname() if host == "here" else host
    begun(tmp_path / "0", "seed=0", ago=120, state="finished", host=target, started=timestamp(NOW - 300), **process)
    overrides = begun(tmp_path / "1", "seed=1") / ".hydra" / "overrides.yaml"
    os.utime(overrides, (NOW - 110, NOW - 110))
    listed = jobs_in(tmp_path)
    assert (listed["2"].state, listed["2"].note, listed["2"].ended) == (
        state,
        note,
        began == "before" and host == "here",
    )
    assert listed["1"].state == ("starting" if began == "now" else "not begun")
    multirun(tmp_path, ["seed=0,1,2"], 30, launcher=BASIC)  # begun again, by a process that has not yet spoken
    assert jobs_in(tmp_path)["2"].state == "waiting"


def test_the_real_command_line_says_what_never_began(tmp_path: Path, capsys: Any) -> None:
    assert call("schedule.chains=0", "logger=none", f"paths.run={tmp_path / 'run'}") == 1
    sweep = ("-m", "hydra/launcher=local", "hydra.launcher.n_jobs=0", "seed=0,1", f"paths.sweep={tmp_path / 'sweep'}")
    assert call(*sweep, "logger=none") == 1
    assert call("-m", "seed=0,1", "schedule.chains=0", "logger=none", f"paths.sweep={tmp_path / 'jobs'}") == 1
    for left in (tmp_path / "run" / ".hydra" / "overrides.yaml", tmp_path / "sweep" / "multirun.yaml"):
        os.utime(left, (time.time() - 1000, time.time() - 1000))
    capsys.readouterr()
    assert status_from([str(tmp_path)]) == 0
    message = capsys.readouterr().out
    assert "run not begun: it was refused, or killed, or is still" in message
    assert (
        f"to begin, or to be told why not: losskernel schedule.chains=0 logger=none paths.run={tmp_path}/run" in message
    )
    assert f"0, 1 not begun: {QUIET} 17 min: was it refused?" in message
    assert "0, 1 failed: schedule.chains must be >= 1, got 0; raise schedule.chains" in message
    assert "go on with" not in message
    assert "waiting" not in message


# --- what goes on and what does not


def test_an_error_is_not_repeated_and_an_interruption_goes_on(tmp_path: Path) -> None:
    multirun(tmp_path, ["seed=0,1,2"])
    begun(tmp_path / "0", "seed=0", ago=5, state="finished")
    begun(tmp_path / "1", "seed=1", ago=5, state="failed", error=ERROR)
    begun(tmp_path / "2", "seed=2", ago=5, state="interrupted", error="stopped (SIGTERM)")
    command = f"losskernel -m hydra/launcher=slurm seed=0,1,2 paths.sweep={tmp_path}"

    def message() -> list[str]:
        (sweep,) = read_sweeps([str(tmp_path)], NOW, nobody)
        return table(sweep, None).splitlines()[5:]

    error, stopped = f"1 failed: {ERROR}", "2 interrupted: stopped (SIGTERM)"
    repeats = "that repeats 1 too, whose error comes again unless it is mended"
    assert message() == [error, stopped, f"go on with: {command}", repeats]
    shutil.rmtree(tmp_path / "2")
    begun(tmp_path / "2", "seed=2", ago=5, state="sampling")
    assert message() == [error]
    # What whoever started it says of a job that was killed is no error of its own.
    shutil.rmtree(tmp_path / "1")
    killed = begun(tmp_path / "1", "seed=1", ago=5, state="sampling") / "failure.json"
    killed.write_text(json.dumps({"error": "was killed, SLURM job 3 is OUT_OF_MEMORY; folder ..."}))
    os.utime(killed, (NOW - 1, NOW - 1))
    assert message()[1:] == [f"once the others have ended, go on with: {command}"]


def test_an_end_that_is_noted_twice_is_one(tmp_path: Path) -> None:
    folder = begun(tmp_path / "0", ago=30, state="interrupted", error="stopped (SIGTERM)")
    for text, state in (("stopped (SIGTERM); the same command goes on", "interrupted"), ("seed must be", "failed")):
        (folder / "failure.json").write_text(json.dumps({"error": text}))
        os.utime(folder / "failure.json", (NOW - 20, NOW - 20))  # W&B took its time
        assert read_job(folder, NOW).state == state


def test_joined_kernels_have_rows_beside_the_jobs(tmp_path: Path, capsys: Any) -> None:
    multirun(tmp_path, ["chain_offset=0,4"])
    for number, offset in enumerate((0, 4)):
        words = f"chain_offset={offset}"
        begun(tmp_path / str(number), words, ago=120, state="finished", draws=8, of=8, started=timestamp(NOW - 240))
    whole, made = tmp_path / "joined" / "toy", tmp_path / "joined" / ".partial" / "joined"
    config = yaml.safe_dump({"chain_offset": 0, "schedule": {"chains": 8}})
    for folder, status in ((whole, {"state": "finished", "verdict": "warn"}), (made / "other", {"state": "analysing"})):
        (begun(folder, "chain_offset=0", ago=9, **status) / "config.yaml").write_text(config)
    (sweep,) = read_sweeps([str(tmp_path)], NOW, nobody)
    rows = lines(table(sweep, None))
    assert rows[3] == "joined/toy 8 chains finished 9 s ago node07 902 warn"
    assert rows[4] == "joined/other 8 chains analysing 9 s ago node07 902"
    assert rows[5:] == [f"{tmp_path}: 2 jobs: 2 finished; 2 joined"]
    shutil.copytree(whole, made / "toy")  # joined anew: it stands for the one that it replaces
    (made / "toy" / "status.json").write_text(
        json.dumps({"state": "failed", "error": "no; mend", "time": timestamp(NOW)})
    )
    (sweep,) = read_sweeps([str(tmp_path)], NOW, nobody)
    assert (sweep.joined[0].name, sweep.joined[0].state) == ("joined/toy", "failed")
    assert table(sweep, None).endswith("joined/toy failed: no; mend")
    assert status_from([str(tmp_path), "--json"]) == 0
    assert [job["name"] for job in json.loads(capsys.readouterr().out)[0]["joined"]] == ["joined/toy", "joined/other"]


# --- what has not begun, what was there before


def test_jobs_that_have_not_begun_are_known_from_hydra(tmp_path: Path) -> None:
    message = ["seed=range(0,2)", "name=a", "+sampler.x=1,2", "paths.sweep=there"]
    multirun(tmp_path, message, sweeper={"params": {"b": "1,2"}})
    begun(tmp_path / "1", "b=1")
    listed = jobs_in(tmp_path)
    assert list(listed) == [str(number) for number in range(8)]
    assert [job.state for job in listed.values()] == ["waiting", "starting", *["waiting"] * 6]
    assert listed["6"].words == ("b=2", "seed=1", "name=a", "+sampler.x=1", "paths.sweep=there")
    (tmp_path / "report.html").touch()
    os.utime(tmp_path / "report.html", (2e9, 2e9))
    listed = jobs_in(tmp_path, NOW + 1000)
    assert {job.state for job in listed.values()} == {"not begun"}
    message = "the sweep has ended without it"
    assert [job.name for job in listed.values() if not job.ended or job.note != message] == ["1"]
    assert listed["1"].ended


@pytest.mark.parametrize("words", [["seed=interval(0,1)"], ["seed=(("]])
def test_what_another_sweeper_will_do_nobody_knows(words: list[str], tmp_path: Path) -> None:
    multirun(tmp_path, words)
    begun(tmp_path / "0", ago=1, state="training")
    assert list(jobs_in(tmp_path)) == ["0"]


def test_folders_with_names_of_their_own_are_not_guessed(tmp_path: Path) -> None:
    multirun(tmp_path, sweep={"subdir": "${stem:${checkpoint}}"})
    assert len(jobs_in(tmp_path)) == 5
    begun(tmp_path / "step-7", ago=1, state="training")
    assert list(jobs_in(tmp_path)) == ["step-7"]


def test_a_run_comes_with_the_sweeps_around_it(tmp_path: Path) -> None:
    run = begun(tmp_path / "toy", "seed=1", ago=9, state="finished")
    (run / "dynamics").mkdir()
    (run / "dynamics" / "jobs.json").write_text(json.dumps({"step-1": 1, "step-2": 2}))
    begun(run / "dynamics" / "step-2", ago=1, state="sampling")
    alone, around = sweeps_in(run, NOW)
    assert [job.name for job in alone.jobs] == ["toy"]
    assert [(job.name, job.state) for job in around.jobs] == [("step-1", "waiting"), ("step-2", "sampling")]
    assert around.command == f"losskernel-dynamics run={run}"
    assert [sweep.folder for sweep in sweeps_in(tmp_path, NOW)] == [tmp_path, run / "dynamics"]


def test_a_folder_of_sweeps_and_runs_is_looked_through(sweep: Path, tmp_path: Path) -> None:
    begun(tmp_path / "single", "seed=1", ago=1, state="training")
    listed = read_sweeps([str(tmp_path)], NOW, nobody)
    assert [(item.folder, len(item.jobs)) for item in listed] == [(tmp_path, 1), (sweep, 5)]


def test_runs_of_before_there_were_signs_of_life(tmp_path: Path) -> None:
    ended, stopped, broken = (begun(tmp_path / name, "seed=1") for name in ("ended", "stopped", "broken"))
    (ended / "metrics.json").write_text("{}")
    (ended / "diagnosis.json").write_text('{"verdict": "warn"}')
    (stopped / "config.yaml").touch()
    (broken / "failure.json").write_text('{"error": "no\\n data"}')
    for file in (ended / "metrics.json", stopped / "config.yaml", broken / "failure.json"):
        os.utime(file, (NOW - 90, NOW - 90))
    listed = jobs_in(tmp_path)
    message = {name: (job.state, job.verdict, job.note, job.age, job.ended) for name, job in listed.items()}
    assert message == {
        "broken": ("failed", "", "no data", 90, True),
        "ended": ("finished", "warn", "", 90, True),
        "stopped": ("unfinished", "", "it gives no signs of life", 90, True),
    }


def test_the_later_of_failure_and_sign_of_life_counts(tmp_path: Path) -> None:
    folder = begun(tmp_path / "0", ago=30, state="sampling")
    for when, state in ((NOW - 100, "sampling"), (NOW - 10, "failed")):
        (folder / "failure.json").write_text('{"error": "the dataset is gone"}')
        os.utime(folder / "failure.json", (when, when))
        assert read_job(folder, NOW).state == state
    assert read_job(folder, NOW).note == "the dataset is gone"


def test_files_that_are_damaged_stop_nobody(tmp_path: Path) -> None:
    folder = begun(tmp_path / "0", ago=1, state="sampling")
    for name in ("status.json", "failure.json", ".hydra/overrides.yaml", "diagnosis.json"):
        (folder / name).write_text("{]")
    (tmp_path / "multirun.yaml").write_text("{]")
    assert jobs_in(tmp_path)["0"].state == "not begun"


def test_a_run_is_continued_by_its_own_words(tmp_path: Path) -> None:
    folder = begun(tmp_path / "my run", ago=1, state="interrupted", error="Ctrl-C")
    sources = [{"path": "/conf", "provider": "main"}, {"path": "/mine", "provider": "command-line"}]
    message = {
        "task": ["seed=1", "analysis=[separation]", "paths.run=old", "paths.sweep=x"],
        "hydra": ["hydra.mode=RUN"],
    }
    hydra = {"overrides": message, "job": {"name": "losskernel"}, "runtime": {"config_sources": sources}, "mode": "RUN"}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    words = shlex.split(command_of(folder))
    assert words == ["losskernel", "seed=1", "analysis=[separation]", f"paths.run={folder}", "--config-dir", "/mine"]
    multirun(tmp_path, ["seed=1,2"])
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra | {"mode": "MULTIRUN"}}))
    words = shlex.split(command_of(folder))
    assert words == ["losskernel", "-m", "hydra/launcher=slurm", "seed=1,2", f"paths.sweep={tmp_path}"]
    (folder / ".hydra" / "hydra.yaml").unlink()
    assert command_of(folder) == ""
    told_table = table(Sweep(tmp_path, (read_job(folder, NOW),)), None)
    assert "my run interrupted: Ctrl-C" in told_table
    assert "go on with" not in told_table


# --- the command


def test_nothing_is_one_line_and_an_exit_code(tmp_path: Path, capsys: Any) -> None:
    assert status_from([str(tmp_path), str(tmp_path / "nowhere")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"losskernel: {tmp_path}, {tmp_path}/nowhere: no run is there; give")
    for wrong in ("0", "-1", "soon"):
        with pytest.raises(SystemExit):
            status_from([str(tmp_path), "--watch", wrong])
    assert "--watch" in capsys.readouterr().err


def test_programs_are_told_in_json(sweep: Path, capsys: Any) -> None:
    assert status_from([str(sweep), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["folder"] == str(sweep)
    assert listed["command"].startswith("losskernel -m ")
    first = listed["jobs"][0]
    assert (first["name"], first["state"], first["swept"], first["verdict"]) == (
        "0",
        "finished",
        "localization=1",
        "pass",
    )
    assert first["status"]["draws"] == 3200


def test_watching_ends_when_all_jobs_have(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    running, slept = RunStatus(folder), []
    running.enter("sampling", draws=1, of=4)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        running.enter("sampling" if len(slept) < 3 else "finished", draws=1 + len(slept))

    assert status_from([str(tmp_path), "--watch", "7"], sleep) == 0
    assert slept == [7.0, 7.0, 7.0]
    message = capsys.readouterr().out
    assert [f"{draws}/4" in message for draws in (1, 2, 3, 4)] == [True] * 4
    assert "\033" not in message  # no terminal

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    running.enter("sampling")
    assert status_from([str(tmp_path), "--watch", "7"], interrupt) == 0


def test_looking_writes_nothing_and_takes_no_lock(sweep: Path, capsys: Any) -> None:
    def stamps() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in [sweep, *sweep.rglob("*")]}

    with locked_folder(sweep / "1"):
        before = stamps()
        assert status_from([str(sweep)]) == 0
        assert stamps() == before
    assert "5 jobs" in capsys.readouterr().out


def test_it_loads_nothing_heavy(sweep: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from losskernel.cli import status
        try:
            status()
        finally:
            heavy = ("torch", "pytorch_lightning", "numpy", "xarray", "zarr", "submitit", "wandb")
            print([name for name in heavy if name in sys.modules])
    """)
    done = run_python("-c", code, str(sweep), cwd=sweep)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "5 jobs: " in done.stdout


def test_a_run_is_seen_at_work_killed_and_continued(tmp_path: Path) -> None:
    extra = ("analysis=[separation]", "logger=none", *TINY[:-1], "schedule.draws=1500", "state_every=0.5")
    words = [*extra, f"paths.run={tmp_path / 'toy'}"]
    # A status that is written faster, so that there is something to see of a run of seconds.
    faster = "run.RunStatus, progress_callback._EVERY = functools.partial(run.RunStatus, every=0.05), 0"
    modules = "from losskernel.runs import run; from losskernel.runs.status import progress_callback"
    code = f"import functools; {modules}; {faster}; from losskernel.cli import main; main()"
    child = Forked(code, *words, cwd=tmp_path)
    try:
        kept = tmp_path / "toy" / "traces.zarr" / "resume.pt"
        seen = _until(tmp_path, lambda job: bool(job.status.get("draws")) and kept.exists())
        assert seen.state == "sampling"
        assert seen.status["of"] == 3000
    finally:
        child.send_signal(signal.SIGKILL)
    message = [line.partition(" losskernel: ")[2] for line in child.wait().stderr.splitlines()]
    assert message[0] == f"{tmp_path / 'toy'}: process {child.pid} on {socket.gethostname()}"
    assert message[1] == "training: 50 steps"
    assert message[3] == "chains 0-1 of 2: 10 steps of burn-in, then 1,500 draws each"
    dead = _until(tmp_path, lambda job: True)
    assert (dead.state, dead.ended) == ("silent", True)
    assert "is gone: killed?" in dead.note
    (sweep,) = read_sweeps([str(tmp_path)], time.time(), nobody)
    (again,) = [line for line in table(sweep, None).splitlines() if line.startswith("go on with: ")]
    _, *words = shlex.split(again.removeprefix("go on with: "))
    done = Forked(code, *words, cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    assert "of 3,000 draws, restart 1\n" in done.stderr
    assert re.search(r"losskernel: analysing: separation\n.*losskernel: finished, diagnosis: \w+\n", done.stderr)
    ended = _until(tmp_path, lambda job: True)
    assert (ended.state, ended.status["restarts"], ended.status["draws"]) == ("finished", 1, 3000)
    assert ended.verdict in ("pass", "warn", "fail")
    assert lk.open_traces(tmp_path / "toy").losses.shape == (2, 1500, 40)
    status = read_status(tmp_path / "toy")
    assert status is not None
    assert status["first_started"] <= status["started"]


def _until(folder: Path, holds: Any) -> Job:
    """Return the only job there once it is as wanted."""
    began, jobs = time.monotonic(), []
    while time.monotonic() - began < 120:
        jobs = list(jobs_in(folder, time.time()).values())
        if jobs and holds(jobs[0]):
            return jobs[0]
        time.sleep(0.05)
    raise AssertionError(f"never seen: {jobs}")
