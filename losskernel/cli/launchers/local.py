"""Sweeps on this machine: a process for every job, by submitit, or a few that share the jobs, by joblib."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, env_override

from losskernel.cli.launchers import Watch
from losskernel.cli.launchers.job_process import DEVICES, contained, told
from losskernel.cli.launchers.jobs import SweepJob, arguments_of, as_the_user, continues, ended, jobs_of
from losskernel.cli.launchers.slurm import complete, executor_of, is_there, returned, say
from losskernel.errors import require, require_integer

_YEARS = 10 * 365 * 24 * 60  # minutes: nobody limits the time of a job here
_EVERY = 1.0  # seconds between two looks


def on_this_machine(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Start jobs as processes of their own, some at a time, wait for all, and return what each returned, in order.

    Ctrl-C stops them in order.

    Args:
        launcher: with params, config, hydra_context, task_function.
        job_overrides: words of each job.
        first: number of the first.

    Raises:
        InputError: a setting is wrong.
    """
    given = complete(launcher.params, ("submitit_folder", "n_jobs"), "local")
    at_once = processes(given.pop("n_jobs"), len(job_overrides))
    jobs = jobs_of(launcher, job_overrides, first)
    launcher.task_function = partial(told, launcher.task_function)
    launcher.params["devices"] = os.environ.get(DEVICES)
    executor = executor_of("local", given | {"timeout_min": _YEARS, "max_num_timeout": 0})
    queue = _Queue(executor, launcher, jobs, at_once)
    remedy = continues(launcher.config.hydra)
    say(f"{len(jobs)} job{'s' * (len(jobs) > 1)} on this machine, {at_once} at a time; Ctrl-C stops them in order")
    print(f"  logs      {launcher.config.hydra.sweep.dir}/.submitit")
    print(f"  progress  losskernel-status {launcher.config.hydra.sweep.dir}", flush=True)
    try:
        dead = Watch(list(queue.places), queue, queue.has_result, grace=0, say=say).wait(_EVERY)
    except KeyboardInterrupt:
        say(f"the jobs are being stopped; {remedy} continues them")
        queue.stop()
        raise
    finally:
        with suppress(OSError):
            executor.folder.rmdir()  # named %j, which submitit makes and leaves empty
    return [
        ended(job, place, "", f"{remedy} continues it") if str(job.number) in dead else returned(job, place)
        for job, place in zip(jobs, queue.places.values(), strict=True)
    ]


class _Queue:
    """Jobs that are started while there is room; submitit would start them all at once."""

    def __init__(self, executor: Any, launcher: Any, jobs: Sequence[SweepJob], at_once: int) -> None:
        self._executor, self._launcher, self._at_once = executor, launcher, at_once
        self._waiting = list(jobs)
        self._threads = str(max(1, _cores() // at_once))
        self.places: dict[str, Any] = {str(job.number): None for job in jobs}

    def __call__(self, ids: Sequence[str]) -> dict[str, str]:
        """Start what there is room for, and return job -> state."""
        while self._waiting and len(self._running()) < self._at_once:
            job = self._waiting.pop(0)
            threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", self._threads)}
            with env_override(threads), as_the_user(), _deaf():
                self.places[str(job.number)] = self._executor.submit(self._launcher, *arguments_of(job))
        running = self._running()
        return {
            name: "PENDING" if place is None else "RUNNING" if place in running else "ENDED"
            for name, place in self.places.items()
        }

    def has_result(self, name: str) -> bool:
        """Whether a job has left what it returned."""
        return self.places[name] is not None and is_there(self.places[name].paths.result_pickle)

    def stop(self) -> None:
        """Have those that run save what they have, and wait for that."""
        for place in self._running():
            place._process.send_signal(signal.SIGTERM)
        for place in self._running():
            place._process.wait()

    def _running(self) -> list[Any]:
        return [place for place in self.places.values() if place is not None and not place.done()]


@contextmanager
def _deaf() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: it is for the process that looks after them to stop them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def in_workers(
    launcher: Any, launch: Callable[..., Sequence[JobReturn]], job_overrides: Sequence[Sequence[str]], first: int
) -> Sequence[JobReturn]:
    """Do jobs in joblib's processes, and return what each returned, in order.

    Args:
        launcher: with task_function.
        launch: does the jobs: (job_overrides, first).
        job_overrides: words of each job.
        first: number of the first.
    """
    from hydra_plugins.hydra_joblib_launcher import _core as joblib_launcher
    from joblib.externals.loky.process_executor import BrokenProcessPool

    from losskernel import cli

    jobs = len(job_overrides)
    at_once = processes(complete(launcher.joblib, ("n_jobs",), "joblib")["n_jobs"], jobs)
    say(f"{jobs} job{'s' * (jobs > 1)} on this machine, in {at_once} process{'es' * (at_once > 1)} that they share")
    print(f"  progress  losskernel-status {launcher.config.hydra.sweep.dir}", flush=True)
    logging.getLogger(joblib_launcher.__name__).setLevel(logging.WARNING)  # the same, with all words of every job
    launcher.task_function = partial(contained, launcher.task_function)
    try:
        with as_the_user():
            made = launch(job_overrides, first)
    except BrokenProcessPool:
        lost = "a process of joblib was killed (out of memory?), and with it all the others ended"
        say(f"{lost}; {continues(launcher.config.hydra)} continues them, hydra/launcher=local keeps jobs apart")
        cli._reported.append(error := RuntimeError(lost))
        raise error from None
    cli._reported += [each._return_value for each in made if each.status == JobStatus.FAILED]
    return made


def processes(n_jobs: Any, jobs: int) -> int:
    """Return how many jobs run at a time; -1 means one per core.

    Raises:
        InputError: n_jobs is no such number.
    """
    require_integer("hydra.launcher.n_jobs", n_jobs, at_least=-1)
    require(n_jobs != 0, "hydra.launcher.n_jobs must be >= 1, or -1 for one per core, got 0; raise it")
    return min(jobs, _cores() if n_jobs == -1 else n_jobs)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
