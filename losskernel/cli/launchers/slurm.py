"""Sweeps on SLURM: jobs submitted, waited for, and told apart into what finished, what failed and what was killed."""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

from losskernel.cli.launchers import Slurm, Watch
from losskernel.cli.launchers.job_process import told
from losskernel.cli.launchers.jobs import SweepJob, arguments_of, as_the_user, continues, ended, failed, jobs_of, shown
from losskernel.errors import InputError, require, require_integer, require_number

# Parameters that submitit has for every cluster; the others carry its name before theirs.
_GENERAL = frozenset(field.name for field in fields(BaseQueueConf))
_NEEDED = ("submitit_folder", "timeout_min", "signal_delay_s", "max_num_timeout", "array_parallelism")
_OURS = ("grace_s", "poll_s")
_ONE_TASK = {"nodes": 1, "tasks_per_node": 1}
_SILENT = "`sinfo` must list partitions here, as on the cluster's login node; hydra/launcher=local needs no SLURM"
_SLACK = 60  # seconds: SLURM may send its signal so much earlier than asked


def on_slurm(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Submit jobs to SLURM, wait for all of them, and return what each returned, in order.

    Args:
        launcher: with params, config, hydra_context, task_function.
        job_overrides: words of each job.
        first: number of the first.

    Raises:
        InputError: SLURM is not there or refuses the jobs.
    """
    given = complete(launcher.params, (*_NEEDED, *_OURS), "slurm")
    grace, every = given.pop("grace_s"), given.pop("poll_s")
    require_number("hydra.launcher.grace_s", grace, at_least=0)
    require_number("hydra.launcher.poll_s", every, above=0)
    _require_time(given["timeout_min"], given["signal_delay_s"])
    jobs = jobs_of(launcher, job_overrides, first)
    launcher.task_function = partial(told, launcher.task_function)
    if given.get("cpus_per_task") is not None:  # srun takes it from sbatch no longer, since SLURM 22.05
        given["srun_args"] = [f"--cpus-per-task={given['cpus_per_task']}"]
    executor = executor_of("slurm", given)
    places = dict(zip((job.number for job in jobs), _submitted(executor, launcher, jobs), strict=True))
    array = places[first].job_id.partition("_")[0]
    ids = {place.job_id: place for place in places.values()}
    _announce(launcher, array, list(ids), given["array_parallelism"], places[first].paths.stdout)
    watch = Watch(list(ids), Slurm(array), lambda each: is_there(ids[each].paths.result_pickle), grace=grace, say=say)
    try:
        dead = watch.wait(every)
    except KeyboardInterrupt:
        sweep = launcher.config.hydra.sweep.dir
        say(f"the jobs go on; `scancel {array}` ends them, `losskernel-compare runs={sweep}` compares what they leave")
        raise
    remedy = f"{continues(launcher.config.hydra)} continues it"
    return [
        ended(job, place, f", SLURM job {place.job_id} is {dead[place.job_id]}", remedy)
        if place.job_id in dead
        else returned(job, place)
        for job, place in ((job, places[job.number]) for job in jobs)
    ]


def complete(params: Mapping[str, Any], needed: Sequence[str], name: str) -> dict[str, Any]:
    """Return a launcher's settings.

    Args:
        params: as composed.
        needed: names of settings.
        name: of the launcher's own yaml, which has them.

    Raises:
        InputError: a yaml of the user's leaves some out.
    """
    missing = [f"hydra.launcher.{each}" for each in needed if each not in params]
    remedy = f"begin the launcher's yaml with `defaults: [{name}]`, and it need only say what differs"
    require(not missing, f"{', '.join(missing)} missing; {remedy}")
    return dict(params)


def executor_of(cluster: str, given: dict[str, Any]) -> Any:
    """Return submitit's executor with its parameters.

    Raises:
        InputError: the cluster is not there, or has no such parameter.
    """
    import submitit

    given = given | _ONE_TASK
    folder, requeues = given.pop("submitit_folder"), given.pop("max_num_timeout")
    require_integer("hydra.launcher.max_num_timeout", requeues, at_least=0)
    named = {name if name in _GENERAL else f"{cluster}_{name}": value for name, value in given.items()}
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **{f"{cluster}_max_num_timeout": requeues})
    except RuntimeError as error:
        raise InputError(
            "hydra/launcher=slurm needs SLURM's commands (sbatch, srun, squeue), which this machine lacks; go to the "
            "login node, or choose hydra/launcher=local"
        ) from error
    try:
        executor.update_parameters(**named)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise InputError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
    return executor


def returned(job: SweepJob, place: Any) -> JobReturn:
    """Return what a job that has left a result returned; tell the user if that is an error.

    Args:
        job: which.
        place: submitit's job.
    """
    log = f"; log {shown(place.paths.stdout)}"
    try:
        (made,) = place.results()
    except Exception as error:  # it failed outside of our own command, or what it left cannot be read
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("-", "You can"))]
        reason = next((line for line in reversed(lines) if not line.startswith((" ", "or at"))), type(error).__name__)
        return failed(job, f"failed: {reason}{log}")
    if made.status == JobStatus.COMPLETED:
        return made
    error = made._return_value
    return failed(job, f"failed: {' '.join(str(error).split()) or type(error).__name__}{log}", error)


def is_there(path: Path) -> bool:
    """Whether a file exists, by the folder's own list: network file systems remember for long that it did not."""
    try:
        return path.name in os.listdir(path.parent)
    except OSError:
        return False


def say(text: str) -> None:
    """Tell the user."""
    print(f"losskernel: {text}", flush=True)


def _require_time(timeout_min: Any, signal_delay_s: Any) -> None:
    require_number("hydra.launcher.timeout_min", timeout_min, above=0)
    require_integer("hydra.launcher.signal_delay_s", signal_delay_s, at_least=1)
    require(
        60 * timeout_min > signal_delay_s + _SLACK,
        f"hydra.launcher.timeout_min={timeout_min} leaves no time before the signal, which comes signal_delay_s="
        f"{signal_delay_s} s (or up to {_SLACK} s more) before the end; raise timeout_min or lower signal_delay_s",
    )


def _submitted(executor: Any, launcher: Any, jobs: Sequence[SweepJob]) -> list[Any]:
    """Return submitit's jobs.

    Raises:
        InputError: sbatch refuses them, in its own words, or nobody answers it.
    """
    try:
        with as_the_user(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints the words as well
            return executor.map_array(launcher, *zip(*map(arguments_of, jobs), strict=True))
    except (RuntimeError, OSError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        if Slurm("1")([]) is None:  # a question that any SLURM answers
            last = (str(error).strip().splitlines() or [words])[-1]
            raise InputError(f"SLURM does not answer: {last}; {_SILENT}") from error
        raise InputError(f"SLURM takes no jobs: {words}; check hydra.launcher, `sinfo` lists partitions") from error


def _announce(launcher: Any, array: str, ids: Sequence[str], at_once: int, log: Path) -> None:
    sweep, many = launcher.config.hydra.sweep.dir, len(ids) > 1
    named = f"{ids[0]} to {ids[-1]}, at most {min(at_once, len(ids))} at a time" if many else ids[0]
    say(f"{len(ids)} job{'s' * many} submitted to SLURM: {named}")
    print(f"  logs      {shown(log)}{' and so on' * many}")
    print(f"  progress  losskernel-status {sweep}")
    print(f"  waiting; Ctrl-C leaves the job{'s' * many} running, `scancel {array}` ends them", flush=True)
