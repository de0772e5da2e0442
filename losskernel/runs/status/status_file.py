"""What a run says of itself while it is at work: a small file in its folder, for whoever looks from afar."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from losskernel.storage.atomic import write_whole
from losskernel.training.progress import log_line

STATUS = "status.json"
# What a run may be at; the last three are ends.
STATES = ("starting", "training", "preparing", "sampling", "analysing", "interrupted", "failed", "finished")
ENDS = STATES[-3:]
EVERY = 5.0  # seconds between two signs of life
# What stays true when a run goes on to something else.
_LASTING = ("kernel", "draws", "of", "so_far", "error")


class Heartbeat:
    """Writes a run's status, from a thread of its own: neither a long step nor a long analysis is taken for a death.

    That it cannot be written harms nobody. As a context it beats for as long as the context lasts; what is said
    without is written all the same.

    Args:
        folder: of the run.
        every: seconds between two signs of life.
        log: whether to write lines for a log on standard error too.
    """

    def __init__(self, folder: Path, every: float = EVERY, log: bool = False) -> None:
        self._path, self._every, self.logs = folder / STATUS, every, log
        self._job = folder.name if folder.name.isdecimal() else ""  # of a sweep
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        now, before = stamp(time.time()), read_status(folder) or {}
        again = before.get("state") not in (None, "finished")
        self._identity: dict[str, Any] = {
            "first_started": before.get("first_started", now) if again else now,
            "started": now,
            "restarts": int(before.get("restarts", 0)) + 1 if again else 0,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "process_began": process_began(os.getpid()),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "slurm_array": _array(),
        }
        self._facts: dict[str, Any] = {"state": "starting", "advanced": now}
        self._look: Callable[[], float] | None = None
        self._saved: dict[str, str] = {}

    @property
    def restarts(self) -> int:
        """How often the run was continued."""
        return self._identity["restarts"]

    def __enter__(self) -> "Heartbeat":
        slurm = self._identity["slurm_array"] or self._identity["slurm_job"]
        place = f"process {self._identity['process']} on {self._identity['host']}"
        self.line(f"{self._path.parent}: {place}{f', SLURM job {slurm}' if slurm else ''}")
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="heartbeat-saved", daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._every)  # a file system that hangs must not hold up the end

    def says(self, state: str, **facts: Any) -> None:
        """Write at once what the run is at, and what is known of it; what was said of its progress is forgotten."""
        lasting = {name: value for name, value in self._facts.items() if name in _LASTING}
        self._facts = {"state": state, "advanced": stamp(time.time())} | lasting | facts
        self._write()

    def beats(self, **facts: Any) -> None:
        """Note facts for the next sign of life; each stays until it is said anew."""
        self._facts = self._facts | {"advanced": stamp(time.time())} | facts  # whole: another thread reads it

    @property
    def doing(self) -> str | None:
        """What was said last to be done."""
        return self._facts.get("doing")

    def names(self, doing: str) -> None:
        """Note by its name what is done next."""
        self.beats(doing=doing)

    def watches(self, look: Callable[[], float]) -> None:
        """Have it said when the state was written from which a killed run would go on.

        Args:
            look: seconds since 1970. Asked as often as there are signs of life, in a thread of its own: it may be slow,
                and it may fail.
        """
        self._look = look

    def line(self, words: str) -> None:
        """Write a line into the run's own log (Hydra's file), and where standard error is one into that too."""
        logging.getLogger(__name__).info(words)
        if self.logs:
            log_line(words, self._job)

    def _live(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            with suppress(Exception):  # there is no state yet, and behind a URL anything may go wrong
                self._saved = {"saved": stamp(self._look())} if self._look is not None else {}

    def _write(self) -> None:
        with self._lock:
            told = self._facts | self._saved | {"time": stamp(time.time())} | self._identity
            with suppress(OSError):
                write_whole(self._path, json.dumps(_plain(told), indent=1) + "\n")


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return what a run last said of itself; None where it said nothing."""
    try:
        status = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def stamp(seconds: float) -> str:
    """Return seconds since 1970 as a time stamp, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def seconds_of(told: Any) -> float | None:
    """Return a time stamp as seconds since 1970; None for anything else."""
    try:
        return datetime.fromisoformat(told).timestamp()
    except (TypeError, ValueError):
        return None


def process_began(process: int) -> int | None:
    """Return when a process of this machine began, in ticks since it was switched on: numbers are given again.

    None where there is no such process, or nobody tells.
    """
    try:
        # The name, in parentheses, may hold anything.
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if told[0] in "ZX" else int(told[19])  # what nobody has buried is dead all the same
    except (OSError, ValueError, IndexError):
        return None


def _array() -> str | None:
    """Return what SLURM's commands call this task of an array."""
    job, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{job}_{task}" if job and task else None


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
