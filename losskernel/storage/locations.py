"""Where data lies: a folder of this machine, or objects below any URL that fsspec reaches."""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from losskernel.errors import InputError, TraceError, require
from losskernel.storage.atomic import PARTIAL, flush, replacing, write_whole

# Two letters at least before the colon: C:\ is a drive.
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::)")
_SHORTENED_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")
_LOCAL_SCHEMES = ("file://", "local://")
# A pointer is a text file in a run's folder, in the place of a trace that lies elsewhere: this prefix, then where.
_POINTER = "losskernel keeps this at "
_RESUMABLE = "; what was written before stays readable and the run can be continued"
_Result = TypeVar("_Result")


class LocalLocation:
    """A file or folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "LocalLocation":
        return LocalLocation(self.path / name)

    @property
    def occupied(self) -> bool:
        """Whether a new group may not be written here; an empty folder does not count."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def exists(self) -> bool:
        """Whether the file or folder exists."""
        return self.path.exists()

    def names(self) -> set[str]:
        """Return the files below, relative to here."""
        return {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()}

    def modified(self) -> float:
        """Return when the file was last written, seconds since 1970."""
        return self.path.stat().st_mtime

    def read(self) -> bytes:
        """Return the file's content."""
        return self.path.read_bytes()

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return name -> content of files below; missing ones are left out."""
        contents = {}
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                contents[name] = (self.path / name).read_bytes()
        return contents

    def write(self, content: bytes) -> None:
        """Write the file atomically, and to the disk itself."""
        write_whole(self.path, content, sync=True)

    def remove(self) -> None:
        """Remove the file if it exists."""
        self.path.unlink(missing_ok=True)

    def write_group(self, files: Mapping[str, bytes]) -> None:
        """Write a whole folder atomically: name -> content."""
        # A rename replaces a link, not what it leads to.
        target = self.path.resolve()  # through a link, whose target may not exist yet
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, sync=True) as partial:
            for name, content in files.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)

    def sync(self, names: Iterable[str]) -> None:
        """Flush files below to the disk, before a resume state or a flag counts on them."""
        flush(self.path / name for name in names)

    def remove_partial(self) -> None:
        """Remove the temporary files of writers that were killed, Zarr's own included."""
        for path in self.path.rglob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)


class RemoteLocation:
    """An object, or all objects below a URL; an object store writes each object atomically.

    Args:
        path: the URL; credentials and endpoints come from the environment (AWS_ENDPOINT_URL, AWS_PROFILE,
            FSSPEC_S3_...) or ~/.config/fsspec.

    Raises:
        InputError: fsspec does not know the protocol, or the package for it is not installed.
    """

    def __init__(self, path: str) -> None:
        import fsspec

        self.path = path.rstrip("/")
        try:
            self._filesystem, self._root = fsspec.url_to_fs(self.path)
        except ImportError as error:
            remedy = "install losskernel[s3]" if self.path.startswith("s3") else str(error)
            raise InputError(f"{self.path} cannot be reached from here: a package is missing; {remedy}") from error
        except ValueError as error:
            raise InputError(f"{self.path} is no URL that fsspec knows ({error}); give s3://bucket/folder") from error

    def __str__(self) -> str:
        return self.path

    def __truediv__(self, name: str) -> "RemoteLocation":
        return RemoteLocation(f"{self.path}/{name}")

    @property
    def _files(self) -> Any:
        """The file system without its cached listings, which other processes' writes outdate."""
        self._filesystem.invalidate_cache()
        return self._filesystem

    @property
    def occupied(self) -> bool:
        """Whether a whole group is here; the root's description is written last, so without it there is none."""
        return (self / "zarr.json").exists()

    def exists(self) -> bool:
        """Whether the object exists."""
        return bool(self._files.exists(self._root))

    def names(self) -> set[str]:
        """Return the objects below, relative to here."""
        try:
            names = {str(path).partition(f"{self._root}/")[2] for path in self._files.find(self._root)}
        except FileNotFoundError:
            return set()
        return names - {""}  # web consoles make an empty object for a folder

    def modified(self) -> float:
        """Return when the object was last written, seconds since 1970."""
        import fsspec

        # An instance of its own: other threads use the cached one, and clear its listings.
        files, root = fsspec.url_to_fs(self.path, use_listings_cache=False)
        return files.modified(root).timestamp()

    def read(self) -> bytes:
        """Return the object's content."""
        return bytes(self._files.cat_file(self._root))

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return name -> content of objects below; missing ones are left out."""
        names = list(names)
        # Unlike `cat`, `cat_ranges` does not take [ and ? in a name for a pattern.
        paths = [f"{self._root}/{name}" for name in names]
        contents = self._files.cat_ranges(paths, None, None, on_error="return") if paths else []
        for content in contents:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        pairs = zip(names, contents, strict=True)
        return {name: bytes(content) for name, content in pairs if not isinstance(content, Exception)}

    def write(self, content: bytes) -> None:
        """Write the object."""
        self._files.pipe_file(self._root, content)

    def create(self, content: bytes) -> bool:
        """Write the object unless it exists; return whether it was written."""
        if self.exists():
            return False
        try:
            self._files.pipe_file(self._root, content, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self) -> None:
        """Remove the object if it exists."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._root)

    def write_group(self, files: Mapping[str, bytes]) -> None:
        """Write objects below, name -> content; the root's description comes last and makes the group valid.

        Raises:
            TraceError: there are other objects.
        """
        others = sorted(self.names() - files.keys() - {".lock"})
        if others:
            raise TraceError(
                f"{self.path} holds other things, such as {others[0]}; choose another location, or remove them"
            )
        members = {f"{self._root}/{name}": content for name, content in files.items() if name != "zarr.json"}
        self._files.pipe(members)
        (self / "zarr.json").write(files["zarr.json"])

    def sync(self, names: Iterable[str]) -> None:
        """Do nothing: an object is durable once it is written."""

    def remove_partial(self) -> None:
        """Do nothing: objects are never half written."""


StorageLocation = LocalLocation | RemoteLocation


def locate(path: str | Path) -> StorageLocation:
    """Return the location of a path or URL; pointers are followed.

    Raises:
        InputError: a URL that pathlib has shortened, or that nothing installed reaches.
    """
    text = str(path)
    local = text.startswith(_LOCAL_SCHEMES)  # file:// is a local path like any other
    if isinstance(path, str) and _URL.match(path) and not local:
        return RemoteLocation(path)
    require(
        local or not (isinstance(path, Path) and _SHORTENED_URL.match(text)),
        f"{text} was a URL before pathlib shortened it; give it as text, such as 's3://bucket/folder'",
    )
    # A pointer may lead to another one, or to a URL.
    path = Path(text.partition("://")[2]) if local else Path(path)
    target = pointer_target(path)
    return LocalLocation(path) if target is None else locate(target)


def require_writable(location: StorageLocation) -> None:
    """Write and remove a file below a location.

    Raises:
        TraceError: it cannot be written.
    """

    def write() -> None:
        if isinstance(location, LocalLocation):
            location.path.mkdir(parents=True, exist_ok=True)
        mark = location / f".writable-{uuid.uuid4().hex[:8]}"
        mark.write(b"")
        with suppress(Exception):  # some stores permit writing and forbid removing
            mark.remove()

    guard(location, write)


# --- pointers: traces that lie elsewhere than in their run's folder


def write_pointer(pointer: Path, target: str) -> None:
    """Record in a run's folder that data lies elsewhere; data in its usual location needs no pointer.

    Raises:
        TraceError: something else lies at the pointer's path, or it cannot be written.
    """
    target = _absolute(target)
    previous = pointer_target(pointer)
    if target in (str(pointer.absolute()), str(pointer.resolve())) or (previous and _absolute(previous) == target):
        return
    if previous is not None or pointer.exists():
        raise TraceError(
            f"{pointer} is there already{'' if previous is None else f', at {previous}'}, but {target} is asked for; "
            "set paths.traces as it was, or choose another folder with paths.run"
        )
    guard(pointer, pointer.parent.mkdir, 0o777, True, True)
    guard(pointer, LocalLocation(pointer).write, f"{_POINTER}{target}\n".encode())


def pointer_target(path: Path) -> str | None:
    """Return what a pointer points to; None for anything that is no pointer."""
    try:
        with open(path, "rb") as file:
            line = file.read(4096).decode("utf-8", "replace").partition("\n")[0]
    except OSError:
        return None
    return line.removeprefix(_POINTER).strip() if line.startswith(_POINTER) else None


def run_location(base: str, outputs: str | Path, folder: Path) -> str:
    """Return a run's location below a base that runs share: `folder` relative to the folder of all outputs.

    A folder outside `outputs` is named by its last part and a hash of its whole path.
    """
    base = _absolute(base).rstrip("/")
    folder, root = folder.absolute(), Path(outputs).absolute()
    if folder.is_relative_to(root) and folder != root:
        return "/".join([base, *folder.relative_to(root).parts])
    return f"{base}/{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def _absolute(location: str) -> str:
    """Return a local path as an absolute one, which holds in every working directory; URLs stay as they are."""
    location = location.partition("://")[2] if location.startswith(_LOCAL_SCHEMES) else location
    return location if "://" in location or "::" in location else str(Path(location).absolute())


# --- errors of the system or a store, as one line that says what to do


def guard(location: Path | StorageLocation, write: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run a write; an error of the system or a store becomes one line that says what is left.

    Raises:
        TraceError: it cannot be written (permissions, full disk, vanished file system, network).
    """
    with _io_errors(location, "write", "free space or choose another folder", _RESUMABLE):
        return write(*arguments)


def reading(location: Path | StorageLocation, read: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run a read; a missing file stays a FileNotFoundError.

    Raises:
        TraceError: it cannot be read (permissions, vanished file system, network).
    """
    with read_errors(location):
        return read(*arguments)


def read_errors(location: Path | StorageLocation) -> AbstractContextManager[None]:
    """Return the context in which `reading` runs a read."""
    return _io_errors(location, "read", "check the file system and its permissions", "")


@contextmanager
def _io_errors(location: Path | StorageLocation, action: str, remedy: str, rest: str) -> Iterator[None]:
    faults: type[Exception] = OSError
    if isinstance(location, RemoteLocation):
        faults = Exception  # every library that fsspec uses has exceptions of its own
        remedy = "check the address, the credentials and the network, or choose another location"
    try:
        yield
    except (TraceError, InputError):
        raise
    except faults as error:
        if action == "read" and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise
        raise TraceError(f"cannot {action} {location}: {one_line(error)}; {remedy}{rest}") from error


def one_line(error: Exception) -> str:
    """Return an error's reason on one line: that of the system, its text, or its type where it has neither."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
