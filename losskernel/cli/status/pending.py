"""Jobs of a sweep that have said nothing: which are still to come, which are not, and of which nobody can tell."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from losskernel.cli.status.jobs import SILENT, STILL, Job
from losskernel.runs.status.status_file import seconds_of
from losskernel.training.progress import lasting

# Where submitit keeps what it knows, in a sweep's folder: a folder for every job that was taken.
_SUBMITTED = ".submitit"
# What it leaves there of jobs that SLURM did not take.
_NOT_TAKEN = ".submission_file_*.sh"


def slurm_ids(folder: Path, launcher: Mapping[str, str], jobs: int) -> dict[int, str]:
    """Return number of a job -> SLURM's id for it, from the folders that submitit makes; the newest's.

    Args:
        folder: of the sweep.
        launcher: its settings, as Hydra notes them.
        jobs: how many were started together.
    """
    names = [each.name.split("_") for each in (folder / _SUBMITTED).glob("*") if each.is_dir()]
    told = sorted([int(part) for part in name] for name in names if all(map(str.isdecimal, name)))
    if jobs == 1 and told and is_slurm(launcher):  # one alone is no array; of other launchers these are processes
        return {0: "_".join(map(str, told[-1]))}
    return {each[1]: f"{each[0]}_{each[1]}" for each in told if len(each) == 2}


def taken(folder: Path, launcher: Mapping[str, str], ids: Mapping[int, str]) -> bool | None:
    """Return whether SLURM took jobs of a sweep; None where it was not asked to, or nobody here can tell.

    Args:
        folder: of the sweep.
        launcher: its settings, as Hydra notes them.
        ids: SLURM's, as far as they are known.
    """
    if not is_slurm(launcher):
        return None
    here = launcher.get("submitit_folder", "").endswith(f"sweep.dir}}/{_SUBMITTED}/%j")
    return True if ids else False if here or any((folder / _SUBMITTED).glob(_NOT_TAKEN)) else None


def is_slurm(launcher: Mapping[str, str]) -> bool:
    """Whether jobs are SLURM's."""
    return launcher.get("_target_", "").endswith("SlurmLauncher")


def log_of(job: Job) -> str:
    """Return the path of the log of a SLURM job; "" where there is none."""
    log = job.folder.parent / _SUBMITTED / job.slurm / f"{job.slurm}_0_log.out"
    return str(log) if job.slurm and log.is_file() else ""


def raised(job: Job) -> str:
    """Return the last line of what a SLURM job raised before it could say so itself, as submitit keeps it; or ""."""
    path = job.folder.parent / _SUBMITTED / job.slurm / f"{job.slurm}_0_result.pkl"
    try:
        with open(path, "rb") as file:
            how, text = _Text(file).load()
    except Exception:  # there is none, it is damaged, or it is a result, of which nothing is built here
        return ""
    lines = str(text).strip().splitlines()
    return lines[-1].strip() if how == "error" and lines else ""


class _Text(pickle.Unpickler):
    """Reads plain values alone: a pickle could otherwise do anything."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name}")


def settled(
    jobs: Sequence[Job], age: float, *, lives: bool | None, slurm: bool, took: bool | None, answers: bool
) -> tuple[Job, ...]:
    """Return the jobs of a sweep, with what is known of those that have said nothing.

    Args:
        jobs: as their files, this machine and SLURM tell.
        age: seconds since the sweep was begun, or begun again.
        lives: whether the process is there that does the jobs one after another; None where nobody can tell.
        slurm: whether SLURM was to do them.
        took: whether it took them; None where nobody can tell.
        answers: whether it was asked, and answered.
    """
    quiet = min([age, *(job.age for job in jobs if job.age is not None)])
    goes_on = lives or any(job.at_work for job in jobs) or quiet <= SILENT
    unknown = slurm and took is not False  # jobs may wait there for days
    begun = any(job.age is not None for job in jobs)
    why = f"no job of the sweep has begun in {lasting(quiet)}: was it refused?"
    if begun:
        why = f"no job of the sweep has been at work for {lasting(quiet)}: has its command ended?"
    elif slurm and took is False:
        why = "SLURM has not taken the sweep's jobs"
    elif unknown:
        why = "whether SLURM has it, nothing here tells"

    def of(job: Job) -> Job:
        if job.status or job.ended or job.state not in ("waiting", "not begun") or (job.slurm and answers):
            return job
        if job.slurm:
            note = f"submitted to SLURM as {job.slurm}, which cannot be asked from here"
            return replace(job, state="not begun", note=note)
        if lives is False:
            note = "the process that did the jobs one after another is gone"
            return replace(job, state="not begun", ended=True, note=note)
        if job.state == "not begun":
            return replace(job, state="starting", note="") if lives else job
        return job if goes_on else replace(job, state="not begun", ended=quiet > STILL and not unknown, note=why)

    return tuple(map(of, jobs))


def one_process(jobs: Sequence[Job], launcher: Mapping[str, str], launched: float) -> Job | None:
    """Return the job that tells which process does all jobs of a sweep, one after another; None where none does.

    Args:
        jobs: of the sweep.
        launcher: its settings, as Hydra notes them.
        launched: when the sweep was begun, or begun again; seconds since 1970.
    """
    if not launcher.get("_target_", "").endswith("BasicLauncher"):
        return None
    started = [(seconds_of(job.status.get("started")) or 0.0, number) for number, job in enumerate(jobs)]
    last, number = max(started, default=(0.0, 0))
    return jobs[number] if last > 0 and last + 1 >= launched else None  # time stamps are whole seconds
