"""Which jobs a sweep has, begun or not, and the command that continues it: from what Hydra and submitit wrote there."""

import pickle
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException

from losskernel.cli.config import combinations
from losskernel.cli.job_status.job_state import Job, Starter, is_run, modified, read_job, read_yaml
from losskernel.errors import InputError
from losskernel.runs.status.status_file import seconds_of

MULTIRUN = "multirun.yaml"
_JOBS = "jobs.json"  # of a sweep around a run: name of each job -> its value
# Where a sweep's joined kernels lie, and where they are made.
_JOINED, _MADE = "joined", ".partial"
_NUMBERED = ("${hydra:job.num}", "${hydra.job.num}")  # names of job folders that are the jobs' numbers
_SUBMITTED = ".submitit"  # in a sweep's folder: a folder of submitit's for every job that SLURM has taken
_NOT_TAKEN = ".submission_file_*.sh"  # what submitit leaves there of jobs that SLURM has not taken


@dataclass(frozen=True)
class Sweep:
    """Jobs that belong together, or runs that lie in one folder.

    Attributes:
        folder: where they lie.
        jobs: in their order.
        command: what continues those that are not finished; "" where that is unknown, or each has its own.
        joined: kernels of the chains of several jobs.
        launcher: its settings, as Hydra wrote them.
        launched: when it was started last, seconds since 1970.
        starter: of the jobs that have not begun, as far as the folder tells.
    """

    folder: Path
    jobs: tuple[Job, ...]
    command: str = ""
    joined: tuple[Job, ...] = ()
    launcher: Mapping[str, str] = field(default_factory=dict)
    launched: float = 0.0
    starter: Starter = Starter.UNKNOWN


def sweeps_in(folder: Path, now: float, depth: int = 4) -> list[Sweep]:
    """Return the sweeps in a folder, or its runs as one; a run's folder is a sweep of one, before those around it.

    Args:
        folder: of a run, of a sweep, or of folders with them.
        now: seconds since 1970.
        depth: levels of folders that are searched.
    """
    if is_run(folder):
        alone = Sweep(folder.parent, (read_job(folder, now),), command_of(folder))
        around = [_read_sweep(inner, now) for inner in _folders(folder) if (inner / _JOBS).is_file()]
        return [alone, *around]
    if (folder / MULTIRUN).is_file() or (folder / _JOBS).is_file():
        return [_read_sweep(folder, now)]
    inside = _folders(folder)
    runs = [inner for inner in inside if is_run(inner)]
    sweeps = [Sweep(folder, tuple(read_job(run, now) for run in runs))] if runs else []
    if depth > 0:
        for inner in inside:
            within = sweeps_in(inner, now, depth - 1)
            sweeps += within[1:] if inner in runs else within  # the run itself is among `runs`
    return sweeps


def command_of(run: Path) -> str:
    """Return the command that continues a run; "" where that is unknown."""
    hydra = (read_yaml(run / ".hydra" / "hydra.yaml") or {}).get("hydra", {})
    if hydra.get("mode") == "MULTIRUN":  # a job of a sweep: its own overrides do not say what was swept
        return _repeated(["-m"], _read_multirun(run.parent), "paths.sweep", run.parent)
    return _repeated([], hydra, "paths.run", run)


def single_process(sweep: Sweep) -> Job | None:
    """Return the job that recorded which process does all jobs of a sweep, one after another; None without one."""
    if not sweep.launcher.get("_target_", "").endswith("BasicLauncher"):
        return None
    started = [(seconds_of(job.status.get("started")) or 0.0, number) for number, job in enumerate(sweep.jobs)]
    last, number = max(started, default=(0.0, 0))
    # Of the sweep's last start; time stamps are whole seconds.
    return sweep.jobs[number] if last > 0 and last + 1 >= sweep.launched else None


def log_of(job: Job) -> str:
    """Return the path of the log of a SLURM job; "" where there is none."""
    log = _submitit_file(job, "log.out")
    return str(log) if job.slurm and log.is_file() else ""


def _read_sweep(folder: Path, now: float) -> Sweep:
    """Return a sweep with all its jobs, those too that have no folder yet."""
    begun = {inner.name: read_job(inner, now) for inner in _folders(folder) if is_run(inner)}
    hydra = _read_multirun(folder)
    params = (hydra.get("sweeper") or {}).get("params") or {}
    words = _combinations([*(f"{key}={value}" for key, value in params.items()), *(_task_overrides(hydra) or [])])
    launcher = {key: str(value) for key, value in (hydra.get("launcher") or {}).items()}
    ids = _slurm_ids(folder, launcher, len(words))
    around = read_yaml(folder / _JOBS)
    if isinstance(around, dict):
        numbers = {str(name): _number_of(value, words) for name, value in around.items()}
        command = f"losskernel-{folder.name} run={shlex.quote(str(folder.parent))}"
    else:
        numbered = (hydra.get("sweep") or {}).get("subdir") in _NUMBERED
        numbers = {str(number): number for number in range(len(words) if numbered or not begun else 0)}
        command = _repeated(["-m"], hydra, "paths.sweep", folder)
    launched = modified(folder / MULTIRUN)
    ended = modified(folder / "report.html") > launched > 0  # a sweep's page comes last

    def job(name: str, number: int | None) -> Job:
        planned = Job(folder / name, name)
        planned = planned if number is None else replace(planned, words=words[number], slurm=ids.get(number, ""))
        return _add_sweep_facts(begun.pop(name, planned), planned, ended)

    jobs = [job(name, number) for name, number in numbers.items()]
    every, joined = (*jobs, *begun.values()), _joined(folder, now)
    starter = _starter(folder, launcher, bool(ids))
    return Sweep(folder, every, command, joined, launcher, launched, starter)


def _number_of(value: Any, combinations: Sequence[Sequence[str]]) -> int | None:
    """Return the number of the job of the last start that has a value; None where that start did not include it."""
    for number, words in enumerate(combinations):
        with suppress(yaml.YAMLError):
            if any(yaml.safe_load(word.partition("=")[2]) == value for word in words):
                return number
    return None


def _add_sweep_facts(job: Job, planned: Job, ended: bool) -> Job:
    """Return a job that has written no status with what the sweep's folder knows of it; others as they are.

    Args:
        job: by its own files.
        planned: by the sweep's.
        ended: whether the sweep has ended.
    """
    if job.status or job.state not in ("waiting", "starting", "not begun"):
        return job
    job = replace(job, words=job.words or planned.words, slurm=planned.slurm)
    if error := _submitit_error(job):
        return replace(job, state="failed", ended=True, note=error)
    if ended and job.state == "waiting":
        return replace(job, state="not begun", ended=True, note="the sweep has ended without it")
    return job


def _joined(folder: Path, now: float) -> tuple[Job, ...]:
    """Return the joined kernels; one that is being made takes the place of the one that it will replace."""
    home = folder / _JOINED
    folders = {inner.name: inner for inner in _folders(home) if is_run(inner)}
    folders |= {inner.name: inner for inner in _folders(home / _MADE / _JOINED) if is_run(inner)}

    def job(kernel: Path) -> Job:
        chains = ((read_yaml(kernel / "config.yaml") or {}).get("schedule") or {}).get("chains")
        words = (f"{chains} chains",) if chains else ()  # its overrides are copies of the first job's
        return replace(read_job(kernel, now), name=f"{_JOINED}/{kernel.name}", words=words)

    return tuple(map(job, folders.values()))


def _combinations(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the overrides of each job that Hydra's own sweeper makes of some; none where another sweeper decides."""
    try:
        return combinations(words)
    except (HydraException, InputError):
        return []


def _repeated(flags: Sequence[str], hydra: Mapping[str, Any], key: str, folder: Path) -> str:
    """Return the command line that was given, with the folder that it made; "" where that is unknown."""
    task = _task_overrides(hydra)
    if task is None:
        return ""
    hydra_words = [
        word for word in (hydra.get("overrides") or {}).get("hydra") or [] if not word.startswith("hydra.mode=")
    ]
    task = [word for word in task if not word.startswith(("paths.run=", "paths.sweep="))]
    words = [*flags, *hydra_words, *task, f"{key}={folder}"]
    for source in (hydra.get("runtime") or {}).get("config_sources") or []:
        if source.get("provider") == "command-line":
            words += ["--config-dir", str(source["path"])]
    return " ".join([(hydra.get("job") or {}).get("name") or "losskernel", *map(shlex.quote, words)])


def _task_overrides(hydra: Mapping[str, Any]) -> list[str] | None:
    task = (hydra.get("overrides") or {}).get("task")
    return None if task is None else list(map(str, task))


def _read_multirun(folder: Path) -> dict[str, Any]:
    return (read_yaml(folder / MULTIRUN) or {}).get("hydra", {})


def _folders(folder: Path) -> list[Path]:
    """Return the folders in one, numbers in their order, hidden ones left out; none where it is none."""
    try:
        folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []
    return sorted(folders, key=lambda path: (int(path.name) if path.name.isdecimal() else -1, path.name))


# What submitit keeps of SLURM's jobs.


def _slurm_ids(folder: Path, launcher: Mapping[str, str], jobs: int) -> dict[int, str]:
    """Return number of a job -> SLURM's id for it, of the last start, from the names of submitit's folders.

    Args:
        folder: of the sweep.
        launcher: its settings.
        jobs: how many were started together.
    """
    names = [path.name.split("_") for path in (folder / _SUBMITTED).glob("*") if path.is_dir()]
    ids = sorted([int(part) for part in name] for name in names if all(map(str.isdecimal, name)))
    if jobs == 1 and ids and _is_slurm(launcher):  # a single job is no array
        return {0: "_".join(map(str, ids[-1]))}
    # Names with one number are processes of the local launcher.
    return {array_id[1]: f"{array_id[0]}_{array_id[1]}" for array_id in ids if len(array_id) == 2}


def _starter(folder: Path, launcher: Mapping[str, str], has_ids: bool) -> Starter:
    """Return what is known of SLURM and a sweep's jobs.

    Args:
        folder: of the sweep.
        launcher: its settings.
        has_ids: whether SLURM's ids of jobs are known.
    """
    if not _is_slurm(launcher):
        return Starter.UNKNOWN
    default_folder = launcher.get("submitit_folder", "").endswith(f"sweep.dir}}/{_SUBMITTED}/%j")
    refused = not has_ids and (default_folder or any((folder / _SUBMITTED).glob(_NOT_TAKEN)))
    return Starter.REFUSED if refused else Starter.QUEUE


def _is_slurm(launcher: Mapping[str, str]) -> bool:
    return launcher.get("_target_", "").endswith("SlurmLauncher")


def _submitit_file(job: Job, name: str) -> Path:
    return job.folder.parent / _SUBMITTED / job.slurm / f"{job.slurm}_0_{name}"


def _submitit_error(job: Job) -> str:
    """Return the last line of what a SLURM job raised before it could write a status; "" if nothing."""
    try:
        with _submitit_file(job, "result.pkl").open("rb") as file:
            how, text = _PlainUnpickler(file).load()
    except Exception:  # there is none, it is damaged, or it holds a result, which is not unpickled here
        return ""
    lines = str(text).strip().splitlines()
    return lines[-1].strip() if how == "error" and lines else ""


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values alone: unpickling anything else could run code from a folder that is only looked at."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name}")
