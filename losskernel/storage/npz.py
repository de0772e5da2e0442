"""Intermediate results as named arrays in one .npz file: written whole, refused where damaged."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from losskernel.errors import TraceError
from losskernel.storage.atomic import write_whole
from losskernel.storage.locations import one_line


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, whoever else writes the same file; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Into an open file: to a path numpy would append an ending.
    write_whole(path, lambda file: np.savez_compressed(file, **arrays), sync=True, concurrent=True)  # pyright: ignore[reportArgumentType]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file; the archive holds a checksum of each.

    Raises:
        TraceError: the file is damaged, or cannot be read.
    """
    try:
        with np.load(path) as arrays:
            return dict(arrays)  # read in full, which compares the checksums
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        remedy = "remove it, and the same command makes it again"
        raise TraceError(f"{path} is damaged: {one_line(error)}; {remedy}") from error
