"""What a run says of itself while it is at work: a small file in its folder, for whoever looks from afar."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

STATUS = "status.json"
# What a run may be at; the last three are ends.
STATES = ("starting", "training", "sampling", "analysing", "interrupted", "failed", "finished")
EVERY = 5.0  # seconds between two beats


class Heartbeat:
    """Writes a run's status; that it cannot be written harms nobody.

    Args:
        folder: of the run.
        every: seconds between two beats.
    """

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        self._path, self._every, self._last = folder / STATUS, every, float("-inf")
        self._facts: dict[str, Any] = {
            "started": time.time(),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        }

    def says(self, state: str, **facts: Any) -> None:
        """Write at once what the run is at, and what is known of it; a fact stays until it is said anew."""
        self._facts |= {"state": state, **facts}
        self._write()

    def beats(self, **facts: Any) -> None:
        """Note facts, and write them if the last beat is some seconds ago."""
        self._facts |= facts
        if time.monotonic() - self._last >= self._every:
            self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        unfinished = self._path.with_name(f".partial-{STATUS}")
        try:
            unfinished.write_text(json.dumps(self._facts | {"time": time.time()}, indent=1) + "\n", encoding="utf-8")
            os.replace(unfinished, self._path)
        except OSError:
            pass


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return what a run last said of itself; None where it said nothing."""
    try:
        return json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
