"""Images as data sets: in files, decoded once into a cache, or in memory."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from losskernel.data.images.preprocessing import Crop
from losskernel.data.loading import loaded
from losskernel.data.packed import Packed
from losskernel.errors import InputError
from losskernel.storage.atomic import write_whole
from losskernel.storage.downloads import report_download

_PIECE = 64  # pictures that a worker decodes at a time
_FORM = 1  # of what lies in the cache; a new number where decoding changes


class ImageFiles(Packed):
    """Pictures in files, decoded whenever they are asked for; packed: uint8 [3, size, size].

    Args:
        root: folder.
        names: paths of the files below it.
        targets: class of each.
        crop: what is done to each picture.
    """

    def __init__(self, root: Path, names: Sequence[str], targets: Sequence[int] | np.ndarray, crop: Crop) -> None:
        self.root, self._crop = root, crop
        # One array of bytes: worker processes would copy a million Python strings page by page.
        self._names = np.array([os.fsencode(name) for name in names])
        self.targets = torch.as_tensor(np.asarray(targets, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all pictures, decoded."""
        return len(self), 3, self._crop.size, self._crop.size

    def path(self, index: int) -> Path:
        """Return the file of a picture."""
        return self.root / os.fsdecode(self._names[index])

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Decode one file.

        Raises:
            InputError: it is no picture, or broken.
        """
        return self._crop.read(self.path(index)), self.targets[index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Normalise pixels."""
        return self._crop.normalise(packed)

    @property
    def packing(self) -> Crop:
        """What normalises pixels."""
        return self._crop

    def key(self) -> str:
        """Return a hash that changes with the files' names, sizes and times, and with what is done to them."""
        how = [_FORM, self._crop.size, self._crop.resize, self._crop.interpolation]
        seen = hashlib.sha256(json.dumps(how).encode())
        for index, name in enumerate(self._names):
            about = self.path(index).stat()
            seen.update(b"%s\0%d\0%d\0" % (name, about.st_size, about.st_mtime_ns))
        return seen.hexdigest()[:24]


class CachedImages(Packed):
    """Pictures in files that are decoded together when a loader first asks for all, and from then on read from a cache.

    Args:
        files: the pictures.
        folder: of the cache; None is the environment's LOSSKERNEL_CACHE, else ~/.cache/losskernel.
        workers: processes that decode.
    """

    def __init__(self, files: ImageFiles, folder: str | Path | None, workers: int) -> None:
        self._files, self._folder, self._workers = files, cache_folder(folder), workers
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self._files)

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one picture, from its own file as long as no loader has asked for all."""
        return self._files.packed(index) if self._pixels is None else (self._pixels[index], self._files.targets[index])

    def unpack(self, packed: Tensor) -> Tensor:
        """Normalise pixels."""
        return self._files.unpack(packed)

    @property
    def packing(self) -> Crop:
        """What normalises pixels."""
        return self._files.packing

    @property
    def targets(self) -> Tensor:
        """Class of each, [N]."""
        return self._files.targets

    def held(self) -> tuple[Tensor, Tensor]:
        """Return all pictures as a mapped file, which is written if it is not there.

        Raises:
            InputError: a file is no picture, or the cache cannot be written.
        """
        if self._pixels is None:
            self._pixels = self._mapped()
        return self._pixels, self._files.targets

    def _mapped(self) -> Tensor:
        path, shape = self._folder / f"images-{self._files.key()}.npy", self._files.shape
        there = finished(path, shape)
        if not there:
            rows = [row.tolist() for row in torch.arange(len(self)).split(_PIECE)]
            blocks = loaded(self._files, rows, self._workers, torch.device("cpu"))
            write(path, shape, (pixels for pixels, _ in blocks))
        report_download("decoded pictures", path, new=not there)
        return mapped(path)


class PixelArrays(Packed):
    """Pictures in memory: pixels uint8 [N, 3, h, w], their classes [N], and what normalises them."""

    def __init__(self, pixels: Tensor, targets: Tensor, crop: Crop) -> None:
        self.pixels, self.targets, self._crop = pixels, targets, crop

    def __len__(self) -> int:
        return len(self.pixels)

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one picture."""
        return self.pixels[index], self.targets[index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Normalise pixels."""
        return self._crop.normalise(packed)

    @property
    def packing(self) -> Crop:
        """What normalises pixels."""
        return self._crop

    def held(self) -> tuple[Tensor, Tensor]:
        """Return all pictures."""
        return self.pixels, self.targets


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
