"""Locks: one process at a time writes a run's folder or a trace, and a lock does not outlive its process.

Two mechanisms together, since neither suffices. The kernel's lock on the lock file ends with its process and leaves no
race, but some file systems have none, some shared ones apply it within each machine only, and object stores have none
at all. So the file or object also carries a lease, a record of the owner which it renews. Whether an owner is alive:

- on this machine: ask the kernel whether the process exists;
- the same SLURM job before it was requeued: it is not;
- on another machine: watch for `LIFE` seconds whether the lease is renewed. Clocks of two machines are never compared.
"""

import errno
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from losskernel.errors import TraceError
from losskernel.storage.locations import RemoteLocation, StorageLocation, guard
from losskernel.storage.lock_owner import HELD_TOKENS, LockOwner, renewed_at

try:
    import fcntl
except ImportError:
    fcntl = None

LOCK = ".lock"
# Seconds between two renewals of a lease, and without one until it has expired.
RENEWAL, LIFE = 15.0, 60.0
# Seconds between two reads of another's lease, and until a write is certain to be seen by all others.
_POLL, _SETTLE = 0.5, 1.0
# Errors of file systems without locks.
_NO_LOCKS = {getattr(errno, name) for name in ("ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOLCK")}


@contextmanager
def locked_folder(folder: Path) -> Iterator["Lease | None"]:
    """Keep other processes out of a run's folder that is being written.

    Raises:
        TraceError: another process is writing there.
    """
    with _local_lease(folder / LOCK, str(folder), "paths.run") as lease:
        yield lease


@contextmanager
def locked_store(location: StorageLocation) -> Iterator["Lease | None"]:
    """Keep other processes from writing a store, by a file beside it; of a URL, by an object below.

    Raises:
        TraceError: another process is writing there.
    """
    if isinstance(location, RemoteLocation):
        with _held(LeaseObject(location / LOCK), str(location), "out= or paths.traces") as lease:
            yield lease
        return
    target = location.path.resolve()  # all links to a store share one lock
    with _local_lease(target.with_name(f".{target.name}{LOCK}"), str(location), "out=") as lease:
        yield lease


@contextmanager
def _local_lease(path: Path, what: str, key: str) -> Iterator["Lease | None"]:
    if fcntl is None:  # on Windows nothing keeps two processes apart
        yield None
        return
    guard(path, path.parent.mkdir, 0o777, True, True)
    with _held(LeaseFile(path), what, key) as lease:
        yield lease


@contextmanager
def _held(record: "LeaseFile | LeaseObject", what: str, key: str) -> Iterator["Lease"]:
    """Hold a lease while the context lasts.

    Args:
        record: where the lease is written.
        what: what is written under it.
        key: by which another folder is chosen.

    Raises:
        TraceError: another process holds it.
    """
    owner = LockOwner.current()
    try:
        _acquire(record, owner)
    except _Held as held:
        record.close()
        raise held.refusal(what, key) from None
    except BaseException:
        record.close()
        raise
    lease = Lease(record, owner, what)
    try:
        yield lease
    finally:
        lease.release()


class _Held(Exception):
    """Another process holds a lease: its record, and the seconds since its last renewal where they are known."""

    def __init__(self, record: bytes | None, age: float | None = None) -> None:
        super().__init__(record, age)
        self.record, self.age = record, age

    def refusal(self, what: str, key: str) -> TraceError:
        """Return the error for the user."""
        owner, age = LockOwner.parse(self.record), self.age
        if owner is not None and owner.is_local():  # both times are of one clock
            age = max(0.0, time.time() - renewed_at(self.record))
        sign = "" if age is None else f", last sign of life {age:.0f} s ago"
        return TraceError(
            f"{what} is being written by {owner or 'another process'}{sign}; wait for it, or choose another folder "
            f"with {key}"
        )


def _acquire(record: "LeaseFile | LeaseObject", me: LockOwner) -> None:
    """Write a new lease, or take over one whose owner is dead.

    Raises:
        _Held: the owner is alive, or another process was faster.
    """
    while not record.create(me.record(0)):
        content = record.read()
        if not content:  # just created, and perhaps about to be written
            time.sleep(_SETTLE)
            content = record.read()
        owner = LockOwner.parse(content)
        # With the kernel's lock in hand no other process of this machine can compete for what one of them left.
        alone = record.exclusive and (owner is None or owner.is_local())
        if not (alone and owner is None) and not _is_dead(owner, content, record, me):
            continue  # released while it was watched
        record.write(me.record(0))
        if alone:
            return
        # Several may take over at once, and the last writer wins: wait until every write has arrived.
        time.sleep(_SETTLE)
        content = record.read()
        winner = LockOwner.parse(content)
        if winner is not None and winner.token != me.token:
            raise _Held(content)
        return


def _is_dead(owner: LockOwner | None, content: bytes | None, record: "LeaseFile | LeaseObject", me: LockOwner) -> bool:
    """Whether a lease's owner is dead; False where the lease was released while it was watched.

    Raises:
        _Held: the owner is alive.
    """
    if owner is not None and owner.is_local():
        # A live process that has let go of the kernel's lock and is silent could not remove its lease on release.
        released = record.exclusive and time.time() - renewed_at(content) > LIFE
        if owner.is_alive() and not released:
            raise _Held(content)
        return True
    if owner is not None and owner.was_requeued_as(me):
        return True
    start = time.monotonic()
    while time.monotonic() - start < LIFE:
        time.sleep(_POLL)
        now = record.read()
        if now is None:
            return False
        if now != content:
            raise _Held(now, age=0.0)
    return record.read() == content


class Lease:
    """A lease that is held, and renewed by a thread until it is released.

    Args:
        record: where it is written.
        owner: this process.
        what: what is written under it.
    """

    def __init__(self, record: "LeaseFile | LeaseObject", owner: LockOwner, what: str) -> None:
        self._record, self._owner, self._what = record, owner, what
        self._renewals, self._renewed, self._thief = 0, time.monotonic(), None
        self._busy, self._released = threading.Lock(), threading.Event()
        HELD_TOKENS.add(owner.token)
        threading.Thread(target=self._keep, name="losskernel lease", daemon=True).start()

    def renew(self) -> None:
        """Renew it, unless another process has taken it over."""
        with self._busy:
            other = LockOwner.parse(self._record.read())
            if other is not None and other.token != self._owner.token:
                self._thief = other
            elif not self._released.is_set():
                self._renewals += 1
                self._record.write(self._owner.record(self._renewals))
                self._renewed = time.monotonic()

    def check(self) -> None:
        """Raise TraceError if another process has taken it over, as it may where this one was suspended for long."""
        if time.monotonic() - self._renewed > LIFE:
            with suppress(Exception):  # the write that follows meets the same error, and names it
                self.renew()
        if self._thief is not None:
            raise TraceError(
                f"{self._what} is now being written by {self._thief}: this process gave no sign of life for "
                f"{LIFE:.0f} s, or its lock was removed; nothing is lost, the run goes on there"
            )

    def release(self) -> None:
        """Remove it; where that fails, it expires."""
        self._released.set()
        with self._busy, suppress(Exception):
            owner = LockOwner.parse(self._record.read())
            # Not in a forked child: its parent goes on with the lease.
            if owner is not None and owner.token == self._owner.token and self._owner.process == os.getpid():
                self._record.remove()
        self._record.close()
        HELD_TOKENS.discard(self._owner.token)

    def _keep(self) -> None:
        while not self._released.wait(RENEWAL):
            with suppress(Exception):  # the next renewal may succeed
                self.renew()


class LeaseObject:
    """A lease below a URL.

    Where a store ignores the condition that an object must not exist yet, two processes that start at the same moment
    may both create it.
    """

    exclusive = False  # no kernel's lock goes with it

    def __init__(self, location: RemoteLocation) -> None:
        self._location = location

    def create(self, content: bytes) -> bool:
        """Write the lease unless there is one; return whether it was written."""
        return guard(self._location, self._location.create, content)

    def read(self) -> bytes | None:
        """Return the lease, or None."""
        try:
            return self._location.read()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Overwrite it."""
        guard(self._location, self._location.write, content)

    def remove(self) -> None:
        """Remove it."""
        self._location.remove()

    def close(self) -> None:
        """Do nothing: no handle is open."""


class LeaseFile:
    """A lease in a file that is locked by the kernel (`exclusive`), where the file system has locks."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle, self.exclusive = path, -1, False
        _OPEN.add(self)

    def create(self, content: bytes) -> bool:
        """Open and lock the file; return whether it is new, in which case it holds the content.

        Raises:
            _Held: another process of this machine holds the kernel's lock.
        """
        return guard(self._path, self._create, content)

    def _create(self, content: bytes) -> bool:
        while True:
            self.close()
            try:
                self._handle, new = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
            except FileExistsError:
                try:
                    self._handle, new = os.open(self._path, os.O_RDWR), False
                except FileNotFoundError:
                    continue  # its holder has just removed it
            self._lock()
            if self._is_current():  # it may have been removed before it was locked
                break
        if new:
            self._write(content)
        return new

    def _lock(self) -> None:
        assert fcntl is not None
        self.exclusive = False
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.exclusive = True
        except BlockingIOError:
            content = self.read()
            owner = LockOwner.parse(content)
            # A file server keeps the locks of a dead machine for long, so of other machines the lease decides.
            if owner is None or owner.is_local():
                raise _Held(content) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _is_current(self) -> bool:
        try:
            at_path, opened = os.stat(self._path), os.fstat(self._handle)
        except FileNotFoundError:
            return False
        return (at_path.st_dev, at_path.st_ino) == (opened.st_dev, opened.st_ino)

    def read(self) -> bytes | None:
        """Return the lease, or None; opened anew, since only then does a file server show what others wrote."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Overwrite it in place: a new file would not carry the kernel's lock."""
        guard(self._path, self._write, content)

    def _write(self, content: bytes) -> None:
        os.pwrite(self._handle, content, 0)
        os.fsync(self._handle)

    def remove(self) -> None:
        """Remove the file; a process that has opened it meanwhile notices."""
        if self._is_current():
            self._path.unlink()

    def close(self) -> None:
        """Release the kernel's lock."""
        if self._handle >= 0:
            with suppress(OSError):
                os.close(self._handle)
        self._handle = -1


_OPEN: "weakref.WeakSet[LeaseFile]" = weakref.WeakSet()


def _close_in_child() -> None:
    """Close what the parent holds: an inherited handle would keep the kernel's lock after the parent has died."""
    for file in list(_OPEN):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
