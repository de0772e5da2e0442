"""What the jobs of a sweep say of themselves, read from their folders: nothing is written and no lock is taken."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from losskernel.runs.status.status_file import ENDS, read_status, seconds_of

SILENT = 60.0  # seconds without a sign of life, of which there is one every five
STILL = 600.0  # seconds without progress, of a process that lives
# What a run leaves first, and what it leaves last.
_MARKS = ("status.json", "config.yaml", "failure.json", "metrics.json", "traces.zarr", ".hydra")
# States of SLURM's jobs that go on by themselves.
_QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "HELD")


@dataclass(frozen=True)
class Job:
    """One run as seen from its folder.

    Attributes:
        folder: of the run.
        name: among the jobs of its sweep.
        words: Hydra's overrides.
        state: one of the heartbeat's, or "waiting" (its turn will come, or it is in the queue again), "not begun"
            (nobody can tell whether it will, or it will not), "silent" (it should be at work and says nothing),
            "unfinished" (of a run of before there were signs of life).
        ended: whether nothing is to be expected of it by itself.
        age: seconds since the last sign of life; None where there was none.
        verdict: of its diagnosis; "" before.
        note: what is wrong, or what is waited for; "" if nothing.
        slurm: id of its SLURM job; "" without one.
        status: what it said last.
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
        """Whether it goes on just now."""
        return self.state not in (*ENDS, "waiting", "not begun", "silent", "unfinished")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's; a sweep's holds what Hydra knows of all its jobs."""
    if any((folder / name).exists() for name in ("multirun.yaml", "jobs.json", "calibration.json")):
        return False
    return any((folder / name).exists() for name in _MARKS)


def job_of(folder: Path, now: float) -> Job:
    """Return what a run's own files tell.

    Args:
        folder: of the run.
        now: seconds since 1970.
    """
    status, words = read_status(folder), words_of(folder)
    failed, failure = _when(folder / "failure.json"), _read(folder / "failure.json")
    job = Job(folder, folder.name, words)
    if status is None:
        return _of_before(job, failure, now)
    said = seconds_of(status.get("time")) or 0.0
    job = replace(
        job,
        state=str(status.get("state", "starting")),
        age=max(0.0, now - said),
        slurm=str(status.get("slurm_array") or status.get("slurm_job") or ""),
        note=str(status.get("error") or ""),
        status=status,
    )
    # Time stamps are whole seconds. What a run says at its end is noted twice, and a record may take its time between.
    if failure and failed > said + 1 and not (job.note and _error(failure).startswith(job.note)):
        job = replace(job, state="failed", age=max(0.0, now - failed), note=_error(failure))
    if job.state == "finished":
        job = replace(job, note="", verdict=str(status.get("verdict") or "") or _verdict(folder))
    if job.state in ENDS:
        return replace(job, ended=True)
    if (job.age or 0.0) > SILENT:
        return replace(job, state="silent", note="dead or stuck")
    still = now - (seconds_of(status.get("advanced")) or now)
    counted = job.state in ("training", "sampling")
    return replace(job, note=f"alive, but no further since {still / 60:.0f} min" if counted and still > STILL else "")


def words_of(folder: Path) -> tuple[str, ...]:
    """Return the overrides that Hydra composed a run from; none where it did not."""
    found = read_yaml(folder / ".hydra" / "overrides.yaml")
    return tuple(map(str, found)) if isinstance(found, list) else ()


def read_yaml(path: Path) -> Any:
    """Return what a file of YAML holds; None where there is none, or it is damaged."""
    try:
        # libyaml, where it is there, is ten times as fast: Hydra's own part is long.
        return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return None


def looked_up(job: Job, host: str, began: int | None) -> Job:
    """Return a job with what its own machine knows of its process.

    Args:
        job: as its files tell.
        host: this machine.
        began: when a process of its number began here; None where there is none.
    """
    told = job.status.get("process_began")
    if job.status.get("host") != host or told is None or not (job.at_work or job.state == "silent"):
        return job
    process = f"process {job.status.get('process')}"
    if began == told:
        stuck = f"{process} is there, and stopped or stuck"
        return replace(job, note=stuck) if job.state == "silent" else job
    return replace(job, state="silent", ended=True, note=f"{process} is gone: killed?")


def queued(job: Job, states: Mapping[str, str]) -> Job:
    """Return a job with what SLURM says of it.

    Args:
        job: as its files tell.
        states: id -> state of all that SLURM remembers.
    """
    if not job.slurm or job.state in ("finished", "failed") or job.at_work:
        return job
    state = states.get(job.slurm)
    if state in _QUEUED:
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


def _of_before(job: Job, failure: dict[str, Any], now: float) -> Job:
    """Return what can be told of a run that says nothing: not begun, or of before there were signs of life."""
    folder = job.folder
    traces = folder / "traces.zarr"
    signs = [_when(path) for path in (folder / "metrics.json", traces / "resume.pt", traces, folder / "config.yaml")]
    age = now - max(signs) if max(signs) > 0 else None
    if (folder / "metrics.json").is_file():
        return replace(job, state="finished", ended=True, age=age, verdict=_verdict(folder))
    if failure:
        age = now - _when(folder / "failure.json")
        return replace(job, state="failed", ended=True, age=age, note=_error(failure))
    if age is not None:
        return replace(job, state="unfinished", ended=True, age=age, note="it gives no signs of life")
    composed = _when(folder / ".hydra" / "overrides.yaml")
    if composed == 0:
        return job
    age = max(0.0, now - composed)
    if age <= SILENT:
        return replace(job, state="starting", age=age)
    # What is refused leaves no word where it was started alone, and large data take their time.
    note = "it was refused, or killed, or is still at its model and data"
    return replace(job, state="not begun", ended=age > STILL, age=age, note=note)


def _verdict(folder: Path) -> str:
    return str(_read(folder / "diagnosis.json").get("verdict", ""))


def _error(failure: Mapping[str, Any]) -> str:
    return " ".join(str(failure.get("error", "")).split())


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _when(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
