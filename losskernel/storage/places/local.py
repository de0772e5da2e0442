"""A folder of this machine, and how its files are written so that a kill or a full disk harms none."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from losskernel.storage.atomic import PARTIAL, flush, replacing, write_whole


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
        write_whole(self.path, content, sync=True)

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def lay_out(self, files: Mapping[str, bytes]) -> None:
        """Write a whole folder, under another name first: it has all its files or is not there."""
        own = self.path.resolve()  # where a link leads, which need not be there yet
        own.parent.mkdir(parents=True, exist_ok=True)
        with replacing(own, sync=True) as partial:
            for name, content in files.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)

    def settle(self, names: Iterable[str]) -> None:
        """Bring files below to the disk itself, before anything counts on them."""
        flush(self.path / name for name in names)

    def sweep(self) -> None:
        """Remove what writers left that were killed at it."""
        for each in self.path.rglob(f"*{PARTIAL}"):
            each.unlink(missing_ok=True)
