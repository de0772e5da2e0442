"""The jobs that a sweep will have, begun or not, and the command that continues it: from what Hydra left there."""

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from losskernel.cli.rollcall import Job, is_run, job_of, read_yaml

MULTIRUN = "multirun.yaml"
# Of a sweep around a run: name of each job -> its value.
_JOBS = "jobs.json"
_NUMBERED = ("${hydra:job.num}", "${hydra.job.num}")


@dataclass(frozen=True)
class Sweep:
    """Jobs that belong together, or runs that lie in one folder.

    Attributes:
        folder: where they lie.
        jobs: in their order.
        command: what continues those that are not finished; "" where nobody knows, or each has its own.
    """

    folder: Path
    jobs: tuple[Job, ...]
    command: str = ""


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
    around = read_yaml(folder / _JOBS)
    if isinstance(around, dict):
        jobs = [begun.pop(name, Job(folder / name, name)) for name in map(str, around)]
        return Sweep(
            folder, (*jobs, *begun.values()), f"losskernel-{folder.name} run={shlex.quote(str(folder.parent))}"
        )
    numbered = (hydra.get("sweep") or {}).get("subdir") in _NUMBERED
    params = (hydra.get("sweeper") or {}).get("params") or {}
    combinations = _combinations([*(f"{key}={value}" for key, value in params.items()), *told])
    ids, over = _slurm_ids(folder), _over(folder)
    jobs = []
    for number, words in enumerate(combinations if numbered or not begun else []):
        job = begun.pop(str(number), Job(folder / str(number), str(number), words))
        if job.state == "waiting":
            note = "the sweep has ended without it" if over else ""
            job = replace(job, words=job.words or words, slurm=ids.get(number, ""), ended=over, note=note)
        jobs.append(job)
    return Sweep(folder, (*jobs, *begun.values()), _again(["-m"], hydra, told, "paths.sweep", folder))


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


def _slurm_ids(folder: Path) -> dict[int, str]:
    """Return number of a job -> SLURM's id for it, from the folders that submitit makes; the newest array's."""
    names = [each.name.split("_") for each in _folders(folder / ".submitit")]
    arrays = [(int(name[0]), int(name[1])) for name in names if len(name) == 2 and all(map(str.isdecimal, name))]
    return {number: f"{array}_{number}" for array, number in sorted(arrays)}


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
    words = [*flags, *own, *(word for word in told if not word.startswith(f"{key}=")), f"{key}={folder}"]
    words += [word for path in further for word in ("--config-dir", path)]
    return " ".join([(hydra.get("job") or {}).get("name") or "losskernel", *map(shlex.quote, words)])


def _folders(folder: Path) -> list[Path]:
    """Return the folders in one, numbers in their order, hidden ones left out; none where it is none."""
    try:
        found = [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")]
    except OSError:
        return []
    return sorted(found, key=lambda each: (int(each.name) if each.name.isdecimal() else -1, each.name))
