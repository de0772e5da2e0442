"""A folder of this machine, and how its files are written so that a kill or a full disk harms none."""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# How a name of the folder is called while it is written.
PARTIAL = ".partial"


class Folder:
    """A file or folder of this machine.

    Args:
        path: where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.path / name)

    @property
    def zarr(self) -> Any:
        """What Zarr opens."""
        from zarr.storage import LocalStore

        return LocalStore(self.path)

    @property
    def occupied(self) -> bool:
        """Whether something lies here; an empty folder is none."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def exists(self) -> bool:
        """Whether the file or folder is there."""
        return self.path.exists()

    def names(self) -> set[str]:
        """Return the files below, relative to here."""
        return {each.relative_to(self.path).as_posix() for each in self.path.rglob("*") if each.is_file()}

    def read(self) -> bytes:
        """Return the file's content."""
        return self.path.read_bytes()

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the content of files below; those that are not there are left out."""
        found = {}
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                found[name] = (self.path / name).read_bytes()
        return found

    def write(self, content: bytes) -> None:
        """Write the file so that it is either the old one or the whole new one, on the disk itself."""
        partial = self.path.with_name(self.path.name + PARTIAL)
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)  # a full disk needs the room
            raise

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def lay_out(self, files: Mapping[str, bytes]) -> None:
        """Write a whole folder, under another name first: it has all its files or is not there."""
        own = self.path.resolve()  # where a link leads, which need not be there yet
        partial = own.with_name(own.name + PARTIAL)
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for name, content in files.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)
            Folder(partial).settle(files)
            os.replace(partial, own)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
            raise

    def settle(self, names: Iterable[str]) -> None:
        """Bring files below to the disk itself, before anything counts on them."""
        for name in names:
            handle = os.open(self.path / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def sweep(self) -> None:
        """Remove what writers left that were killed at it."""
        for each in self.path.rglob(f"*{PARTIAL}"):
            each.unlink(missing_ok=True)
