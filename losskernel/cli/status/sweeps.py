"""The jobs that a sweep will have, begun or not, and the command that continues it: from what Hydra left there."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from losskernel.cli.status.jobs import Job, is_run, job_of, read_yaml
from losskernel.cli.status.pending import raised, slurm_ids, taken

MULTIRUN = "multirun.yaml"
# Of a sweep around a run: name of each job -> its value.
_JOBS = "jobs.json"
# Where a sweep's joined kernels lie, and where in it they are made.
_JOINED, _MADE = "joined", ".partial"
_NUMBERED = ("${hydra:job.num}", "${hydra.job.num}")


@dataclass(frozen=True)
class Sweep:
    """Jobs that belong together, or runs that lie in one folder.

    Attributes:
        folder: where they lie.
        jobs: in their order.
        command: what continues those that are not finished; "" where nobody knows, or each has its own.
        joined: kernels of the chains of several jobs.
        launcher: what starts them, with its settings, as Hydra notes them.
        launched: when that was begun last, seconds since 1970.
        taken: whether SLURM took jobs of it; None where nobody can tell.
    """

    folder: Path
    jobs: tuple[Job, ...]
    command: str = ""
    joined: tuple[Job, ...] = ()
    launcher: Mapping[str, str] = field(default_factory=dict)
    launched: float = 0.0
    taken: bool | None = None


def sweeps_in(folder: Path, now: float, depth: int = 4) -> list[Sweep]:
    """Return the sweeps in a folder, or its runs as one; a run's folder is a sweep of one, before those around it.

    Args:
        folder: of a run, of a sweep, or of folders with them.
        now: seconds since 1970.
        depth: levels of folders that are looked through.
    """
    if is_run(folder):
        alone = Sweep(folder.parent, (job_of(folder, now),), _of_run(folder))
        around = [_sweep(each, now) for each in _folders(folder) if (each / _JOBS).is_file()]
        return [alone, *around]
    if (folder / MULTIRUN).is_file() or (folder / _JOBS).is_file():
        return [_sweep(folder, now)]
    inside = _folders(folder)
    runs = [each for each in inside if is_run(each)]
    found = [Sweep(folder, tuple(job_of(each, now) for each in runs))] if runs else []
    if depth > 0:
        for each in inside:
            within = sweeps_in(each, now, depth - 1)
            found += within[1:] if each in runs else within
    return found


def command_of(job: Job) -> str:
    """Return what continues a run of its own; "" where nobody knows."""
    return _of_run(job.folder)


def _sweep(folder: Path, now: float) -> Sweep:
    """Return a sweep with the jobs that have not begun."""
    begun = {each.name: job_of(each, now) for each in _folders(folder) if is_run(each)}
    hydra = (read_yaml(folder / MULTIRUN) or {}).get("hydra", {})
    told = [str(word) for word in (hydra.get("overrides") or {}).get("task") or []]
    params = (hydra.get("sweeper") or {}).get("params") or {}
    words = _combinations([*(f"{key}={value}" for key, value in params.items()), *told])
    launcher = {key: str(value) for key, value in (hydra.get("launcher") or {}).items()}
    ids = slurm_ids(folder, launcher, len(words))
    around = read_yaml(folder / _JOBS)
    if isinstance(around, dict):
        numbers = {str(name): _number(value, words) for name, value in around.items()}
        command = f"losskernel-{folder.name} run={shlex.quote(str(folder.parent))}"
    else:
        numbered = (hydra.get("sweep") or {}).get("subdir") in _NUMBERED
        numbers = {str(number): number for number in range(len(words) if numbered or not begun else 0)}
        command = _again(["-m"], hydra, told, "paths.sweep", folder)
    over = _over(folder)

    def expected(name: str, number: int | None) -> Job:
        job = Job(folder / name, name)
        return job if number is None else replace(job, words=words[number], slurm=ids.get(number, ""))

    jobs = [_unheard(expected(*each), begun.pop(each[0], None), over) for each in numbers.items()]
    every, joined = (*jobs, *begun.values()), _joined(folder, now)
    return Sweep(folder, every, command, joined, launcher, _launched(folder), taken(folder, launcher, ids))


def _number(value: Any, combinations: Sequence[Sequence[str]]) -> int | None:
    """Return the number of the job that has a value, of those that were started last; None where none was to be."""
    for number, words in enumerate(combinations):
        with suppress(yaml.YAMLError):
            if any(yaml.safe_load(word.partition("=")[2]) == value for word in words):
                return number
    return None


def _unheard(expected: Job, found: Job | None, over: bool) -> Job:
    """Return a job that has said nothing, with what the sweep's folder knows of it; others as they are."""
    job = found or expected
    if job.status or job.state not in ("waiting", "starting", "not begun"):
        return job
    job = replace(job, words=job.words or expected.words, slurm=expected.slurm)
    if fault := raised(job):
        return replace(job, state="failed", ended=True, note=fault)
    if over and job.state == "waiting":
        return replace(job, state="not begun", ended=True, note="the sweep has ended without it")
    return job


def _joined(folder: Path, now: float) -> tuple[Job, ...]:
    """Return the kernels of the chains of several jobs; one that is being made stands for the one that it replaces."""
    home = folder / _JOINED
    found = {each.name: each for each in _folders(home) if is_run(each)}
    found |= {each.name: each for each in _folders(home / _MADE / _JOINED) if is_run(each)}

    def of(made: Path) -> Job:
        chains = ((read_yaml(made / "config.yaml") or {}).get("schedule") or {}).get("chains")
        words = (f"{chains} chains",) if chains else ()  # those that Hydra left are the first job's
        return replace(job_of(made, now), name=f"{_JOINED}/{made.name}", words=words)

    return tuple(map(of, found.values()))


def _launched(folder: Path) -> float:
    try:
        return (folder / MULTIRUN).stat().st_mtime
    except OSError:
        return 0.0


def _combinations(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the words of each job that Hydra's own sweeper makes of some; none where another sweeper decides."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
    except HydraException:
        return []
    choices: dict[str, list[str]] = {}
    for each in parsed:
        if each.is_sweep_override() and not each.is_discrete_sweep():
            return []
        key = each.get_key_element()
        values = each.sweep_string_iterator() if each.is_sweep_override() else [each.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    return list(itertools.product(*choices.values()))


def _over(folder: Path) -> bool:
    """Whether a sweep has ended, as its last page says."""
    made, page = folder / MULTIRUN, folder / "report.html"
    return page.is_file() and made.is_file() and page.stat().st_mtime > made.stat().st_mtime


def _of_run(folder: Path) -> str:
    hydra = (read_yaml(folder / ".hydra" / "hydra.yaml") or {}).get("hydra", {})
    if hydra.get("mode") == "MULTIRUN":  # the sweep's own words know what a job of it is given beside its own
        made = (read_yaml(folder.parent / MULTIRUN) or {}).get("hydra", {})
        told = [str(word) for word in (made.get("overrides") or {}).get("task") or []]
        return _again(["-m"], made, told, "paths.sweep", folder.parent)
    return _again([], hydra, (hydra.get("overrides") or {}).get("task"), "paths.run", folder)


def _again(flags: Sequence[str], hydra: dict[str, Any], told: Sequence[str] | None, key: str, folder: Path) -> str:
    """Return the command line that was given, with the folder that it made."""
    if not hydra or told is None:
        return ""
    own = [word for word in (hydra.get("overrides") or {}).get("hydra") or [] if not word.startswith("hydra.mode=")]
    sources = (hydra.get("runtime") or {}).get("config_sources") or []
    further = [str(each["path"]) for each in sources if each.get("provider") == "command-line"]
    told = [word for word in told if not word.startswith(("paths.run=", "paths.sweep="))]  # one of them is for nothing
    words = [*flags, *own, *told, f"{key}={folder}"]
    words += [word for path in further for word in ("--config-dir", path)]
    return " ".join([(hydra.get("job") or {}).get("name") or "losskernel", *map(shlex.quote, words)])


def _folders(folder: Path) -> list[Path]:
    """Return the folders in one, numbers in their order, hidden ones left out; none where it is none."""
    try:
        found = [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")]
    except OSError:
        return []
    return sorted(found, key=lambda each: (int(each.name) if each.name.isdecimal() else -1, each.name))
