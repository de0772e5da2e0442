"""Images in files as data sets, decoded at every access or once into a cache on disk."""

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
from losskernel.data.packed import Packed, as_packed, batches_of, loaded
from losskernel.errors import InputError
from losskernel.storage.atomic import write_whole
from losskernel.storage.downloads import report_download

_VARIABLE = "LOSSKERNEL_CACHE"
_FORMAT = 1  # of the cache's content; a new number where decoding changes


class ImageFiles(Packed):
    """Images in files, decoded whenever they are asked for; packed: uint8 [3, size, size].

    Args:
        root: folder.
        names: paths of the files below it.
        targets: class of each.
        crop: how each image is decoded and normalised.
    """

    def __init__(self, root: Path, names: Sequence[str], targets: Sequence[int] | np.ndarray, crop: Crop) -> None:
        self.root, self.crop, self.unpack = root, crop, crop
        # One array of bytes: worker processes would copy a million Python strings page by page.
        self._names = np.array([os.fsencode(name) for name in names])
        self.targets = torch.as_tensor(np.asarray(targets, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images, decoded."""
        return len(self), 3, self.crop.size, self.crop.size

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        return self.root / os.fsdecode(self._names[index])

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Decode one file.

        Raises:
            InputError: it is no image, or broken.
        """
        return self.crop.read(self.path(index)), self.targets[index]

    def key(self) -> str:
        """Return a hash that changes with the files' names, sizes and times, and with how they are decoded."""
        how = [_FORMAT, self.crop.size, self.crop.resize, self.crop.interpolation]
        seen = hashlib.sha256(json.dumps(how).encode())
        for index, name in enumerate(self._names):
            status = self.path(index).stat()
            seen.update(b"%s\0%d\0%d\0" % (name, status.st_size, status.st_mtime_ns))
        return seen.hexdigest()[:24]


class CachedImages(Packed):
    """Images in files that are decoded together when a loader first asks for all, and then read from a cache.

    Args:
        files: the images.
        folder: of the cache; None is the environment's LOSSKERNEL_CACHE, else ~/.cache/losskernel.
        workers: processes that decode.
    """

    def __init__(self, files: ImageFiles, folder: str | Path | None, workers: int) -> None:
        self._files, self._workers, self.unpack, self.targets = files, workers, files.unpack, files.targets
        self._folder = Path(folder or os.environ.get(_VARIABLE) or "~/.cache/losskernel").expanduser()
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self._files)

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one image, from its own file as long as no loader has asked for all."""
        return self._files.packed(index) if self._pixels is None else (self._pixels[index], self.targets[index])

    def held(self) -> tuple[Tensor, Tensor]:
        """Return all images as a mapped file, which is written if it does not exist.

        Raises:
            InputError: a file is no image, or the cache cannot be written.
        """
        if self._pixels is None:
            self._pixels = self._mapped()
        return self._pixels, self.targets

    def _mapped(self) -> Tensor:
        path, shape = self._folder / f"images-{self._files.key()}.npy", self._files.shape
        there = _is_whole(path, shape)
        if not there:
            batches = loaded(as_packed(self._files), batches_of(range(len(self))), self._workers)
            _write(path, shape, (pixels for pixels, _ in batches))
        report_download("decoded pictures", path, new=not there)
        # Copy on write: torch wants memory that it may write to, and the file must never change.
        return torch.from_numpy(np.load(path, mmap_mode="c"))


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds pixels of that shape, all of them."""
    if not path.is_file():
        return False
    try:
        pixels = np.load(path, mmap_mode="r")
    except (ValueError, EOFError):  # cut short
        return False
    return (pixels.shape, pixels.dtype) == (shape, np.uint8)


def _write(path: Path, shape: tuple[int, ...], batches: Iterator[Tensor]) -> None:
    """Write batches of pixels [b, ...], uint8, as one .npy file that appears when it is whole.

    Raises:
        InputError: the folder cannot be written.
    """

    def save(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for batch in batches:
            # Not through a mapped file: on a full disk that kills the process without a message.
            file.write(batch.numpy().tobytes())

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save, sync=True, concurrent=True)
    except OSError as error:
        raise InputError(
            f"dataset.cache: cannot write {path} ({error.strerror or error}); "
            f"free space, or choose another folder with dataset.cache or {_VARIABLE}"
        ) from error
