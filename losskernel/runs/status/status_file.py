"""A run's status file: a small JSON file in its folder, written while it runs, read by other processes and machines."""

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from losskernel.storage.atomic import write_whole
from losskernel.storage.lock_owner import process_start
from losskernel.training.progress import log_line

LOG = "losskernel.log"  # beside what Hydra logs there

STATUS = "status.json"
# The states of a run; the last three are final.
STATES = ("starting", "training", "preparing", "sampling", "analysing", "interrupted", "failed", "finished")
ENDS = STATES[-3:]
EVERY = 5.0  # seconds between two writes
# Facts that stay true when a run enters its next state.
_LASTING = ("kernel", "draws", "of", "so_far", "checking_to_drawing", "error")


class RunStatus:
    """The status of one run: its state, its progress, and which process is executing it.

    As a context it writes the file at regular intervals from a thread of its own, so that a long step or a long
    analysis is not mistaken for a dead process. Failure to write is ignored: the run matters more than its status.

    Args:
        folder: of the run.
        every: seconds between two writes.
        log: whether log lines also go to standard error.
        clock: seconds that pass; all progress of the run is measured by it.

    Attributes:
        logs: whether log lines also go to standard error.
        clock: see above.
    """

    def __init__(
        self, folder: Path, every: float = EVERY, log: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._every, self.logs, self.clock = folder / STATUS, every, log, clock
        self._job = folder.name if folder.name.isdecimal() else ""  # its number in a sweep
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._writer: threading.Thread | None = None
        now, before = timestamp(time.time()), read_status(folder) or {}
        resumed = before.get("state") not in (None, "finished")
        self._identity: dict[str, Any] = {
            "first_started": before.get("first_started", now) if resumed else now,
            "started": now,
            "restarts": int(before.get("restarts", 0)) + 1 if resumed else 0,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "process_began": process_began(os.getpid()),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "slurm_array": array_task(),
        }
        self._facts: dict[str, Any] = {"state": "starting", "advanced": now}
        self._checkpoint_time: Callable[[], float] | None = None
        self._saved: dict[str, str] = {}

    @property
    def restarts(self) -> int:
        """How often the run was resumed."""
        return self._identity["restarts"]

    @property
    def task(self) -> str | None:
        """What the run is doing within its state."""
        return self._facts.get("doing")

    def __enter__(self) -> "RunStatus":
        slurm = self._identity["slurm_array"] or self._identity["slurm_job"]
        process = f"process {self._identity['process']} on {self._identity['host']}"
        self.log(f"{self._path.parent}: {process}{f', SLURM job {slurm}' if slurm else ''}")
        self._writer = threading.Thread(target=self._write_regularly, name="status", daemon=True)
        self._writer.start()
        # In a thread of its own: a request to a remote store may take minutes, and must not delay the status.
        threading.Thread(target=self._follow_checkpoint, name="status-checkpoint", daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        if self._writer is not None:
            self._writer.join(self._every)  # no longer, for a file system that hangs must not delay the end

    def enter(self, state: str, **facts: Any) -> None:
        """Enter a state and write it at once; facts about the progress of the previous state are dropped."""
        lasting = {name: value for name, value in self._facts.items() if name in _LASTING}
        self._facts = {"state": state, "advanced": timestamp(time.time())} | lasting | facts
        self._write()

    def update(self, **facts: Any) -> None:
        """Set facts that the next write contains; each holds until it is set again or the state changes."""
        # A new dictionary instead of a changed one: the writing thread may be reading the old one.
        self._facts = self._facts | {"advanced": timestamp(time.time())} | facts

    def begin(self, task: str) -> None:
        """Name the task that begins."""
        self.update(doing=task)

    def follow_checkpoint(self, modified: Callable[[], float]) -> None:
        """Record when the checkpoint was written from which a killed run would resume.

        Args:
            modified: -> seconds since 1970. Called at every interval from a thread of its own; it may be slow or raise.
        """
        self._checkpoint_time = modified

    def log(self, text: str) -> None:
        """Log a line: to the run's own log, and to standard error where that is read as a log."""
        logging.getLogger(__name__).info(text)
        if self.logs:
            log_line(text, self._job)

    def _write_regularly(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _follow_checkpoint(self) -> None:
        while not self._ended.wait(self._every):
            with suppress(Exception):  # no checkpoint yet; and a remote store may raise anything
                written = self._checkpoint_time
                self._saved = {"saved": timestamp(written())} if written is not None else {}

    def _write(self) -> None:
        with self._lock, suppress(OSError):
            content = self._facts | self._saved | {"time": timestamp(time.time())} | self._identity
            write_whole(self._path, json.dumps(as_json(content), indent=1, default=str) + "\n")


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return the status of a run; None where there is none, or it cannot be read."""
    return read_object(folder / STATUS) or None


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} where there is none, or it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as a time stamp, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def seconds_of(stamp: Any) -> float | None:
    """Return a time stamp as seconds since 1970; None for anything else."""
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (TypeError, ValueError):
        return None


def process_began(process: int) -> int | None:
    """Return when a process of this machine began, in clock ticks since boot; process numbers alone are reused.

    None where the process is dead or the system has no /proc.
    """
    start = process_start(process)
    return int(start) if start else None


def as_json(value: Any) -> Any:
    """Return a value for JSON, which has no NaN or infinity: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def array_task() -> str | None:
    """Return SLURM's name of this task of a job array."""
    job, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{job}_{task}" if job and task else None


@contextmanager
def progress_log(folder: Path) -> Iterator[None]:
    """Write lines of progress into losskernel.log in the run's folder, whatever else is logged and where."""
    logger, file = logging.getLogger(__name__), logging.FileHandler(folder / LOG, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    level, propagates = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(file)
    try:
        yield
    finally:
        logger.removeHandler(file)
        file.close()
        logger.setLevel(level)
        logger.propagate = propagates
