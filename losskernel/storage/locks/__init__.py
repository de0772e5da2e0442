"""One process at a time where something is written; a lock that dies with its process, however it ends.

The kernel of this machine keeps processes apart that it runs itself. Some file systems have no such locks, and on some
that machines share they hold within a machine only: so a lock's file also carries a lease.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from losskernel.storage.locks.lease import Lease as Lease
from losskernel.storage.locks.lease import held
from losskernel.storage.locks.lock_files import FileCell, ObjectCell, fcntl
from losskernel.storage.places import LEASE, Folder, Place, Remote, guard

LOCK = ".lock"


@contextmanager
def only_one(folder: Path) -> Iterator[Lease | None]:
    """Keep other processes out of a run's folder that is being written.

    Raises:
        TraceError: another process is at work there.
    """
    with _held(Folder(folder), folder / LOCK, "paths.run") as lease:
        yield lease


@contextmanager
def only_writer(place: Place) -> Iterator[Lease | None]:
    """Keep other processes from writing a store, by a file beside it; of a URL, by an object below.

    Raises:
        TraceError: another process is at work there.
    """
    if isinstance(place, Remote):
        with held(ObjectCell(place / LEASE), str(place), "out= or paths.traces") as lease:
            yield lease
        return
    own = place.path.resolve()  # all links to it lead to one lock
    with _held(place, own.with_name(f".{own.name}{LOCK}"), "out=") as lease:
        yield lease


@contextmanager
def _held(place: Folder, path: Path, key: str) -> Iterator[Lease | None]:
    if fcntl is None:  # Windows has no such locks: two processes in one folder are not kept apart there
        yield None
        return
    guard(path, path.parent.mkdir, 0o777, True, True)
    with held(FileCell(path), str(place), key) as lease:
        yield lease
