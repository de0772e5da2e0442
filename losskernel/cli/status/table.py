"""A table of jobs for a terminal: folded where it is narrow, and below it what went wrong and how to go on."""

import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from losskernel.cli.status.jobs import Job
from losskernel.cli.status.pending import log_of
from losskernel.cli.status.sweeps import Sweep
from losskernel.runs.status.status_file import seconds_of
from losskernel.training.progress import lasting, rate

_HEADS = ("job", "swept", "state", "draws", "a second", "left", "seen", "where", "verdict")
# Where the terminal is narrow, and where it is narrower still.
_FOLDED = (("swept", "where", "verdict"), ("swept", "a second", "seen", "where", "verdict"))
_SPACE = "  "
_MOST = 8  # jobs named in one line
_KILLED = "was killed"  # what whoever started a job leaves for one that could say nothing
_SO_FAR = "R-hat and ESS: of the probes' mean loss, so far; the diagnosis follows when all is drawn"


def table(sweep: Sweep, width: int | None, command_of: Callable[[Job], str]) -> str:
    """Return the table of a sweep, with what went wrong, totals and the command that goes on.

    Args:
        sweep: its jobs.
        width: of the terminal; None folds nothing.
        command_of: what continues a run that belongs to no sweep.
    """
    words = [*swept(sweep.jobs), *(" ".join(job.words) for job in sweep.joined)]
    rows = [*sweep.jobs, *sweep.joined]
    cells = [_cells(job, own) for job, own in zip(rows, words, strict=True)]
    lines = _plain(cells, _HEADS)
    if width is not None and max(map(len, lines)) > width:
        folded = [_narrow(cells, each, width) for each in _FOLDED]
        lines = next((each for each in folded if max(map(len, each)) <= width), folded[-1])
    lines += [f"{sweep.folder}: {totals(sweep)}"]
    if any(_so_far(job) and not job.verdict for job in sweep.jobs):
        lines.append(_SO_FAR)
    return "\n".join([*lines, *_notes(rows), *_commands(sweep, command_of)])


def _notes(jobs: Sequence[Job]) -> list[str]:
    """Return what is wrong with jobs, or waited for; what is the same of several in one line."""
    told: dict[str, list[str]] = {}
    for job in jobs:
        if job.note:
            log = log_of(job) if job.state == "failed" and job.note.count("; ") == 0 else ""
            told.setdefault(f"{job.state}: {job.note}{f'; log {log}' * bool(log)}", []).append(job.name)
    return [f"{_listed(names)} {words}" for words, names in told.items()]


def _commands(sweep: Sweep, command_of: Callable[[Job], str]) -> list[str]:
    """Return the commands that go on with what has ended unfinished; none that only meets an error again.

    What an error says of its remedy stands in its own line.
    """
    lost = [job for job in sweep.jobs if job.ended and job.state != "finished"]
    again = [job for job in lost if job.state != "failed" or job.note.startswith(_KILLED)]
    refused = [job for job in again if job.state == "not begun" and not job.slurm]
    if sweep.command and len(refused) < len(sweep.jobs):  # it began: what has not comes with the rest
        refused = []
    # A second process is refused where a first is at work.
    when = "" if all(job.ended for job in sweep.jobs) or not sweep.command else "once the others have ended, "
    lines: dict[str, None] = {}
    for job in again:
        command = sweep.command or command_of(job)
        how = "to begin, or to be told why not" if job in refused else f"{when}go on with"
        lines |= {f"{how}: {command}": None} if command else {}
    failed = [job.name for job in lost if job not in again]
    if sweep.command and lines and failed:
        lines[f"that repeats {_listed(failed)} too, whose error comes again unless it is mended"] = None
    return list(lines)


def _listed(names: Sequence[str]) -> str:
    rest = [f"{len(names) - _MOST} others"] if len(names) > _MOST else []
    return ", ".join([*names[:_MOST], *rest])


def totals(sweep: Sweep) -> str:
    """Return how many jobs are in which state, and how long they will take, analyses of those at work left out."""
    told = counted(sweep.jobs) + (f"; {len(sweep.joined)} joined" if sweep.joined else "")
    seconds, at_least = seconds_left(sweep.jobs)
    if seconds is None:
        return told
    return f"{told}; {'at least' if at_least else 'about'} {lasting(seconds)} left"


def counted(jobs: Sequence[Job]) -> str:
    """Return how many jobs are in which state."""
    states = Counter(job.state for job in jobs)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{len(jobs)} job{'s' * (len(jobs) != 1)}: {told}"


def seconds_left(jobs: Sequence[Job]) -> tuple[float | None, bool]:
    """Return the seconds until all jobs that go on have sampled, and whether it may well be longer.

    Those that wait take as long as the others did or will, as many at a time as are at work now.
    """
    at_work, waiting = [job for job in jobs if job.at_work], [job for job in jobs if _waits(job)]
    left = [float(job.status.get("seconds_left") or 0.0) for job in at_work]
    unknown = [job for job in at_work if _unknown(job)]
    if not at_work or len(unknown) == len(at_work):
        return None, True
    lengths = [_spent(job) for job in jobs if job.state == "finished"]
    lengths += [_spent(job) + own for job, own in zip(at_work, left, strict=True)]
    to_come = len(waiting) * statistics.median(lengths)
    at_least = bool(unknown) or any(job.status.get("at_least") for job in at_work)
    at_least |= any(job.state == "not begun" and not job.ended for job in jobs)
    at_least |= bool(waiting) and all(job.state != "finished" for job in jobs)  # how long one takes in all nobody knows
    return max(max(left), (sum(left) + to_come) / len(at_work)), at_least


def swept(jobs: Sequence[Job]) -> list[str]:
    """Return what tells the jobs apart, in few words."""
    common = set.intersection(*(set(job.words) for job in jobs)) if len(jobs) > 1 else set(jobs[0].words)
    own = [[word for word in job.words if word not in common and not word.startswith("paths.")] for job in jobs]
    keys = {word.partition("=")[0] for words in own for word in words}
    last = Counter(key.rpartition(".")[2] for key in keys)

    def short(word: str) -> str:
        key, _, value = word.partition("=")
        end = key.rpartition(".")[2]
        return f"{end if last[end] == 1 else key}={value}"

    return [" ".join(map(short, words)) for words in own]


def _cells(job: Job, words: str) -> dict[str, str]:
    status = job.status
    speed, left = status.get("draws_per_second"), status.get("seconds_left")
    told = job.at_work and left is not None
    return {
        "job": job.name,
        "swept": words,
        "state": _state(job),
        "draws": _draws(job),
        "a second": rate(speed) if job.at_work and speed else "",
        "left": f"{'> ' * bool(status.get('at_least'))}{lasting(left)}" if told and left is not None else "",
        "seen": "" if job.age is None else f"{lasting(job.age)} ago",
        "where": " ".join(str(part) for part in (status.get("host"), job.slurm) if part),
        "verdict": job.verdict or _so_far(job),
    }


def _state(job: Job) -> str:
    doing = str(job.status.get("doing") or "")
    state = "burn-in" if doing.endswith(", burn-in") else "judging" if doing.endswith(", judging") else job.state
    state = state if job.at_work else job.state
    kernel, again = job.status.get("kernel"), job.status.get("restarts")
    sampling = job.state == "sampling" or (job.status.get("draws") != job.status.get("of") and not job.at_work)
    what = doing if job.state in ("preparing", "analysing") and ", " not in doing else kernel if sampling else ""
    return f"{state}{f' {what}' if what else ''}{f' (restart {again})' if again and job.at_work else ''}"


def _draws(job: Job) -> str:
    """Return how far it has come: in draws of all chains, before the first and in training in steps."""
    status = job.status
    step, steps, draws, of = (status.get(name) for name in ("step", "steps", "draws", "of"))
    if step is not None and steps and not draws and job.at_work:
        return f"step {step:,}/{steps:,}"
    return f"{draws:,}/{of:,}" if draws is not None and of else ""


def _so_far(job: Job) -> str:
    found: Mapping[str, Any] = job.status.get("so_far") or {}
    return str(found.get("words", "")) if job.at_work or job.state in ("silent", "waiting", "interrupted") else ""


def _waits(job: Job) -> bool:
    return job.state == "waiting" and not job.ended


def _unknown(job: Job) -> bool:
    """Whether nothing is known of how long a job at work will sample: before, not after."""
    return job.status.get("seconds_left") is None and job.state != "analysing"


def _spent(job: Job) -> float:
    begun, said = (seconds_of(job.status.get(name)) for name in ("started", "time"))
    return max(0.0, said - begun) if begun is not None and said is not None else 0.0


def _plain(cells: Sequence[Mapping[str, str]], heads: Sequence[str]) -> list[str]:
    """Return aligned lines; columns that hold nothing are left out, numbers stand to the right."""
    shown = [head for head in heads if head == "job" or any(row[head] for row in cells)]
    widths = {head: max(len(head), *(len(row[head]) for row in cells)) for head in shown}
    right = ("draws", "a second", "left", "seen")

    def line(row: Mapping[str, str]) -> str:
        parts = [row[head].rjust(widths[head]) if head in right else row[head].ljust(widths[head]) for head in shown]
        return _SPACE.join(parts).rstrip()

    return [line({head: head for head in shown}), *map(line, cells)]


def _narrow(cells: Sequence[Mapping[str, str]], folded: Sequence[str], width: int) -> list[str]:
    """Return lines with some columns below each job's own."""
    head, *rows = _plain(cells, [each for each in _HEADS if each not in folded])
    lines = [head]
    for row, line in zip(cells, rows, strict=True):
        more = "; ".join(f"{row[each]}{' a second' * (each == 'a second')}" for each in folded if row[each])
        lines += [line, *textwrap.wrap(more, max(width, 20), initial_indent="    ", subsequent_indent="    ")]
    return lines
