"""Objects below a URL, reached by fsspec."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from losskernel.errors import InputError, TraceError

# The object that says who writes below a URL.
LEASE = ".lock"


class Remote:
    """An object, or all objects below a URL; writing an object is one step, as object stores have it.

    Args:
        path: the URL; how it is reached stands in the environment (AWS_ENDPOINT_URL, AWS_PROFILE, FSSPEC_S3_...) or in
            ~/.config/fsspec.

    Raises:
        InputError: nothing is known, or installed, that reaches such a URL.
    """

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._known = self._reach()

    def _reach(self) -> tuple[Any, str]:
        import fsspec

        try:
            return fsspec.url_to_fs(self.path)
        except ImportError as error:
            remedy = "install losskernel[s3]" if self.path.startswith("s3") else str(error)
            raise InputError(f"{self.path} cannot be reached from here: a package is missing; {remedy}") from error
        except ValueError as error:
            raise InputError(f"{self.path} is no URL that fsspec knows ({error}); give s3://bucket/place") from error

    def __str__(self) -> str:
        return self.path

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self.path}/{name}")

    @property
    def _there(self) -> tuple[Any, str]:
        """The file system, with nothing remembered of what was listed before, and the path in it."""
        self._known[0].invalidate_cache()
        return self._known

    @property
    def zarr(self) -> Any:
        """What Zarr opens."""
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.path)

    @property
    def occupied(self) -> bool:
        """Whether a group of arrays is there whole; what an interrupted layout left is none."""
        return (self / "zarr.json").exists()

    def exists(self) -> bool:
        """Whether the object is there."""
        files, path = self._there
        return bool(files.exists(path))

    def names(self) -> set[str]:
        """Return the objects below, relative to here."""
        files, path = self._there
        try:
            found = [str(each).partition(f"{path}/") for each in files.find(path)]
        except FileNotFoundError:
            return set()
        return {name for _, _, name in found if name}  # without what consoles leave for a folder

    def read(self) -> bytes:
        """Return the object's content."""
        files, path = self._there
        return bytes(files.cat_file(path))

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the content of objects below; those that are not there are left out."""
        files, path = self._there
        asked = {f"{path}/{name}": name for name in names}
        # Unlike `cat`, it takes no [ and no ? in a name for a pattern.
        found = files.cat_ranges(list(asked), None, None, on_error="return") if asked else []
        for content in found:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        pairs = zip(asked.values(), found, strict=True)
        return {name: bytes(content) for name, content in pairs if not isinstance(content, Exception)}

    def write(self, content: bytes) -> None:
        """Write the object in one step."""
        files, path = self._there
        files.pipe_file(path, content)

    def create(self, content: bytes) -> bool:
        """Write the object unless it is there; return whether that was done."""
        files, path = self._there
        if files.exists(path):
            return False
        try:
            files.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self) -> None:
        """Remove the object, if it is there."""
        files, path = self._there
        with suppress(FileNotFoundError):
            files.rm_file(path)

    def lay_out(self, files: Mapping[str, bytes]) -> None:
        """Write objects below, the root's description last: the group has all its arrays or is not there.

        Raises:
            TraceError: there are others.
        """
        others = sorted(self.names() - files.keys() - {LEASE})
        if others:
            raise TraceError(
                f"{self.path} holds other things, such as {others[0]}; choose another place, or remove them"
            )
        system, path = self._there
        system.pipe({f"{path}/{name}": content for name, content in files.items() if name != "zarr.json"})
        (self / "zarr.json").write(files["zarr.json"])

    def settle(self, names: Iterable[str]) -> None:
        """An object is there once it is written."""

    def sweep(self) -> None:
        """Objects are never half written."""
