"""losskernel-status: the state of a sweep's jobs while they run; it only reads, and loads nothing slow."""

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

from losskernel.cli.job_status.job_state import Job, Starter, apply_slurm_state, check_process, settle_pending
from losskernel.cli.job_status.sweeps import Sweep, single_process, sweeps_in
from losskernel.cli.job_status.table import counted, seconds_left, swept, table
from losskernel.cli.launchers.queue import SlurmQueue
from losskernel.runs.status.status_file import process_began

AskSlurm = Callable[[Sequence[str]], Mapping[str, str] | None]


def status_from(arguments: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> int:
    """Print the state of the jobs in some folders.

    Args:
        arguments: of the command line.
        sleep: waits some seconds.

    Returns:
        The exit code, 1 where there are no jobs.
    """
    options = _parser().parse_args(arguments)
    while True:
        # Read anew each time: jobs and sweeps come while it watches.
        sweeps = read_sweeps(options.folders, time.time(), ask_slurm)
        if not sweeps:
            folders = ", ".join(options.folders)
            print(f"losskernel: {folders}: no run is there; give the folder of a run or of a sweep", file=sys.stderr)
            return 1
        try:
            print(_clear_screen(options) + (_json(sweeps) if options.json else _tables(sweeps)), flush=True)
        except BrokenPipeError:
            # `| head` has closed the pipe. Python would try to flush the rest at exit, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if options.watch is None or all(job.ended for sweep in sweeps for job in (*sweep.jobs, *sweep.joined)):
            return 0
        try:
            sleep(options.watch)
        except KeyboardInterrupt:
            return 0


def read_sweeps(folders: Sequence[str], now: float, ask: AskSlurm) -> list[Sweep]:
    """Return the sweeps in some folders, with what this machine and SLURM know of their jobs.

    Args:
        folders: of runs, sweeps, or folders with them.
        now: seconds since 1970.
        ask: ids of SLURM's jobs -> states of those that it remembers; None where it does not answer.
    """
    host = socket.gethostname()

    def checked(jobs: Sequence[Job]) -> tuple[Job, ...]:
        return tuple(check_process(job, host, _process_began(job)) for job in jobs)

    sweeps = [sweep for folder in folders for sweep in sweeps_in(Path(folder), now)]
    sweeps = [replace(sweep, jobs=checked(sweep.jobs), joined=checked(sweep.joined)) for sweep in sweeps]
    # Jobs that run or have ended say so themselves; squeue is slow, and asked about the others alone.
    in_doubt = [job.slurm for sweep in sweeps for job in sweep.jobs if job.slurm and _is_in_doubt(job)]
    states = ask(in_doubt) if in_doubt else None  # one question for all
    if states is not None:
        sweeps = [replace(sweep, jobs=tuple(apply_slurm_state(job, states) for job in sweep.jobs)) for sweep in sweeps]
    return [_settled(sweep, host, now, states is not None) for sweep in sweeps]


def _settled(sweep: Sweep, host: str, now: float, slurm_answers: bool) -> Sweep:
    """Return a sweep with the state of its jobs that have not begun."""
    starter, process = sweep.starter, single_process(sweep)
    # Only on the machine where the process runs can its number be looked up; numbers are used again, hence its start.
    if process is not None and process.status.get("host") == host and process.status.get("process_began") is not None:
        alive = _process_began(process) == process.status["process_began"]
        starter = Starter.ALIVE if alive else Starter.GONE
    return replace(sweep, jobs=settle_pending(sweep.jobs, now - sweep.launched, starter, slurm_answers))


def _process_began(job: Job) -> int | None:
    """Return when a process of this machine began that has the number of a job's; None where there is none."""
    process = job.status.get("process")
    return process_began(process) if isinstance(process, int) else None


def _is_in_doubt(job: Job) -> bool:
    return not job.at_work and job.state not in ("finished", "failed")


def ask_slurm(ids: Sequence[str]) -> Mapping[str, str] | None:
    """Ask SLURM once for all jobs; None where there is none."""
    if shutil.which("squeue") is None:
        return None
    return SlurmQueue(",".join(sorted({job.partition("_")[0] for job in ids})))(ids)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("losskernel-status", description="The state of the jobs of a sweep, or of runs.")
    parser.add_argument("folders", nargs="*", default=["outputs"], help="of runs, of sweeps, or of both (outputs)")
    parser.add_argument("--watch", type=_seconds, metavar="SECONDS", help="look again until all have ended")
    parser.add_argument("--json", action="store_true", help="for programs: a list of sweeps with their jobs")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {text}")
    return seconds


def _clear_screen(options: argparse.Namespace) -> str:
    """Return what clears the terminal before the next table; a log keeps all of them."""
    clears = options.watch is not None and not options.json and sys.stdout.isatty()
    return "\033[H\033[2J" if clears else ""


def _tables(sweeps: Sequence[Sweep]) -> str:
    # Lines of a pipe or a file are not folded, so that grep finds a job with all that belongs to it.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    parts = [table(sweep, width) for sweep in sweeps]
    if len(sweeps) > 1:
        parts.append(f"in all {counted([job for sweep in sweeps for job in sweep.jobs])}")
    return "\n\n".join(parts)


def _json(sweeps: Sequence[Sweep]) -> str:
    def plain(job: Job) -> dict[str, Any]:
        return asdict(job) | {"folder": str(job.folder)}

    listed = []
    for sweep in sweeps:
        seconds, at_least = seconds_left(sweep.jobs)
        jobs = [plain(job) | {"swept": words} for job, words in zip(sweep.jobs, swept(sweep.jobs), strict=True)]
        joined = [plain(job) for job in sweep.joined]
        facts = {"folder": str(sweep.folder), "jobs": jobs, "seconds_left": seconds, "at_least": at_least}
        listed.append(facts | {"command": sweep.command, "joined": joined})
    return json.dumps(listed, indent=1)
