"""Sweeps as jobs of other processes: SLURM's or local ones, both by submitit, or joblib's workers.

Hydra's own launchers start the jobs; these functions wait for them. Its submitit launcher would start all local jobs at
once, and raise at the first failure: it neither waits for the others nor notices jobs that were killed or requeued.
"""

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, env_override
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

from losskernel.cli import failures
from losskernel.cli.launchers.job_process import DEVICES, run_alone, run_in_shared_process
from losskernel.cli.launchers.queue import SlurmQueue, Watch
from losskernel.cli.launchers.sweep_jobs import SweepJob, compose_jobs, resume_command
from losskernel.errors import InputError, TraceError, require, require_integer, require_number
from losskernel.runs.status.status_file import STATUS, read_status
from losskernel.signals import handling

# Parameters that submitit has for every cluster; it wants the cluster's name before all others.
_GENERAL = frozenset(field.name for field in fields(BaseQueueConf))
_REQUIRED = ("submitit_folder", "timeout_min", "signal_delay_s", "max_num_timeout", "array_parallelism")
_ONE_TASK = {"nodes": 1, "tasks_per_node": 1}
_NO_SLURM = "`sinfo` must list partitions here, as on the cluster's login node; hydra/launcher=local needs no SLURM"
_SLACK = 60  # seconds: SLURM may send its signal so much earlier than asked
_NO_LIMIT = 10 * 365 * 24 * 60  # minutes: local jobs have no time limit, but submitit wants one
_LOCAL_INTERVAL = 1.0  # seconds between two looks at local jobs


def on_slurm(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Submit jobs to SLURM, wait for all of them, and return what each returned, in order.

    Ctrl-C leaves the jobs running.

    Args:
        launcher: with params, config, hydra_context, task_function.
        job_overrides: overrides of each job.
        first: number of the first job.

    Raises:
        InputError: SLURM is not there or refuses the jobs.
    """
    params, grace, interval = _slurm_params(launcher)
    jobs = compose_jobs(launcher, job_overrides, first)
    launcher.task_function = partial(run_alone, launcher.task_function)
    submitted = _submitted(_executor("slurm", params), launcher, jobs)
    # 12_0, 12_1, ... of one array; a single job is no array, and its id is the number alone.
    array, by_id = submitted[0].job_id.partition("_")[0], {handle.job_id: handle for handle in submitted}
    _announce(launcher, array, list(by_id), params["array_parallelism"], submitted[0].paths.stdout)
    watch = Watch(list(by_id), SlurmQueue(array), lambda job: _has_result(by_id[job]), grace=grace, say=_say)
    try:
        dead = watch.wait(interval)
    except KeyboardInterrupt:
        sweep = launcher.config.hydra.sweep.dir
        _say(f"the jobs go on; `scancel {array}` ends them, `losskernel-compare runs={sweep}` compares what they leave")
        raise
    states = [f", SLURM job {job} is {dead[job]}" if job in dead else None for job in by_id]
    return _results(jobs, submitted, states, resume_command(launcher.config.hydra))


def on_this_machine(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Start each job as a process, some at a time, wait for all, and return what each returned, in order.

    Ctrl-C has the jobs save their states and end.

    Args:
        launcher: with params, config, hydra_context, task_function.
        job_overrides: overrides of each job.
        first: number of the first job.

    Raises:
        InputError: a setting is wrong.
    """
    params = _params(launcher.params, ("submitit_folder", "n_jobs"), "local")
    at_once = processes(params.pop("n_jobs"), len(job_overrides))
    jobs = compose_jobs(launcher, job_overrides, first)
    launcher.task_function = partial(run_alone, launcher.task_function)
    # Pickled with the launcher: submitit hides all devices from local jobs.
    launcher.params["devices"] = os.environ.get(DEVICES)
    executor = _executor("local", params | {"timeout_min": _NO_LIMIT, "max_num_timeout": 0})
    queue = LocalQueue(executor, launcher, jobs, at_once)
    remedy = resume_command(launcher.config.hydra)
    _say(f"{len(jobs)} job{'s' * (len(jobs) > 1)} on this machine, {at_once} at a time; Ctrl-C stops them in order")
    sweep = launcher.config.hydra.sweep.dir
    print(f"  logs      {sweep}/.submitit\n  progress  losskernel-status {sweep}", flush=True)
    try:
        # No grace time: nobody requeues a local process.
        dead = Watch(list(queue.handles), queue, queue.has_result, grace=0, say=_say).wait(_LOCAL_INTERVAL)
    except KeyboardInterrupt:
        _say(f"the jobs are being stopped; {remedy} continues them")
        queue.stop()
        raise
    finally:
        with suppress(OSError):
            executor.folder.rmdir()  # named %j, which submitit makes and leaves empty
    states = ["" if str(job.number) in dead else None for job in jobs]
    return _results(jobs, list(queue.handles.values()), states, remedy)


class LocalQueue:
    """Local jobs that are started while there is room; submitit would start them all at once.

    Args:
        executor: submitit's.
        launcher: what the process of a job calls.
        jobs: in the order in which they are started.
        at_once: how many run at a time.
    """

    def __init__(self, executor: Any, launcher: Any, jobs: Sequence[SweepJob], at_once: int) -> None:
        self._executor, self._launcher, self._at_once = executor, launcher, at_once
        self._pending = list(jobs)
        # Jobs that run beside each other share the cores; more threads than cores cost up to ten times the time.
        self._threads = str(max(1, _cores() // at_once))
        self.handles: dict[str, Any] = {str(job.number): None for job in jobs}  # submitit's job, once started

    def __call__(self, ids: Sequence[str]) -> dict[str, str]:
        """Start as many jobs as there is room for, and return job -> state."""
        while self._pending and len(self._running()) < self._at_once:
            job = self._pending.pop(0)
            threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", self._threads)}
            # The process ignores the terminal's Ctrl-C until it sets a handler: this process stops it.
            with env_override(threads), _users_tracebacks(), handling((signal.SIGINT,), signal.SIG_IGN):
                self.handles[str(job.number)] = self._executor.submit(self._launcher, *_arguments(job))
        running = self._running()
        return {
            name: "PENDING" if handle is None else "RUNNING" if handle in running else "ENDED"
            for name, handle in self.handles.items()
        }

    def has_result(self, name: str) -> bool:
        """Whether a job has left its result."""
        return self.handles[name] is not None and _has_result(self.handles[name])

    def stop(self) -> None:
        """Have the running jobs save their states and end, and wait for that."""
        # To all first, then wait: they save their states at the same time.
        for handle in self._running():
            handle._process.send_signal(signal.SIGTERM)
        for handle in self._running():
            handle._process.wait()

    def _running(self) -> list[Any]:
        return [handle for handle in self.handles.values() if handle is not None and not handle.done()]


def in_workers(
    launcher: Any, launch: Callable[..., Sequence[JobReturn]], job_overrides: Sequence[Sequence[str]], first: int
) -> Sequence[JobReturn]:
    """Do jobs in joblib's worker processes, and return what each returned, in order.

    Args:
        launcher: with task_function.
        launch: joblib's launcher: (job_overrides, first) -> what each job returned.
        job_overrides: overrides of each job.
        first: number of the first job.
    """
    from hydra_plugins.hydra_joblib_launcher import _core as joblib_launcher
    from joblib.externals.loky.process_executor import BrokenProcessPool

    jobs = len(job_overrides)
    at_once = processes(_params(launcher.joblib, ("n_jobs",), "joblib")["n_jobs"], jobs)
    _say(f"{jobs} job{'s' * (jobs > 1)} on this machine, in {at_once} process{'es' * (at_once > 1)} that they share")
    print(f"  progress  losskernel-status {launcher.config.hydra.sweep.dir}", flush=True)
    # At INFO it logs the same with all overrides of every job.
    logging.getLogger(joblib_launcher.__name__).setLevel(logging.WARNING)
    launcher.task_function = partial(run_in_shared_process, launcher.task_function)
    try:
        with _users_tracebacks():
            results = launch(job_overrides, first)
    except BrokenProcessPool:
        lost = "a process of joblib was killed (out of memory?), and with it all the others ended"
        _say(f"{lost}; {resume_command(launcher.config.hydra)} continues them, hydra/launcher=local keeps jobs apart")
        failures.reported.append(error := RuntimeError(lost))
        raise error from None
    # They were printed by the workers; the command only counts them.
    failures.reported += [result._return_value for result in results if result.status == JobStatus.FAILED]
    return results


def processes(n_jobs: Any, jobs: int) -> int:
    """Return how many jobs run at a time; n_jobs = -1 means one per core.

    Raises:
        InputError: n_jobs is no such number.
    """
    require_integer("hydra.launcher.n_jobs", n_jobs, at_least=-1)
    require(n_jobs != 0, "hydra.launcher.n_jobs must be >= 1, or -1 for one per core, got 0; raise it")
    return min(jobs, _cores() if n_jobs == -1 else n_jobs)


def _results(
    jobs: Sequence[SweepJob], handles: Sequence[Any], states: Sequence[str | None], command: str
) -> list[JobReturn]:
    """Return what each job returned; a state is how a job ended that left no result, None of one that did."""
    return [
        read_result(job, handle) if state is None else without_result(job, handle, state, f"{command} continues it")
        for job, handle, state in zip(jobs, handles, states, strict=True)
    ]


def read_result(job: SweepJob, handle: Any) -> JobReturn:
    """Return what a job returned that has left a result; print its error if that is one.

    Args:
        job: of the sweep.
        handle: submitit's job.
    """
    log = f"; log {failures.short_path(handle.paths.stdout)}"
    try:
        (result,) = handle.results()
    except Exception as error:  # it failed outside of our own command, or its result cannot be read
        # submitit puts the whole traceback into its message: the last line that is not indented names the error.
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("-", "You can"))]
        reason = next((line for line in reversed(lines) if not line.startswith((" ", "or at"))), type(error).__name__)
        return _failed(job, f"failed: {reason}{log}")
    if result.status == JobStatus.COMPLETED:
        return result
    error = result._return_value
    return _failed(job, f"failed: {' '.join(str(error).split()) or type(error).__name__}{log}", error)


def without_result(job: SweepJob, handle: Any, state: str, remedy: str) -> JobReturn:
    """Return the failure of a job that left no result: interrupted by a signal, or killed.

    Args:
        job: of the sweep.
        handle: submitit's job.
        state: what the scheduler says of its end, after a comma; may be "".
        remedy: how it is continued.
    """
    log, status = handle.paths.stdout, read_status(job.folder) or {}
    where = f"log {failures.short_path(log)}" if log.exists() else "no log: do compute nodes see this folder?"
    end = f"{state}; folder {job.folder}, {where}; {remedy}"
    # A job that a signal interrupted could write so itself; a status older than this start is an earlier one's.
    start = handle.paths.submitted_pickle.stat().st_mtime
    if status.get("state") == "interrupted" and (job.folder / STATUS).stat().st_mtime >= start:
        return _failed(job, f"{status.get('error')}{end}", TraceError(str(status.get("error"))))
    return _failed(job, f"was killed{end}")


def _failed(job: SweepJob, line: str, error: Exception | None = None) -> JobReturn:
    """Print that a job failed, and return that for Hydra.

    Args:
        job: of the sweep.
        line: how it ended, where its log lies, what to do.
        error: what it raised; None where it left no word, so that its failure is written here for the comparison.
    """
    print(f"losskernel: {job.name} {line}", file=sys.stderr)
    if error is None:  # the process that it ran in could not write failure.json
        error = TraceError(line)
        failures.write_failure(job.folder, job.config, error)
    failures.reported.append(error)
    result = JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
    result.return_value = error
    return result


def _params(params: Mapping[str, Any], required: Sequence[str], name: str) -> dict[str, Any]:
    """Return a launcher's settings; raise InputError if a yaml of the user's leaves out some that ours, `name`, has."""
    missing = [f"hydra.launcher.{setting}" for setting in required if setting not in params]
    remedy = f"begin the launcher's yaml with `defaults: [{name}]`, and it need only say what differs"
    require(not missing, f"{', '.join(missing)} missing; {remedy}")
    return dict(params)


def _slurm_params(launcher: Any) -> tuple[dict[str, Any], float, float]:
    """Return submitit's parameters, the grace time of dead jobs, and the seconds between two looks.

    Raises:
        InputError: a setting is missing or wrong.
    """
    params = _params(launcher.params, (*_REQUIRED, "grace_s", "poll_s"), "slurm")
    grace, interval = params.pop("grace_s"), params.pop("poll_s")
    require_number("hydra.launcher.grace_s", grace, at_least=0)
    require_number("hydra.launcher.poll_s", interval, above=0)
    timeout_min, signal_delay_s = params["timeout_min"], params["signal_delay_s"]
    require_number("hydra.launcher.timeout_min", timeout_min, above=0)
    require_integer("hydra.launcher.signal_delay_s", signal_delay_s, at_least=1)
    late = f"leaves no time before the signal, which comes signal_delay_s={signal_delay_s} s (or up to {_SLACK} s more)"
    remedy = "raise timeout_min or lower signal_delay_s"
    enough = 60 * timeout_min > signal_delay_s + _SLACK
    require(enough, f"hydra.launcher.timeout_min={timeout_min} {late} before the end; {remedy}")
    if params.get("cpus_per_task") is not None:  # since SLURM 22.05 srun no longer takes it from sbatch
        params["srun_args"] = [f"--cpus-per-task={params['cpus_per_task']}"]
    return params, grace, interval


def _executor(cluster: str, params: dict[str, Any]) -> Any:
    """Return submitit's executor with its parameters.

    Raises:
        InputError: the cluster is not there, or has no such parameter.
    """
    import submitit

    params = params | _ONE_TASK
    folder, requeues = params.pop("submitit_folder"), params.pop("max_num_timeout")
    require_integer("hydra.launcher.max_num_timeout", requeues, at_least=0)
    named = {name if name in _GENERAL else f"{cluster}_{name}": value for name, value in params.items()}
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **{f"{cluster}_max_num_timeout": requeues})
    except RuntimeError as error:
        lacking = "hydra/launcher=slurm needs SLURM's commands (sbatch, srun, squeue), which this machine lacks"
        raise InputError(f"{lacking}; go to the login node, or choose hydra/launcher=local") from error
    # submitit checks names and types here, before anything is submitted.
    try:
        executor.update_parameters(**named)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise InputError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
    return executor


def _submitted(executor: Any, launcher: Any, jobs: Sequence[SweepJob]) -> list[Any]:
    """Return submitit's jobs.

    Raises:
        InputError: sbatch refuses them, in its own words, or SLURM does not answer.
    """
    try:
        with _users_tracebacks(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints the error as well
            return executor.map_array(launcher, *zip(*map(_arguments, jobs), strict=True))
    except (RuntimeError, OSError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        if SlurmQueue("1")([]) is None:  # a question that any SLURM answers
            last = (str(error).strip().splitlines() or [words])[-1]
            raise InputError(f"SLURM does not answer: {last}; {_NO_SLURM}") from error
        raise InputError(f"SLURM takes no jobs: {words}; check hydra.launcher, `sinfo` lists partitions") from error


def _announce(launcher: Any, array: str, ids: Sequence[str], at_once: int, log: Path) -> None:
    many = len(ids) > 1
    listed = f"{ids[0]} to {ids[-1]}, at most {min(at_once, len(ids))} at a time" if many else ids[0]
    _say(f"{len(ids)} job{'s' * many} submitted to SLURM: {listed}")
    print(f"  logs      {failures.short_path(log)}{' and so on' * many}")
    print(f"  progress  losskernel-status {launcher.config.hydra.sweep.dir}")
    print(f"  waiting; Ctrl-C leaves the job{'s' * many} running, `scancel {array}` ends them", flush=True)


def _arguments(job: SweepJob) -> tuple[Any, ...]:
    """Return what __call__ of Hydra's submitit launcher takes to do one job."""
    return job.overrides, "hydra.sweep.dir", job.number, f"job_id_for_{job.number}", Singleton.get_state()


def _has_result(handle: Any) -> bool:
    """Whether submitit's job has left its result.

    The folder is listed, since network file systems cache for long that a single file did not exist.
    """
    path = handle.paths.result_pickle
    with suppress(OSError):
        return path.name in os.listdir(path.parent)
    return False


def _users_tracebacks() -> AbstractContextManager[None]:
    """Processes started within show tracebacks if the user wants them; this process always has them on."""
    return env_override({"HYDRA_FULL_ERROR": "1" if failures.WANTS_TRACEBACK else "0"})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(text: str) -> None:
    print(f"losskernel: {text}", flush=True)
