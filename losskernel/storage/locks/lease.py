"""A lease that its holder renews, so that it runs out where the holder's machine is gone.

Clocks of two machines differ, so none is compared with another: whoever finds a lease of another machine watches
whether it is renewed.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from losskernel.errors import TraceError
from losskernel.storage.locks.owner import HELD, Holder, written_at

# Seconds between two signs of life, and without one until a lease has run out.
EVERY, LIFE = 15.0, 60.0
# Seconds between two looks at another's lease, and until one's own is sure to have reached the others.
_LOOK, _SETTLE = 0.5, 1.0


class Cell(Protocol):
    """Where a lease is written; `sure` is one whose system lets no two processes of this machine hold it."""

    sure: bool

    def create(self, content: bytes) -> bool:
        """Write it unless there is one; return whether that was done. Raises Held where the system knows a holder."""
        ...

    def read(self) -> bytes | None:
        """Return what is written; None where nothing is."""
        ...

    def write(self, content: bytes) -> None:
        """Write over it."""
        ...

    def remove(self) -> None:
        """Remove it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Held(Exception):
    """Another process holds a lease.

    Attributes:
        content: of the lease.
        age: of its last renewal in seconds, where that is known.
    """

    def __init__(self, content: bytes | None, age: float | None = None) -> None:
        super().__init__(content, age)
        self.content, self.age = content, age


class Lease:
    """A lease that is held and renewed by a thread, until it is released.

    Args:
        cell: where it is written.
        holder: this process.
        what: what is written under it.
    """

    def __init__(self, cell: Cell, holder: Holder, what: str) -> None:
        self._cell, self._holder, self._what = cell, holder, what
        self._beats, self._last, self._other = 0, time.monotonic(), None
        self._busy, self._ended = threading.Lock(), threading.Event()
        HELD.add(holder.token)
        threading.Thread(target=self._renew, name="losskernel lease", daemon=True).start()

    def beat(self) -> None:
        """Renew it, unless another process has taken it over."""
        with self._busy:
            other = Holder.of(self._cell.read())
            if other is not None and other.token != self._holder.token:
                self._other = other
            elif not self._ended.is_set():
                self._beats += 1
                self._cell.write(self._holder.lease(self._beats))
                self._last = time.monotonic()

    def require(self) -> None:
        """Raise TraceError if another process has taken it over, as it may where this one was halted for long."""
        if time.monotonic() - self._last > LIFE:
            with suppress(Exception):  # whatever hinders it will hinder the write as well, and is named there
                self.beat()
        if self._other is not None:
            raise TraceError(
                f"{self._what} is now being written by {self._other}: this process gave no sign of life for "
                f"{LIFE:.0f} s, or its lock was removed; nothing is lost, the run goes on there"
            )

    def release(self) -> None:
        """Give it back; that this fails harms nobody, for the lease runs out."""
        self._ended.set()
        with self._busy, suppress(Exception):
            mine = Holder.of(self._cell.read())
            if mine is not None and mine.token == self._holder.token and self._holder.process == os.getpid():
                self._cell.remove()
        self._cell.close()
        HELD.discard(self._holder.token)

    def _renew(self) -> None:
        while not self._ended.wait(EVERY):
            with suppress(Exception):  # the next beat may succeed
                self.beat()


@contextmanager
def held(cell: Cell, what: str, key: str) -> Iterator[Lease]:
    """Hold a lease, for as long as the context lasts.

    Args:
        cell: where it is written.
        what: what is written under it.
        key: by which another place is chosen.

    Raises:
        TraceError: another process holds it.
    """
    lease = _take(cell, what, key)
    try:
        yield lease
    finally:
        lease.release()


def _take(cell: Cell, what: str, key: str) -> Lease:
    me = Holder.this()
    try:
        while not cell.create(me.lease(0)):
            found = cell.read() or _waited(cell)
            holder = Holder.of(found)
            safe = cell.sure and (holder is None or holder.is_here())  # by the kernel's own lock
            if not (safe and holder is None) and not _is_left(cell, found, holder, me):
                continue  # given back, or taken, meanwhile
            cell.write(me.lease(0))
            if not safe:
                _settle(cell, me)
            break
    except Held as refusal:
        cell.close()
        raise _refused(what, key, refusal) from None
    except BaseException:
        cell.close()
        raise
    return Lease(cell, me, what)


def _is_left(cell: Cell, found: bytes | None, holder: Holder | None, me: Holder) -> bool:
    """Whether a lease's holder is gone, after as long a look as it needs; False where the lease has changed hands.

    Raises:
        Held: the holder lives.
    """
    if holder is not None and holder.is_here():
        # With the kernel's lock in hand, a process that gives no sign only failed to remove what it gave back.
        silent = cell.sure and time.time() - written_at(found) > LIFE
        if holder.lives() and not silent:
            raise Held(found)
        return True
    if holder is not None and holder.was_requeued_as(me):
        return True
    began = time.monotonic()
    while time.monotonic() - began < LIFE:
        time.sleep(_LOOK)
        now = cell.read()
        if now is None:
            return False
        if now != found:
            raise Held(now, age=0.0)
    return cell.read() == found


def _waited(cell: Cell) -> bytes | None:
    """Return a lease whose holder has just made its file and may be about to write it."""
    time.sleep(_SETTLE)
    return cell.read()


def _settle(cell: Cell, me: Holder) -> None:
    """Make sure that of several which take over what was left, one does."""
    time.sleep(_SETTLE)
    other = Holder.of(cell.read())
    if other is not None and other.token != me.token:
        raise Held(cell.read())


def _refused(what: str, key: str, refusal: Held) -> TraceError:
    holder, age = Holder.of(refusal.content), refusal.age
    if holder is not None and holder.is_here():  # by the same clock
        age = max(0.0, time.time() - written_at(refusal.content))
    owner = "another process" if holder is None else str(holder)
    sign = "" if age is None else f", last sign of life {age:.0f} s ago"
    return TraceError(f"{what} is being written by {owner}{sign}; wait for it, or choose another folder with {key}")
