"""The jobs of a sweep as the process that starts them knows them, and how each that failed is told to the user."""

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, env_override, filter_overrides
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from losskernel.cli.commands.compare import note_failure
from losskernel.errors import Interrupted, TraceError, require

FAILURE = "failure.json"  # what a job leaves where it fails, for the comparison


@dataclass(frozen=True)
class SweepJob:
    """One job of a sweep.

    Attributes:
        number: of the sweep.
        overrides: Hydra's words for it.
        words: those that tell it from the others.
        folder: of its run.
        config: composed, as far as can be before it runs.
    """

    number: int
    overrides: list[str]
    words: str
    folder: Path
    config: DictConfig

    @property
    def name(self) -> str:
        """What the user knows it by."""
        return _named(self.number, self.words)


def refuse_alone(now: Any) -> None:
    """Raise InputError where words that are for a sweep are given to a run of its own: Hydra would pass them over.

    Args:
        now: HydraConfig.get().
    """
    if now.mode == RunMode.MULTIRUN:
        return
    name = now.runtime.choices.get("hydra/launcher")
    alone = name not in (None, "basic")
    require(not alone, f"hydra/launcher={name} starts the jobs of a sweep, of one job too: losskernel -m ...; add -m")
    folder = _given(now, "paths.sweep")
    require(
        folder is None,
        f"paths.sweep={folder} names the folder of a sweep, and this is one run; write paths.run={folder}, or add -m",
    )


def refuse_one_folder(sweeper: Any) -> None:
    """Raise InputError where a sweep is given the folder of one run: Hydra would pass it over.

    Args:
        sweeper: with config.
    """
    folder = _given(sweeper.config.hydra, "paths.run")
    require(
        folder is None,
        f"paths.run={folder} names the folder of one run, and -m makes a sweep; write paths.sweep={folder}, in which "
        "every job has a folder, or leave -m out",
    )


def _given(now: Any, key: str) -> str | None:
    """Return the value that the command line gives to a key."""
    words = [str(word).lstrip("+").partition("=") for word in now.overrides.task]
    return next((value for name, _, value in words if name == key), None)


def jobs_of(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[SweepJob]:
    """Return the jobs that Hydra hands to a launcher; `first` is the number of the first."""
    shared = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
    before, jobs = HydraConfig.instance().cfg, []
    try:
        for number, overrides in enumerate(map(list, job_overrides), first):
            config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
            with open_dict(config):
                config.hydra.job.num = number
            HydraConfig.instance().set_config(config)  # names of folders may ask it
            folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
            with read_write(config), open_dict(config):
                del config["hydra"]
            own = filter_overrides([word for word in overrides if word not in shared])
            jobs.append(SweepJob(number, overrides, " ".join(own), folder, config))
    finally:
        HydraConfig.instance().cfg = before
    return jobs


def at_work_on(now: Any) -> str:
    """Return what the user knows the job of this process by; in its own process a job knows the others by its sweep.

    Args:
        now: HydraConfig.get().
    """
    from losskernel.cli.config.run_names import swept

    keys = swept(Path(now.sweep.dir))
    words = [word for word in now.overrides.task if word.partition("=")[0].lstrip("+~") in keys]
    return _named(now.job.num, " ".join(words))


def _named(number: int, words: str) -> str:
    return f"job {number} ({words})" if words else f"job {number}"


def arguments_of(job: SweepJob) -> tuple[Any, ...]:
    """Return what submitit's launcher takes to do one job."""
    return job.overrides, "hydra.sweep.dir", job.number, f"job_id_for_{job.number}", Singleton.get_state()


def as_the_user() -> AbstractContextManager[None]:
    """While it lasts, processes are started that show tracebacks if the user wants them, not because we do."""
    from losskernel import cli

    return env_override({"HYDRA_FULL_ERROR": "1" if cli._WANTS_TRACEBACK else "0"})


def failed(job: SweepJob, line: str, error: Exception | None = None) -> JobReturn:
    """Tell the user of a job that failed, and return that for Hydra.

    Args:
        job: which.
        line: what became of it, where its log lies, what to do.
        error: what it raised; None where it ended without a word, so that the comparison hears of it here.
    """
    from losskernel import cli

    print(f"losskernel: {job.name} {line}", file=sys.stderr)
    if error is None:
        error = TraceError(line)
        note_failure(job.folder, job.config, error)
    cli._reported.append(error)
    made = JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
    made.return_value = error
    return made


def ended(job: SweepJob, place: Any, how: str, remedy: str) -> JobReturn:
    """Tell the user of a job that left no result: stopped by a signal, of which it could say so itself, or killed.

    Args:
        job: which.
        place: submitit's job.
        how: what else is known of its end; may be "".
        remedy: how it is continued.
    """
    log, start = place.paths.stdout, place.paths.submitted_pickle
    where = f"log {shown(log)}" if log.exists() else "no log: do compute nodes see this folder?"
    words = f"{how}; folder {job.folder}, {where}; {remedy}"
    note = job.folder / FAILURE
    try:
        stopped = note.stat().st_mtime >= start.stat().st_mtime
        own = str(json.loads(note.read_text(encoding="utf-8"))["error"]) if stopped else ""
        own = own.partition("; the same command")[0]  # one remedy is enough
    except (OSError, ValueError, KeyError):
        own = ""
    return failed(job, f"{own}{words}", TraceError(own)) if own else failed(job, f"was killed{words}")


def shown(path: Path) -> Path:
    """Return a path as short as it can be written from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def continues(now: Any) -> str:
    """Say how a sweep is continued.

    Args:
        now: HydraConfig.get() of one of its jobs, or its own configuration's part hydra.
    """
    given = _given(now, "paths.sweep") is not None
    return "the same command" if given else f"the same command with paths.sweep={now.sweep.dir}"


def within_a_sweep(error: Exception, now: Any) -> None:
    """Have a job that was stopped say how its sweep is continued; a run knows only how it would be by itself.

    Args:
        error: what the job raised.
        now: HydraConfig.get().
    """
    if isinstance(error, Interrupted):
        error.remedy = f"{continues(now)} goes on from there"
