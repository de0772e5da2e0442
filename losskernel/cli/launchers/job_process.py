"""What the process of a sweep's job does around the job, where a launcher started that process."""

import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from losskernel.cli import failures
from losskernel.cli.failures import short_path
from losskernel.cli.launchers.sweep_jobs import job_name

DEVICES = "CUDA_VISIBLE_DEVICES"


def run_submitted(call: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Do one job that submitit started, or started again after a requeue.

    Args:
        call: does the job.
        arguments: of `call`.
    """
    import submitit

    paths = submitit.JobEnvironment().paths
    # submitit fails on files that an earlier start left when it was killed.
    unfinished = [path.with_suffix(f"{path.suffix}.save_tmp") for path in (paths.result_pickle, paths.submitted_pickle)]
    for path in (paths.result_pickle, *unfinished):
        path.unlink(missing_ok=True)
    # Until the run has begun there is nothing to save, and the defaults are right. submitit's own handlers would
    # ignore SIGTERM, and let SIGUSR1 end the job instead of requeueing it as SIGUSR2 does.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGCONT"):
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR2))
    logging.getLogger("submitit").propagate = False  # it has a handler, and its lines would appear twice
    return call(*arguments)


def detach(settings: Mapping[str, Any]) -> None:
    """Detach this process from the terminal, whose signals are for its parent; let it see the parent's devices.

    Args:
        settings: of the launcher; `devices` is the parent's CUDA_VISIBLE_DEVICES.
    """
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop(DEVICES, None)  # submitit hides all
    if settings.get("devices") is not None:
        os.environ[DEVICES] = settings["devices"]


def run_alone(task: Callable[[Any], Any], config: Any) -> Any:
    """Do a task in a process with a log; the traceback goes there, since submitit passes on only the error.

    Args:
        task: of the command.
        config: of the job.
    """
    return _run(task, config, traceback.print_exception)


def run_in_shared_process(task: Callable[[Any], Any], config: Any) -> Any:
    """Do a task in a process that several jobs share, as they share the terminal: an error is one line there.

    What would end the process ends this job alone.

    Args:
        task: of the command.
        config: of the job.
    """
    try:
        return _run(task, config, _print_and_log)
    except SystemExit as end:
        raise RuntimeError(f"the job was ended (exit code {end.code})") from None


def _run(task: Callable[[Any], Any], config: Any, report: Callable[[Exception], Any]) -> Any:
    """Do a task; report an error that is not reported yet, and raise it so that another process can unpickle it."""
    try:
        return task(config)
    except Exception as error:
        if error not in failures.reported:
            report(error)
        sys.stderr.flush()
        raise _portable(error) from None


def _print_and_log(error: Exception) -> None:
    """Print a line, and append the traceback to the job's log; print the traceback where the user asks for it."""
    trace = "".join(traceback.format_exception(error))
    hydra_config = HydraConfig.get()
    log = Path(hydra_config.runtime.output_dir) / f"{hydra_config.job.name}.log"
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    line = f"losskernel: {job_name(hydra_config)} failed: {words}; log {short_path(log)}\n"
    sys.stderr.write(trace if failures.WANTS_TRACEBACK else line)
    with suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(trace)


def _portable(error: Exception) -> Exception:
    """Return an error that another process can unpickle."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
