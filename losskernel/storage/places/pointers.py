"""Traces that lie elsewhere than in their run's folder: what stands for them there, and where they go."""

import hashlib
from pathlib import Path

from losskernel.errors import TraceError
from losskernel.storage.places.io_errors import guard
from losskernel.storage.places.local import Folder

# The rest of the line says where.
_POINTER = "losskernel keeps this at "
# How a folder of this machine is called as a URL.
LOCAL = ("file://", "local://")


def point(pointer: Path, elsewhere: str) -> None:
    """Leave word in a run's folder of what lies elsewhere; what lies in its own place needs none.

    Raises:
        TraceError: something else stands there, or it cannot be written.
    """
    elsewhere = _whole(elsewhere)
    found = pointed(pointer)
    if elsewhere in (str(pointer.absolute()), str(pointer.resolve())) or (found and _whole(found) == elsewhere):
        return
    if found is not None or pointer.exists():
        raise TraceError(
            f"{pointer} is there already{'' if found is None else f', at {found}'}, but {elsewhere} is asked for; "
            "set paths.traces as it was, or choose another folder with paths.run"
        )
    guard(pointer, pointer.parent.mkdir, 0o777, True, True)
    guard(pointer, Folder(pointer).write, f"{_POINTER}{elsewhere}\n".encode())


def pointed(path: Path) -> str | None:
    """Return what a file points to; None where it is no pointer."""
    try:
        with open(path, "rb") as file:
            line = file.read(4096).decode("utf-8", "replace").partition("\n")[0]
    except OSError:
        return None
    return line.removeprefix(_POINTER).strip() if line.startswith(_POINTER) else None


def below(base: str, outputs: str | Path, folder: Path) -> str:
    """Return the place of a run's own below one that runs share: named as its folder is, below that of all outputs.

    A folder elsewhere is named by its last part and by what tells its whole path from others.
    """
    base = _whole(base)
    own, root = folder.absolute(), Path(outputs).absolute()
    if own.is_relative_to(root) and own != root:
        return "/".join([base.rstrip("/"), *own.relative_to(root).parts])
    return f"{base.rstrip('/')}/{own.name}-{hashlib.sha256(str(own).encode()).hexdigest()[:8]}"


def _whole(place: str) -> str:
    """Return a folder's whole path, which holds wherever it is read; a URL is whole."""
    place = place.partition("://")[2] if place.startswith(LOCAL) else place
    return place if "://" in place or "::" in place else str(Path(place).absolute())
