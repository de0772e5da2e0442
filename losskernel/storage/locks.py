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
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from losskernel.errors import TraceError
from losskernel.storage.locations import LocalLocation, RemoteLocation, StorageLocation, guard
from losskernel.storage.lock_owner import HELD_TOKENS, LockOwner

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


def locked_folder(folder: Path) -> AbstractContextManager["Lease | None"]:
    """Keep other processes out of a run's folder while the context lasts.

    Raises:
        TraceError: another process is writing there.
    """
    return _held(LeaseFile(folder / LOCK), str(folder), "paths.run")


def locked_store(location: StorageLocation) -> AbstractContextManager["Lease | None"]:
    """Keep other processes from writing a store, by a file beside it; of a URL, by an object below.

    Raises:
        TraceError: another process is writing there.
    """
    if isinstance(location, RemoteLocation):
        return _held(LeaseObject(f"{location}/{LOCK}"), str(location), "out= or paths.traces")
    target = location.path.resolve()  # all links to a store share one lock
    return _held(LeaseFile(target.with_name(f".{target.name}{LOCK}")), str(location), "out=")


@contextmanager
def _held(slot: "LeaseObject | LeaseFile", what: str, key: str) -> Iterator["Lease | None"]:
    """Hold a lease while the context lasts.

    Args:
        slot: where the lease is written.
        what: what is written under it.
        key: by which another folder is chosen.

    Raises:
        TraceError: another process holds it.
    """
    if fcntl is None and isinstance(slot, LeaseFile):  # on Windows nothing keeps two processes apart
        yield None
        return
    try:
        lease = Lease(slot, guard(slot, _acquire, slot), what)
    except BaseException as error:
        slot.close()
        if not isinstance(error, _Held):
            raise
        owner, age = LockOwner.parse(error.record), error.age
        age = owner.age if owner is not None and owner.is_local() else age  # times of one clock
        sign = "" if age is None else f", last sign of life {age:.0f} s ago"
        raise TraceError(
            f"{what} is being written by {owner or 'another process'}{sign}; wait for it, or choose another folder "
            f"with {key}"
        ) from None
    try:
        yield lease
    finally:
        lease.release()


class _Held(TraceError):
    """Another process holds a lease: its record, and the seconds since its last renewal where they are known."""

    def __init__(self, record: bytes | None, age: float | None = None) -> None:
        super().__init__(record, age)
        self.record, self.age = record, age


def _acquire(slot: "LeaseObject | LeaseFile") -> LockOwner:
    """Write a new lease, or take over one whose owner is dead; return its owner, this process.

    Raises:
        _Held: the owner is alive, or another process was faster.
    """
    me = LockOwner.current()
    while not slot.create(me.record()):
        record = _read(slot)
        if not record:  # its owner may have created the file just now, and be about to write it
            time.sleep(_SETTLE)
            record = _read(slot)
        owner = LockOwner.parse(record)
        # With the kernel's lock in hand no other process of this machine can compete for what one of them left.
        alone = slot.exclusive and (owner is None or owner.is_local())
        if not (alone and owner is None) and not _is_dead(owner, record, slot, me):
            continue  # released while it was watched
        slot.write(me.record())
        if not alone:
            # Several may take over at once, and the last writer wins: wait until every write has arrived.
            time.sleep(_SETTLE)
            winner = LockOwner.parse(record := _read(slot))
            if winner is not None and winner.token != me.token:
                raise _Held(record)
        break
    return me


def _is_dead(owner: LockOwner | None, record: bytes | None, slot: "LeaseObject | LeaseFile", me: LockOwner) -> bool:
    """Whether a lease's owner is dead; False where the lease was released while it was watched.

    Raises:
        _Held: the owner is alive.
    """
    if owner is not None and owner.is_local():
        # A live process that has let go of the kernel's lock and is silent could not remove its lease on release.
        if owner.is_alive() and not (slot.exclusive and owner.age > LIFE):
            raise _Held(record)
        return True
    if owner is not None and owner.was_requeued_as(me):
        return True
    start = time.monotonic()
    while time.monotonic() - start < LIFE:
        time.sleep(_POLL)
        now = _read(slot)
        if now is None:
            return False
        if now != record:
            raise _Held(now, age=0.0)
    return _read(slot) == record


def _read(slot: LocalLocation | RemoteLocation) -> bytes | None:
    """Return a lease's record, or None."""
    # Opened anew each time: a file server shows what other machines wrote only to handles that are opened after it.
    with suppress(FileNotFoundError):
        return slot.read()


class Lease:
    """A lease that is held, and renewed by a thread until it is released.

    Args:
        slot: where it is written.
        owner: this process.
        what: what is written under it.
    """

    def __init__(self, slot: "LeaseObject | LeaseFile", owner: LockOwner, what: str) -> None:
        self._slot, self._owner, self._what = slot, owner, what
        self._renewed, self._successor = time.monotonic(), None
        self._busy, self._released = threading.Lock(), threading.Event()
        HELD_TOKENS.add(owner.token)
        threading.Thread(target=self._keep, name="losskernel lease", daemon=True).start()

    def renew(self) -> None:
        """Renew it, unless another process has taken it over."""
        with self._busy:
            other = LockOwner.parse(_read(self._slot))
            if other is not None and other.token != self._owner.token:
                self._successor = other
            elif not self._released.is_set():
                self._owner = self._owner.renewed()
                self._slot.write(self._owner.record())
                self._renewed = time.monotonic()

    def check(self) -> None:
        """Raise TraceError if another process has taken it over, as it may where this one was suspended for long."""
        if time.monotonic() - self._renewed > LIFE:
            with suppress(Exception):  # the write that follows meets the same error, and names it
                self.renew()
        if self._successor is not None:
            raise TraceError(
                f"{self._what} is now being written by {self._successor}: this process gave no sign of life for "
                f"{LIFE:.0f} s, or its lock was removed; nothing is lost, the run goes on there"
            )

    def release(self) -> None:
        """Remove it; where that fails, it expires."""
        self._released.set()
        with self._busy, suppress(Exception):
            owner = LockOwner.parse(_read(self._slot))
            # Not in a forked child: its parent goes on with the lease.
            if owner is not None and owner.token == self._owner.token and owner.process == os.getpid():
                self._slot.remove()
        self._slot.close()
        HELD_TOKENS.discard(self._owner.token)

    def _keep(self) -> None:
        while not self._released.wait(RENEWAL):
            with suppress(Exception):  # the next renewal may succeed
                self.renew()


class LeaseObject(RemoteLocation):
    """A lease below a URL.

    Where a store ignores the condition that an object must not exist yet, two processes that start at the same moment
    may both create it.
    """

    # Whether the kernel's lock keeps other processes of this machine out.
    exclusive = False

    def close(self) -> None:
        """Do nothing: no handle is open."""


class LeaseFile(LocalLocation):
    """A lease in a file that is locked by the kernel (`exclusive`), where the file system has locks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._handle, self.exclusive = -1, False
        _OPEN.add(self)

    def create(self, record: bytes) -> bool:
        """Open and lock the file; return whether it is new, in which case the record is written.

        Raises:
            _Held: another process of this machine holds the kernel's lock.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.close()
            try:
                self._handle, new = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
            except FileExistsError:
                try:
                    self._handle, new = os.open(self.path, os.O_RDWR), False
                except FileNotFoundError:
                    continue  # its holder has just removed it
            self._lock()
            if self._is_current():  # it may have been removed before it was locked
                break
        if new:
            self.write(record)
        return new

    def _lock(self) -> None:
        assert fcntl is not None
        self.exclusive = False
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.exclusive = True
        except BlockingIOError:
            record = _read(self)
            owner = LockOwner.parse(record)
            # A file server keeps the locks of a dead machine for long, so of other machines the lease decides.
            if owner is None or owner.is_local():
                raise _Held(record) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _is_current(self) -> bool:
        """Whether the open file is the one at the path."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        return False

    def write(self, content: bytes) -> None:
        """Overwrite it in place: a new file would not carry the kernel's lock."""
        os.pwrite(self._handle, content, 0)
        os.fsync(self._handle)

    def remove(self) -> None:
        """Remove the file; a process that has opened it meanwhile notices."""
        if self._is_current():
            self.path.unlink()

    def close(self) -> None:
        """Release the kernel's lock."""
        if self._handle >= 0:
            with suppress(OSError):
                os.close(self._handle)
        self._handle = -1


_OPEN: "weakref.WeakSet[LeaseFile]" = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    # A child closes what its parent holds: an inherited handle would keep the kernel's lock after the parent has died.
    os.register_at_fork(after_in_child=lambda: [file.close() for file in list(_OPEN)])
