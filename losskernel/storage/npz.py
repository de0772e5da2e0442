"""What was computed along the way, kept as named arrays in one file: whole or not at all, refused where damaged."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from losskernel.errors import TraceError
from losskernel.storage.atomic import write_whole


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, whoever else writes the same; the folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file object, since numpy appends an ending to a name.
    write_whole(path, lambda file: np.savez_compressed(file, **arrays), sync=True, concurrent=True)  # pyright: ignore[reportArgumentType]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file; each carries a checksum.

    Raises:
        TraceError: the file is damaged, or cannot be read.
    """
    try:
        with np.load(path) as held:
            return dict(held)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TraceError(f"{path} is damaged: {reason}; remove it, and the same command makes it again") from error
