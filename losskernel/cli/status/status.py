"""losskernel-status: what the jobs of a sweep are at, while they run; it reads alone, and quickly."""

import argparse
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from losskernel.cli.launchers import Slurm
from losskernel.cli.status.jobs import Job, looked_up, queued
from losskernel.cli.status.pending import is_slurm, one_process, settled
from losskernel.cli.status.sweeps import Sweep, command_of, sweeps_in
from losskernel.cli.status.table import counted, seconds_left, swept, table
from losskernel.runs.status.status_file import process_began

Ask = Callable[[Sequence[str]], Mapping[str, str] | None]


def status_from(arguments: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> int:
    """Print where the jobs in some folders stand; return the exit code, 1 where there is none.

    Args:
        arguments: of the command line.
        sleep: waits some seconds.
    """
    given = _parser().parse_args(arguments)
    while True:
        found = looked(given.folders, time.time(), asked_of_slurm)
        if not found:
            folders = ", ".join(given.folders)
            print(f"losskernel: {folders}: no run is there; give the folder of a run or of a sweep", file=sys.stderr)
            return 1
        try:
            print(_again(given) + (_json(found) if given.json else _tables(found)), flush=True)
        except BrokenPipeError:  # `| head` has read enough; what is left in the buffer must not be tried again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if given.watch is None or all(job.ended for sweep in found for job in (*sweep.jobs, *sweep.joined)):
            return 0
        try:
            sleep(given.watch)
        except KeyboardInterrupt:
            return 0


def looked(folders: Sequence[str], now: float, ask: Ask) -> list[Sweep]:
    """Return the sweeps in some folders, with what this machine and SLURM know of their jobs.

    Args:
        folders: of runs, sweeps, or folders with them.
        now: seconds since 1970.
        ask: ids of SLURM's jobs -> states of those that it remembers; None where it does not answer.
    """
    here = socket.gethostname()

    def own(job: Job) -> Job:
        return looked_up(job, here, _began(job))

    found = [sweep for folder in folders for sweep in sweeps_in(Path(folder), now)]
    found = [replace(each, jobs=tuple(map(own, each.jobs)), joined=tuple(map(own, each.joined))) for each in found]
    doubtful = [job.slurm for sweep in found for job in sweep.jobs if job.slurm and _doubtful(job)]
    states = ask(doubtful) if doubtful else None
    if states is not None:
        found = [replace(sweep, jobs=tuple(queued(job, states) for job in sweep.jobs)) for sweep in found]
    return [_settled(sweep, here, now, states is not None) for sweep in found]


def _settled(sweep: Sweep, here: str, now: float, answers: bool) -> Sweep:
    """Return a sweep with what can be told of the jobs that have said nothing."""
    told = one_process(sweep.jobs, sweep.launcher, sweep.launched)
    own = told is not None and told.status.get("host") == here and told.status.get("process_began") is not None
    lives = _began(told) == told.status["process_began"] if told is not None and own else None
    slurm = is_slurm(sweep.launcher)
    age = now - sweep.launched
    jobs = settled(sweep.jobs, age, lives=lives, slurm=slurm, took=sweep.taken, answers=answers)
    return replace(sweep, jobs=jobs)


def _began(job: Job) -> int | None:
    """Return when a process of this machine began that has the number of a job's; None where there is none."""
    process = job.status.get("process")
    return process_began(process) if isinstance(process, int) else None


def _doubtful(job: Job) -> bool:
    return not job.at_work and job.state not in ("finished", "failed")


def asked_of_slurm(ids: Sequence[str]) -> Mapping[str, str] | None:
    """Ask SLURM once for all jobs; None where there is none."""
    if shutil.which("squeue") is None:
        return None
    return Slurm(",".join(sorted({each.partition("_")[0] for each in ids})))(ids)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("losskernel-status", description="Where the jobs of a sweep, or runs, stand.")
    parser.add_argument("folders", nargs="*", default=["outputs"], help="of runs, of sweeps, or of both (outputs)")
    parser.add_argument("--watch", type=_seconds, metavar="SECONDS", help="look again until all have ended")
    parser.add_argument("--json", action="store_true", help="for programs: a list of sweeps with their jobs")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {text}")
    return seconds


def _again(given: argparse.Namespace) -> str:
    """Return what clears the terminal before the next look; a log keeps all of them."""
    clears = given.watch is not None and not given.json and sys.stdout.isatty()
    return "\033[H\033[2J" if clears else ""


def _tables(found: Sequence[Sweep]) -> str:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    parts = [table(sweep, width, command_of) for sweep in found]
    if len(found) > 1:
        parts.append(f"in all {counted([job for sweep in found for job in sweep.jobs])}")
    return "\n\n".join(parts)


def _json(found: Sequence[Sweep]) -> str:
    sweeps = []
    for sweep in found:
        named = zip(sweep.jobs, swept(sweep.jobs), strict=True)
        jobs = [asdict(job) | {"folder": str(job.folder), "swept": words} for job, words in named]
        joined = [asdict(job) | {"folder": str(job.folder)} for job in sweep.joined]
        left, at_least = seconds_left(sweep.jobs)
        told: dict[str, Any] = {"folder": str(sweep.folder), "jobs": jobs, "seconds_left": left}
        sweeps.append(told | {"at_least": at_least, "command": sweep.command, "joined": joined})
    return json.dumps(sweeps, indent=1)
