"""The one way a file is written whole: a kill or a full disk leaves the old content or the new, never half of it."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

# Ending of a file or folder that is being written; what ends so after a crash can be deleted.
PARTIAL = ".partial"


@contextmanager
def replacing(path: Path, *, sync: bool = False, concurrent: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it once the context ends without an error.

    A file replaces a file; a folder replaces nothing or an empty folder.

    Args:
        path: where the file or folder shall lie; its parent exists.
        sync: flush the content to the disk first, so that it outlives a loss of power.
        concurrent: several processes may write this path at once, so each gets a temporary name of its own. Without
            it the name is fixed, and what a killed process left is cleared by the next one.
    """
    partial = path.with_name(path.name + (f".{uuid.uuid4().hex}" if concurrent else "") + PARTIAL)
    _remove(partial)
    try:
        yield partial
        if sync:
            flush(file for file in (partial, *partial.rglob("*")) if file.is_file())
        # Atomic on POSIX and on Windows, within one file system; hence the temporary name beside the path.
        os.replace(partial, path)
    except BaseException:
        _remove(partial)  # a full disk needs the room
        raise


def write_whole(
    path: Path, content: str | bytes | Callable[[BinaryIO], Any], *, sync: bool = False, concurrent: bool = False
) -> None:
    """Write a file whole: text as UTF-8, bytes, or what a function writes into the open file; options as `replacing`.

    Raises:
        OSError: it cannot be written; the old file is unchanged.
    """
    with replacing(path, sync=sync, concurrent=concurrent) as partial, open(partial, "wb") as file:
        if callable(content):
            content(file)
        else:
            # Names of files that are no UTF-8 are written as the bytes that they are.
            file.write(content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def flush(files: Iterable[Path]) -> None:
    """Flush files to the disk itself, before anything counts on them."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
