"""One process at a time in a run's folder; a lock that dies with its process, however it ends."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from losskernel.errors import TraceError

try:
    import fcntl
except ImportError:  # Windows has none: two processes in one folder are not kept apart there
    fcntl = None

LOCK = ".lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that is being written.

    The kernel holds the lock for the open file, so that there is none left to remove after a crash; what the file says
    is for people.

    Raises:
        TraceError: another process is at work there.
    """
    if fcntl is None:
        yield
        return
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise TraceError(
                f"{folder} is being written by {owner}; wait for it, or choose another folder with paths.run"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
