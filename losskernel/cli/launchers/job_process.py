"""What the process of a sweep's job does around it, where a launcher started that process."""

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

from losskernel.cli.launchers.jobs import at_work_on, shown

DEVICES = "CUDA_VISIBLE_DEVICES"


def at_work(call: Callable[..., Any], given: Sequence[Any]) -> Any:
    """Do one job that submitit started, or started again after a requeue.

    Args:
        call: does the job.
        given: what it takes.
    """
    import submitit

    paths = submitit.JobEnvironment().paths
    unfinished = [path.with_suffix(f"{path.suffix}.save_tmp") for path in (paths.result_pickle, paths.submitted_pickle)]
    for path in (paths.result_pickle, *unfinished):  # of an earlier start; submitit would trip over what a kill left
        path.unlink(missing_ok=True)
    # While nothing has begun there is nothing to save; submitit would let SIGTERM pass, and SIGUSR1 end the job.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGCONT"):
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR2))
    logging.getLogger("submitit").propagate = False  # it prints its lines itself
    return call(*given)


def apart(settings: Mapping[str, Any]) -> None:
    """Leave the terminal's own signals to the process that started this one; see the devices that it sees."""
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop(DEVICES, None)  # submitit hides all
    if settings.get("devices") is not None:
        os.environ[DEVICES] = settings["devices"]


def told(task: Callable[[Any], Any], config: Any) -> Any:
    """Do a task; an error that nobody has printed leaves its traceback here, for only its words travel.

    Args:
        task: of the command.
        config: of the job.
    """
    from losskernel import cli

    try:
        return task(config)
    except Exception as error:
        if error not in cli._reported:
            traceback.print_exception(error)
        sys.stderr.flush()
        raise _portable(error) from None


def contained(task: Callable[[Any], Any], config: Any) -> Any:
    """Do a task in a process that others share, as they do the terminal: of a fault of the code its line goes there.

    What ends the process of a job ends this job alone.

    Args:
        task: of the command.
        config: of the job.
    """
    from losskernel import cli

    try:
        return task(config)
    except SystemExit as end:
        raise RuntimeError(f"the job was ended (exit code {end.code})") from None
    except Exception as error:
        if error not in cli._reported:
            _tell(error)
        raise _portable(error) from None


def _tell(error: Exception) -> None:
    """Print what a job raised and leave the traceback in its log."""
    from losskernel import cli

    trace = "".join(traceback.format_exception(error))
    now = HydraConfig.get()
    log = Path(now.runtime.output_dir) / f"{now.job.name}.log"
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    line = f"losskernel: {at_work_on(now)} failed: {words}; log {shown(log)}\n"
    sys.stderr.write(trace if cli._WANTS_TRACEBACK else line)
    sys.stderr.flush()
    with suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(trace)


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
