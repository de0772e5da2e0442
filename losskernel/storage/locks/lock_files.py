"""Where a lease is written: in a file upon which the kernel's lock is held, or in an object below a URL."""

import errno
import os
import weakref
from contextlib import suppress
from pathlib import Path

from losskernel.storage.locks.lease import Held
from losskernel.storage.locks.owner import Holder
from losskernel.storage.places import Remote, guard

try:
    import fcntl
except ImportError:
    fcntl = None

# What a file system answers that knows no locks.
_UNKNOWN = {getattr(errno, name) for name in ("ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOLCK")}


class ObjectCell:
    """A lease below a URL. What reaches it may take no notice of a wish to create it only where it is not there: then
    two processes that start in the same moment both may."""

    sure = False

    def __init__(self, place: Remote) -> None:
        self._place = place

    def create(self, content: bytes) -> bool:
        """Write the lease unless there is one; return whether that was done."""
        return guard(self._place, self._place.create, content)

    def read(self) -> bytes | None:
        """Return the lease; None where there is none."""
        try:
            return self._place.read()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Write over it."""
        guard(self._place, self._place.write, content)

    def remove(self) -> None:
        """Remove it."""
        self._place.remove()

    def close(self) -> None:
        """Nothing is open."""


class FileCell:
    """A lease in a file upon which the kernel's lock is held, where the file system has any."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle, self.sure = path, -1, False
        _OPEN.add(self)

    def create(self, content: bytes) -> bool:
        """Open the file and lock it; return whether it is new, and then holds the content.

        Raises:
            Held: another process holds the kernel's lock.
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
            if self._is_there():
                break
        if new:
            self._write(content)
        return new

    def _lock(self) -> None:
        assert fcntl is not None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.sure = True
        except BlockingIOError:
            content = self.read()
            holder = Holder.of(content)
            if holder is None or holder.is_here():
                raise Held(content) from None
            self.sure = False  # a file server keeps the locks of a dead machine for long: its lease decides
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            self.sure = False

    def _is_there(self) -> bool:
        """Whether the open file is still the one at the path: its holder removes it in the end."""
        try:
            found, own = os.stat(self._path), os.fstat(self._handle)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def read(self) -> bytes | None:
        """Return the lease; opened anew, for only then does a file server say what other machines wrote."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Write over it."""
        guard(self._path, self._write, content)

    def _write(self, content: bytes) -> None:
        os.pwrite(self._handle, content, 0)
        os.fsync(self._handle)

    def remove(self) -> None:
        """Remove it; who opened it meanwhile finds that out."""
        if self._is_there():
            self._path.unlink()

    def close(self) -> None:
        """Let go of the kernel's lock."""
        if self._handle >= 0:
            with suppress(OSError):
                os.close(self._handle)
        self._handle = -1


_OPEN: "weakref.WeakSet[FileCell]" = weakref.WeakSet()


def _forget() -> None:
    """Close, in a child process, what its parent holds: the kernel's lock would outlive the parent there."""
    for file in list(_OPEN):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
