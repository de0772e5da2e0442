"""The state of one job: from its own files, corrected by what this machine knows of its process, and by SLURM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

import yaml

from losskernel.cli.launchers.queue import WAITING
from losskernel.runs.status.status_file import ENDS, read_object, read_status, seconds_of
from losskernel.training.progress import lasting

SILENT = 60.0  # seconds without a status, of which there is one every five
STILL = 600.0  # seconds without progress of a live process
# Files of a run, the first ones and the last ones.
_MARKS = ("status.json", "config.yaml", "failure.json", "metrics.json", "traces.zarr", ".hydra")


@dataclass(frozen=True)
class Job:
    """One run as seen from its folder.

    Attributes:
        folder: of the run.
        name: among the jobs of its sweep.
        words: Hydra's overrides.
        state: one of the status file's, or "waiting" (in the queue, for the first time or again), "not begun" (it may
            or will not begin), "silent" (it should be running and writes no status), "unfinished" (of a version that
            wrote no status).
        ended: whether nothing more is to be expected of it without a new command.
        age: seconds since its last status; None where there was none.
        verdict: of its diagnosis; "" before.
        note: what is wrong, or what is waited for; "" if nothing.
        slurm: id of its SLURM job; "" without one.
        status: content of its status file.
    """

    folder: Path
    name: str
    words: tuple[str, ...] = ()
    state: str = "waiting"
    ended: bool = False
    age: float | None = None
    verdict: str = ""
    note: str = ""
    slurm: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def at_work(self) -> bool:
        """Whether it is running, as far as is known."""
        return self.state not in (*ENDS, "waiting", "not begun", "silent", "unfinished")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's; a sweep's holds what Hydra writes of all its jobs."""
    if any((folder / name).exists() for name in ("multirun.yaml", "jobs.json", "calibration.json")):
        return False
    return any((folder / name).exists() for name in _MARKS)


def read_job(folder: Path, now: float) -> Job:
    """Return the state of a run by its own files.

    Args:
        folder: of the run.
        now: seconds since 1970.
    """
    status, failure = read_status(folder), read_object(folder / "failure.json")
    job = Job(folder, folder.name, overrides_of(folder))
    if status is None:
        return _without_status(job, failure, now)
    written, failed = seconds_of(status.get("time")) or 0.0, modified(folder / "failure.json")
    job = replace(
        job,
        state=str(status.get("state", "starting")),
        age=max(0.0, now - written),
        slurm=str(status.get("slurm_array") or status.get("slurm_job") or ""),
        note=str(status.get("error") or ""),
        status=status,
    )
    # A failure that is newer than the status was written by the process that started a job which was killed. A job
    # that fails writes the same error into both files, up to seconds apart; time stamps are whole seconds.
    repeated = job.note and _error(failure).startswith(job.note)
    if failure and failed > written + 1 and not repeated:
        job = replace(job, state="failed", age=max(0.0, now - failed), note=_error(failure))
    if job.state == "finished":
        job = replace(job, note="", verdict=str(status.get("verdict") or "") or _verdict(folder))
    if job.state in ENDS:
        return replace(job, ended=True)
    if (job.age or 0.0) > SILENT:
        return replace(job, state="silent", note="dead or stuck")
    still = now - (seconds_of(status.get("advanced")) or now)
    stuck = job.state in ("training", "sampling") and still > STILL
    return replace(job, note=f"alive, but no further since {still / 60:.0f} min" if stuck else "")


def _without_status(job: Job, failure: Mapping[str, Any], now: float) -> Job:
    """Return the state of a run without status file: it has not begun, or its version wrote none."""
    traces = job.folder / "traces.zarr"
    files = (job.folder / "metrics.json", traces / "resume.pt", traces, job.folder / "config.yaml")
    last = max(map(modified, files))
    age = now - last if last > 0 else None
    if (job.folder / "metrics.json").is_file():
        return replace(job, state="finished", ended=True, age=age, verdict=_verdict(job.folder))
    if failure:
        age = now - modified(job.folder / "failure.json")
        return replace(job, state="failed", ended=True, age=age, note=_error(failure))
    if age is not None:
        return replace(job, state="unfinished", ended=True, age=age, note="it gives no signs of life")
    composed = modified(job.folder / ".hydra" / "overrides.yaml")
    if composed == 0:
        return job
    age = max(0.0, now - composed)
    if age <= SILENT:
        return replace(job, state="starting", age=age)
    # A single run that is refused writes nothing, and building large data takes its time.
    note = "it was refused, or killed, or is still at its model and data"
    return replace(job, state="not begun", ended=age > STILL, age=age, note=note)


def check_process(job: Job, host: str, began: int | None) -> Job:
    """Return a job corrected by what its own machine knows of its process.

    Args:
        job: by its files.
        host: this machine.
        began: when a process of the job's number began on this machine; None where there is none.
    """
    recorded = job.status.get("process_began")
    if job.status.get("host") != host or recorded is None or not (job.at_work or job.state == "silent"):
        return job
    process = f"process {job.status.get('process')}"
    if began != recorded:  # the number belongs to another process, or to none
        return replace(job, state="silent", ended=True, note=f"{process} is gone: killed?")
    return replace(job, note=f"{process} is there, and stopped or stuck") if job.state == "silent" else job


def apply_slurm_state(job: Job, states: Mapping[str, str]) -> Job:
    """Return a job corrected by what SLURM says of it.

    Args:
        job: by its files.
        states: id -> state of all jobs that SLURM remembers.
    """
    if not job.slurm or job.state in ("finished", "failed") or job.at_work:
        return job
    state = states.get(job.slurm)
    if state in WAITING:
        again = "" if not job.status else ", goes on where it was"
        release = f"; scontrol release {job.slurm}" if state == "HELD" else ""
        return replace(job, state="waiting", ended=False, note=f"SLURM: {state}{again}{release}")
    if state in ("RUNNING", "COMPLETING"):
        begins = job.state in ("waiting", "interrupted")
        return replace(job, state="starting" if begins else job.state, ended=False, note=f"SLURM: {state}")
    how = f"SLURM: {state}" if state else f"SLURM knows {job.slurm} no more"
    if job.state == "interrupted":
        return replace(job, note=f"{job.note}; {how}")
    return replace(job, state="silent" if job.status else "not begun", ended=True, note=f"{how}: killed?")


class Starter(Enum):
    """What is known of whatever starts the jobs of a sweep that have not begun."""

    ALIVE = auto()  # the process that does the jobs one after another runs
    GONE = auto()  # that process is gone
    REFUSED = auto()  # SLURM has not taken the jobs
    QUEUE = auto()  # SLURM has taken them, or may have: they can wait there for days
    UNKNOWN = auto()  # processes of which nothing is recorded


def settle_pending(jobs: Sequence[Job], age: float, starter: Starter, slurm_answers: bool) -> tuple[Job, ...]:
    """Return the jobs of a sweep, with the state of those that have not written any status.

    Args:
        jobs: by their files, this machine and SLURM.
        age: seconds since the sweep was started last.
        starter: of the jobs that have not begun.
        slurm_answers: whether SLURM was asked about its jobs, and answered.
    """
    quiet = min([age, *(job.age for job in jobs if job.age is not None)])
    active = any(job.at_work for job in jobs) or quiet <= SILENT
    if any(job.age is not None for job in jobs):
        why = f"no job of the sweep has been at work for {lasting(quiet)}: has its command ended?"
    elif starter is Starter.REFUSED:
        why = "SLURM has not taken the sweep's jobs"
    elif starter is Starter.QUEUE:
        why = "whether SLURM has it, nothing here tells"
    else:
        why = f"no job of the sweep has begun in {lasting(quiet)}: was it refused?"

    def settled(job: Job) -> Job:
        if job.status or job.ended or job.state not in ("waiting", "not begun"):
            return job
        if job.slurm:
            note = f"submitted to SLURM as {job.slurm}, which cannot be asked from here"
            return job if slurm_answers else replace(job, state="not begun", note=note)
        if starter is Starter.GONE:
            note = "the process that did the jobs one after another is gone"
            return replace(job, state="not begun", ended=True, note=note)
        if starter is Starter.ALIVE:
            return replace(job, state="starting", note="") if job.state == "not begun" else job
        if job.state == "not begun" or active:
            return job
        return replace(job, state="not begun", ended=quiet > STILL and starter is not Starter.QUEUE, note=why)

    return tuple(map(settled, jobs))


def overrides_of(folder: Path) -> tuple[str, ...]:
    """Return the overrides that Hydra composed a run from; none where it did not."""
    overrides = read_yaml(folder / ".hydra" / "overrides.yaml")
    return tuple(map(str, overrides)) if isinstance(overrides, list) else ()


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; None where there is none, or it is damaged."""
    try:
        # libyaml, where it is there, is ten times as fast: hydra.yaml is long.
        return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return None


def _verdict(folder: Path) -> str:
    return str(read_object(folder / "diagnosis.json").get("verdict", ""))


def _error(failure: Mapping[str, Any]) -> str:
    return " ".join(str(failure.get("error", "")).split())


def modified(path: Path) -> float:
    """Return when a file was written last, seconds since 1970; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
