"""Where labelled pictures lie: in folders, or in a zip archive that is read in place."""

import hashlib
import io
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from losskernel.errors import InputError, require

_HASHED_BYTES = 2**28  # of files whose content tells whether they changed; of larger sets names, sizes and times do


class ImageSource(ABC):
    """Picture files below one root, each called by its path below it, with "/" between the parts.

    Attributes:
        root: the folder, or the archive's file.
    """

    root: Path

    def __truediv__(self, below: str) -> str:
        """Return how a path below the root is called in messages."""
        return f"{self.root}/{below}" if below else str(self.root)

    @abstractmethod
    def subfolders(self, below: str) -> list[str]:
        """Return the names of the folders in a folder, sorted; hidden ones left out, none where there is no folder."""

    @abstractmethod
    def files(self, below: str) -> list[str]:
        """Return the names of the files in a folder itself, sorted; none where there is no folder."""

    @abstractmethod
    def images(self, below: str, classes: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
        """Return (paths below the root, class numbers [n]) of all images below a folder's class folders, sorted.

        Args:
            below: folder that holds the classes' folders; "" is the root itself.
            classes: a class's folder -> its number.
        """

    @abstractmethod
    def open(self, name: str) -> Path | BinaryIO:
        """Return a file, as Pillow opens it."""

    @abstractmethod
    def digest(self, names: Sequence[str], changes: bool) -> bytes:
        """Return a hash that changes with the names and the content of files.

        Args:
            names: of the files.
            changes: whether the time of the last change of an entry counts, which no program can set back.
        """

    def text(self, name: str) -> str:
        """Return the content of a text file.

        Raises:
            InputError: it is not there, or no text.
        """
        file = self.open(name)
        try:
            return (file.read_bytes() if isinstance(file, Path) else file.read()).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self / name} cannot be read as text ({error}); restore it") from error


def image_source(root: str | Path, key: str, expected: str) -> ImageSource:
    """Return what lies at a path: a folder, or a zip archive.

    Args:
        root: path of the folder or archive.
        key: of the configuration that gives it, for the message.
        expected: the layout that is wanted, for the message.

    Raises:
        InputError: it is neither, or the archive is damaged.
    """
    path = Path(root).expanduser()
    if path.is_dir():
        return FolderSource(path)
    require(path.is_file(), f"{key}={root} is not a folder or zip archive; {expected}")
    try:
        return ArchiveSource(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{key}={root} is no zip archive, or damaged ({error}); {expected}") from error


def _is_image(name: str) -> bool:
    from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

    # Archives made on a Mac hold a hidden twin of every file, with the same extension.
    return has_file_allowed_extension(name, IMG_EXTENSIONS) and not name.startswith(".")


class FolderSource(ImageSource):
    """Pictures in folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def subfolders(self, below: str) -> list[str]:
        """Return the names of the folders in a folder."""
        return self._entries(below, folders=True)

    def files(self, below: str) -> list[str]:
        """Return the names of the files in a folder."""
        return self._entries(below, folders=False)

    def images(self, below: str, classes: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
        """Return (paths, class numbers) of all images; links to a folder above are not followed."""
        names: list[str] = []
        numbers: list[int] = []
        for folder in sorted(classes.keys() & set(self.subfolders(below))):
            contents: dict[str, list[str]] = {}
            for directory, inner, files in os.walk(self.root / below / folder, followlinks=True):
                here = Path(directory)
                above = {os.path.realpath(parent) for parent in (here, *here.parents)}
                inner[:] = [name for name in inner if os.path.realpath(here / name) not in above]
                contents[here.relative_to(self.root).as_posix()] = sorted(filter(_is_image, files))
            images = [f"{path}/{name}" for path in sorted(contents) for name in contents[path]]
            names += images
            numbers += [classes[folder]] * len(images)
        return names, np.array(numbers, dtype=np.int64)

    def open(self, name: str) -> Path:
        """Return a file's path."""
        return self.root / name

    def digest(self, names: Sequence[str], changes: bool) -> bytes:
        """Return a hash of the files' names, sizes and times, and of their content where that is soon read."""
        seen = hashlib.sha256()
        try:
            statuses = [(self.root / name).stat() for name in names]
        except OSError as error:
            raise InputError(
                f"{error.filename} cannot be read ({error.strerror}); remove it, or mend the link"
            ) from error
        for name, status in zip(names, statuses, strict=True):
            times = (status.st_mtime_ns, status.st_ctime_ns if changes else 0)
            seen.update(b"%s\0%d\0%d\0%d\0" % (os.fsencode(name), status.st_size, *times))
        # Archives give all files one time, and copies keep times: only the content tells such files apart.
        if sum(status.st_size for status in statuses) <= _HASHED_BYTES:
            for name in names:
                seen.update((self.root / name).read_bytes())
        return seen.digest()

    def _entries(self, below: str, folders: bool) -> list[str]:
        path = self.root / below
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() == folders and entry.name[0] != ".")


class ArchiveSource(ImageSource):
    """Pictures in a zip archive, which is never unpacked; one folder around all others is passed over.

    Raises:
        zipfile.BadZipFile: the file is no archive, or damaged.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened: tuple[int, zipfile.ZipFile] | None = None  # process, archive
        names = [name for name in self._archive().namelist() if not name.startswith("__MACOSX/")]
        outer = {PurePosixPath(name).parts[0] for name in names}
        inner = {PurePosixPath(name).parts[1] for name in names if len(PurePosixPath(name).parts) > 2}
        # root/train/class/picture lies as deep as outer/class/picture, where its name tells them apart.
        wrapped = len(outer) == 1 and outer.isdisjoint({"train", "val", "test"}) and bool(inner)
        self._outer = f"{outer.pop()}/" if wrapped else ""
        self._folders: dict[str, set[str]] = {}
        self._files: dict[str, list[str]] = {}
        for name in sorted(names):
            path = PurePosixPath(name.removeprefix(self._outer))
            for folder, parent in zip(path.parents, list(path.parents)[1:], strict=False):
                self._folders.setdefault(_key(parent), set()).add(folder.name)
            if not name.endswith("/"):
                self._files.setdefault(_key(path.parent), []).append(path.name)
            elif path.name:
                self._folders.setdefault(_key(path.parent), set()).add(path.name)

    def __getstate__(self) -> dict[str, object]:
        """Return the state for another process, which opens the archive by itself."""
        return self.__dict__ | {"_opened": None}

    def subfolders(self, below: str) -> list[str]:
        """Return the names of the folders in a folder."""
        return sorted(name for name in self._folders.get(below, ()) if not name.startswith("."))

    def files(self, below: str) -> list[str]:
        """Return the names of the files in a folder."""
        return [name for name in self._files.get(below, ()) if not name.startswith(".")]

    def images(self, below: str, classes: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
        """Return (paths, class numbers) of all images."""
        names: list[str] = []
        numbers: list[int] = []
        for folder in sorted(classes.keys() & self._folders.get(below, set())):
            top = f"{below}/{folder}".lstrip("/")
            inside = sorted(path for path in self._files if path == top or path.startswith(f"{top}/"))
            images = [f"{path}/{name}" for path in inside for name in self._files[path] if _is_image(name)]
            names += images
            numbers += [classes[folder]] * len(images)
        return names, np.array(numbers, dtype=np.int64)

    def open(self, name: str) -> BinaryIO:
        """Return a file's content.

        Raises:
            InputError: it is not there, encrypted or damaged.
        """
        try:
            return io.BytesIO(self._archive().read(self._outer + name))
        except (KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self / name} cannot be read ({error}); make the archive again") from error

    def digest(self, names: Sequence[str], changes: bool) -> bytes:
        """Return a hash of the files' names, sizes and checksums, as the archive's directory holds them."""
        seen = hashlib.sha256()
        for name in names:
            entry = self._archive().getinfo(self._outer + name)
            seen.update(b"%s\0%d\0%d\0" % (os.fsencode(name), entry.file_size, entry.CRC))
        return seen.digest()

    def _archive(self) -> zipfile.ZipFile:
        # Processes that load pictures are forked, and would all move the one position of a file opened before.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.root)
        return self._opened[1]


def _key(path: PurePosixPath) -> str:
    return "" if path == PurePosixPath(".") else str(path)
