"""Decoded pictures on disk: written once, whole or not at all, and mapped into memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from losskernel.errors import InputError
from losskernel.storage.atomic import write_whole

_VARIABLE = "LOSSKERNEL_CACHE"


def cache_folder(given: str | Path | None) -> Path:
    """Return the folder that was given, or the environment's LOSSKERNEL_CACHE, or ~/.cache/losskernel."""
    return Path(given or os.environ.get(_VARIABLE) or "~/.cache/losskernel").expanduser()


def finished(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds pixels of that shape, all of them."""
    if not path.is_file():
        return False
    try:
        pixels = np.load(path, mmap_mode="r")
    except (ValueError, EOFError):  # somebody has cut it short
        return False
    return (pixels.shape, pixels.dtype) == (shape, np.uint8)


def mapped(path: Path) -> Tensor:
    """Return the pixels of a file, uint8, mapped into memory."""
    # Copy on write: torch wants memory that it may write to, and the file must never change.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def write(path: Path, shape: tuple[int, ...], blocks: Iterator[Tensor]) -> None:
    """Write blocks of pixels [b, ...], uint8, as one .npy file that appears when it is whole.

    Raises:
        InputError: the folder cannot be written.
    """

    def save(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for block in blocks:
            # Not through a mapped file: on a full disk that kills the process without a word.
            file.write(block.numpy().tobytes())

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save, sync=True, concurrent=True)
    except OSError as error:
        raise InputError(
            f"dataset.cache: cannot write {path} ({error.strerror or error}); "
            f"free space, or choose another folder with dataset.cache or {_VARIABLE}"
        ) from error
