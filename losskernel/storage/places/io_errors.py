"""What the system or a store refuses, as one line that says what to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from losskernel.errors import InputError, TraceError
from losskernel.storage.places.local import Folder
from losskernel.storage.places.remote import Remote

Place = Folder | Remote
Got = TypeVar("Got")
_LEFT = "; what was written before stays readable and the run can be continued"


def guard(where: Path | Place, write: Callable[..., Got], *arguments: Any) -> Got:
    """Run a write; turn the refusal of the system or of a store into one line that says what is left.

    Raises:
        TraceError: it cannot be written (permissions, full disk, vanished file system, network).
    """
    with _refusals(where, "write", "free space or choose another folder", _LEFT):
        return write(*arguments)


def reading(where: Path | Place, read: Callable[..., Got], *arguments: Any) -> Got:
    """Run a read; that something is not there stays a FileNotFoundError.

    Raises:
        TraceError: it cannot be read (permissions, vanished file system, network).
    """
    with _refusals(where, "read", "check the file system and its permissions", ""):
        return read(*arguments)


@contextmanager
def _refusals(where: Path | Place, what: str, remedy: str, left: str) -> Iterator[None]:
    # What lies behind a URL fails in as many ways as there are libraries that reach it.
    faults: type[Exception] = Exception if isinstance(where, Remote) else OSError
    if isinstance(where, Remote):
        remedy = "check the address, the credentials and the network, or choose another place"
    try:
        yield
    except (TraceError, InputError):
        raise
    except faults as error:
        if what == "read" and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise TraceError(f"cannot {what} {where}: {reason}; {remedy}{left}") from error
