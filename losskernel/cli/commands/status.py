"""losskernel-status: the state of a sweep's jobs while they run; it only reads, and loads nothing slow."""

import argparse
import json
import os
import shutil
import socket
import statistics
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from losskernel.cli.job_status.job_state import Job, Starter, apply_slurm_state, check_process, settle_pending
from losskernel.cli.job_status.sweeps import Sweep, command_of, log_of, single_process, sweeps_in
from losskernel.cli.launchers.queue import SlurmQueue
from losskernel.runs.status.status_file import process_began, seconds_of
from losskernel.training.progress import lasting, rate

# The table.
_HEADS = ("job", "swept", "state", "draws", "a second", "left", "seen", "where", "verdict")
_NUMBERS = ("draws", "a second", "left", "seen")  # right-aligned
# Columns that go below each row where the terminal is narrow, and where it is narrower still.
_FOLDED = (("swept", "where", "verdict"), ("swept", "a second", "seen", "where", "verdict"))
_SPACE = "  "
_MOST = 8  # jobs named in one line
_KILLED = "was killed"  # how the process that started a job reports one that left no result
_INTERIM = "R-hat and ESS: of the probes' mean loss, so far; the diagnosis follows when all is drawn"

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
    # The terminal is cleared before the next table; a log keeps all of them.
    clear = "\033[H\033[2J" * (options.watch is not None and not options.json and sys.stdout.isatty())
    while True:
        # Read anew each time: jobs and sweeps come while it watches.
        sweeps = read_sweeps(options.folders, time.time(), ask_slurm)
        if not sweeps:
            folders = ", ".join(options.folders)
            print(f"losskernel: {folders}: no run is there; give the folder of a run or of a sweep", file=sys.stderr)
            return 1
        try:
            print(clear + (_json(sweeps) if options.json else _tables(sweeps)), flush=True)
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


# The table of a sweep: folded where the terminal is narrow, and below it what went wrong and how to go on. Plain text,
# so that it can be piped and searched. rich would draw such tables too, but Lightning replaces its progress bar and
# model summary wherever rich is installed.


def table(sweep: Sweep, width: int | None) -> str:
    """Return the table of a sweep, with what went wrong, totals and the command that goes on.

    Args:
        sweep: its jobs.
        width: of the terminal; None folds nothing.
    """
    words = [*swept(sweep.jobs), *(" ".join(job.words) for job in sweep.joined)]
    rows = [*sweep.jobs, *sweep.joined]
    # Joined kernels are rows like jobs, but not among the jobs that the totals count.
    cells = [_cells(job, settings) for job, settings in zip(rows, words, strict=True)]
    lines = _aligned(cells, _HEADS)
    if width is not None and _width(lines) > width:
        narrow = [_folded(cells, columns, width) for columns in _FOLDED]
        lines = next((folded for folded in narrow if _width(folded) <= width), narrow[-1])
    lines += [f"{sweep.folder}: {totals(sweep)}"]
    if any(_interim(job) and not job.verdict for job in sweep.jobs):
        lines.append(_INTERIM)
    return "\n".join([*lines, *_notes(rows), *_commands(sweep)])


def totals(sweep: Sweep) -> str:
    """Return how many jobs are in which state, and how long they will sample."""
    joined = f"; {len(sweep.joined)} joined" if sweep.joined else ""
    seconds, at_least = seconds_left(sweep.jobs)
    left = "" if seconds is None else f"; {'at least' if at_least else 'about'} {lasting(seconds)} left"
    return f"{counted(sweep.jobs)}{joined}{left}"


def counted(jobs: Sequence[Job]) -> str:
    """Return how many jobs are in which state."""
    states = Counter(job.state for job in jobs)
    listed = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{len(jobs)} job{'s' * (len(jobs) != 1)}: {listed}"


def seconds_left(jobs: Sequence[Job]) -> tuple[float | None, bool]:
    """Return the seconds until all jobs have sampled, and whether that is only a lower bound.

    A waiting job is taken to last as long as the median of those that run or have finished, and as many are taken to
    run at a time as do now. None where no running job knows how long it will last.
    """
    running = [job for job in jobs if job.at_work]
    waiting = [job for job in jobs if job.state == "waiting" and not job.ended]
    # Without an estimate a job is before its sampling; while it analyses, it has none left.
    unknown = [job for job in running if job.status.get("seconds_left") is None and job.state != "analysing"]
    if len(unknown) == len(running):
        return None, True
    left = [float(job.status.get("seconds_left") or 0.0) for job in running]
    finished = [_elapsed(job) for job in jobs if job.state == "finished"]
    durations = finished + [_elapsed(job) + seconds for job, seconds in zip(running, left, strict=True)]
    work = sum(left) + len(waiting) * statistics.median(durations)
    lower_bound = (
        bool(unknown)
        or any(job.status.get("at_least") for job in running)
        or any(job.state == "not begun" and not job.ended for job in jobs)
        # Analyses follow the sampling, and only a finished job shows how long they take.
        or (bool(waiting) and not finished)
    )
    return max(max(left), work / len(running)), lower_bound


def swept(jobs: Sequence[Job]) -> list[str]:
    """Return the overrides that tell the jobs apart, with the last part of each key where that is unique."""
    # In a single run nothing is swept.
    common = set.intersection(*(set(job.words) for job in jobs)) if len(jobs) > 1 else set(jobs[0].words)
    distinct = [[word for word in job.words if word not in common and not word.startswith("paths.")] for job in jobs]
    keys = {word.partition("=")[0] for words in distinct for word in words}
    same_end = Counter(key.rpartition(".")[2] for key in keys)

    def short(word: str) -> str:
        key, _, value = word.partition("=")
        end = key.rpartition(".")[2]
        return f"{end if same_end[end] == 1 else key}={value}"

    return [" ".join(map(short, words)) for words in distinct]


def _notes(jobs: Sequence[Job]) -> list[str]:
    """Return what is wrong with jobs, or waited for; the same note of several jobs in one line."""
    names: dict[str, list[str]] = {}
    for job in jobs:
        if job.note:
            # An error with a remedy after "; " needs no log.
            log = log_of(job) if job.state == "failed" and "; " not in job.note else ""
            names.setdefault(f"{job.state}: {job.note}{f'; log {log}' * bool(log)}", []).append(job.name)
    return [f"{_listed(same)} {note}" for note, same in names.items()]


def _commands(sweep: Sweep) -> list[str]:
    """Return the commands that continue jobs which have ended unfinished.

    There is none for jobs whose own error would come again: the remedy is in the error's line.
    """
    lost = [job for job in sweep.jobs if job.ended and job.state != "finished"]
    again = [job for job in lost if job.state != "failed" or job.note.startswith(_KILLED)]
    refused = [job for job in again if job.state == "not begun" and not job.slurm]
    if sweep.command and len(refused) < len(sweep.jobs):  # the sweep did begin: the command continues the rest
        refused = []
    # While a process works in a run's folder, a second one is refused there.
    when = "" if all(job.ended for job in sweep.jobs) or not sweep.command else "once the others have ended, "
    lines: list[str] = []
    for job in again:
        command = sweep.command or command_of(job.folder)
        how = "to begin, or to be told why not" if job in refused else f"{when}go on with"
        lines += [f"{how}: {command}"] if command else []
    failed = [job.name for job in lost if job not in again]
    if sweep.command and lines and failed:
        lines.append(f"that repeats {_listed(failed)} too, whose error comes again unless it is mended")
    return list(dict.fromkeys(lines))


def _listed(names: Sequence[str]) -> str:
    rest = [f"{len(names) - _MOST} others"] if len(names) > _MOST else []
    return ", ".join([*names[:_MOST], *rest])


def _cells(job: Job, words: str) -> dict[str, str]:
    status = job.status
    speed, left = status.get("draws_per_second"), status.get("seconds_left")
    at_least = "> " * bool(status.get("at_least"))
    return {
        "job": job.name,
        "swept": words,
        "state": _state(job),
        "draws": _progress(job),
        "a second": rate(speed) if job.at_work and speed else "",
        "left": f"{at_least}{lasting(left)}" if job.at_work and left is not None else "",
        "seen": "" if job.age is None else f"{lasting(job.age)} ago",
        "where": " ".join(str(part) for part in (status.get("host"), job.slurm) if part),
        "verdict": job.verdict or _interim(job),
    }


def _state(job: Job) -> str:
    """Return the state with what exactly is done: `burn-in control (restart 2)`, `analysing embedding`."""
    doing, kernel = str(job.status.get("doing") or ""), job.status.get("kernel")
    if not job.at_work:
        unfinished = job.status.get("draws") != job.status.get("of")
        return f"{job.state} {kernel}" if kernel and unfinished else job.state
    state = next((part for part in ("burn-in", "checking steps") if doing.endswith(f", {part}")), job.state)
    detail = ""
    if job.state == "sampling":
        detail = kernel
    elif job.state in ("preparing", "analysing") and ", " not in doing:  # several at once are too long for the column
        detail = doing
    restarts = job.status.get("restarts")
    return f"{state}{f' {detail}' if detail else ''}{f' (restart {restarts})' if restarts else ''}"


def _progress(job: Job) -> str:
    """Return draws of all chains, or steps before the first draw and in training."""
    step, steps, draws, of = (job.status.get(name) for name in ("step", "steps", "draws", "of"))
    if step is not None and steps and not draws and job.at_work:
        return f"step {step:,}/{steps:,}"
    return f"{draws:,}/{of:,}" if draws is not None and of else ""


def _interim(job: Job) -> str:
    """Return the interim diagnosis of a job that has not ended."""
    interim = job.status.get("so_far") or {}
    return str(interim.get("words", "")) if job.at_work or job.state in ("silent", "waiting", "interrupted") else ""


def _elapsed(job: Job) -> float:
    """Return the seconds between a job's start and its last status."""
    start, last = (seconds_of(job.status.get(name)) for name in ("started", "time"))
    return max(0.0, last - start) if start is not None and last is not None else 0.0


def _width(lines: Sequence[str]) -> int:
    return max(map(len, lines))


def _aligned(cells: Sequence[Mapping[str, str]], heads: Sequence[str]) -> list[str]:
    """Return aligned lines; columns without content are left out."""
    shown = [head for head in heads if head == "job" or any(row[head] for row in cells)]
    widths = {head: max(len(head), *(len(row[head]) for row in cells)) for head in shown}

    def line(row: Mapping[str, str]) -> str:
        parts = [f"{row[head]:{'>' if head in _NUMBERS else '<'}{widths[head]}}" for head in shown]
        return _SPACE.join(parts).rstrip()

    return [line({head: head for head in shown}), *map(line, cells)]


def _folded(cells: Sequence[Mapping[str, str]], columns: Sequence[str], width: int) -> list[str]:
    """Return lines with some columns below each row."""
    head, *rows = _aligned(cells, [head for head in _HEADS if head not in columns])
    lines = [head]
    for row, line in zip(cells, rows, strict=True):
        more = "; ".join(f"{row[name]}{' a second' * (name == 'a second')}" for name in columns if row[name])
        lines += [line, *textwrap.wrap(more, max(width, 20), initial_indent="    ", subsequent_indent="    ")]
    return lines
