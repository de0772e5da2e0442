"""Images in files as data sets, decoded at every access or once into a cache on disk.

The way from a file to the input of a network: resize, crop, normalise, augment; and back to a thumbnail.
"""

import base64
import hashlib
import io
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate, pad

from losskernel.data.base import Packed, as_packed, batches_of, loaded
from losskernel.data.images.image_source import FolderSource, ImageSource
from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.models.pretrained import input_settings
from losskernel.storage.atomic import write_whole
from losskernel.storage.downloads import report_download

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_THUMBNAIL = 48  # pixels of the longer side, at most
_LOSSLESS = 2000  # images up to which a page of them may be large
_VARIABLE = "LOSSKERNEL_CACHE"
_LONGEST = 16  # times its width that an image is resized at most; only the middle is cropped from it
_CROP_AREA = (0.25, 1.0)  # shares of an image that a random crop of it covers
Targets = Sequence[int] | np.ndarray
_FORMAT = 2  # of the cache's content; a new number where decoding changes


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a network; settings that are None are those of the network's pretrained weights.

    Attributes:
        network: whose pretrained weights give the settings that are None: "torchvision/googlenet", "timm/NAME"; None
            takes those of torchvision's GoogLeNet, which are the usual ones for ImageNet.
        resize: pixels of the shorter side before the crop; None keeps the network's ratio to the size.
        mean: of red, green and blue in [0, 1]; subtracted.
        std: of red, green and blue in [0, 1]; divided by.
        interpolation: of the resizing: one of INTERPOLATIONS.
        train_crops: versions of each training image: the central crop, and fixed random ones of 25 to 100 % of its
            area (less where one side is over three times the other), half of them mirrored.

    Raises:
        InputError: train_crops is out of range.
    """

    network: str | None = None
    resize: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str | None = None
    train_crops: int = 1

    def __post_init__(self) -> None:
        require_integer("dataset.preprocessing.train_crops", self.train_crops, at_least=1)

    def at(self, size: int | None = None) -> "Crop":
        """Return all settings for an input of `size` pixels a side, by default the network's own.

        Raises:
            InputError: an unknown network, or a number out of range.
        """
        settings = input_settings(self.network or "torchvision/googlenet", "dataset.preprocessing.network")
        if size is not None:
            require_integer("dataset.size", size, at_least=1)
            settings |= {"size": size, "resize": round(settings["resize"] * size / settings["size"])}
        given = {name: getattr(self, name) for name in ("resize", "mean", "std", "interpolation")}
        return Crop(**(settings | {name: value for name, value in given.items() if value is not None}))


@dataclass(frozen=True)
class Crop:
    """Shorter side to `resize`, the central square of `size`, then (pixel/255 - mean) / std.

    Reading a file gives bytes; calling turns batches of them into inputs, on the model's device.

    Raises:
        InputError: a number out of range.
    """

    size: int
    resize: int
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str

    def __post_init__(self) -> None:
        key = "dataset.preprocessing"
        require_integer("dataset.size", self.size, at_least=1)
        require_integer(
            f"{key}.resize", self.resize, at_least=self.size, why="(dataset.size, which is cropped from it)"
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            fits = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 3
            require(fits, f"{key}.{name} must be three numbers, got {values!r}; e.g. [0.5,0.5,0.5]")
            for value in values:
                require_number(f"{key}.{name}", value)
        require(min(self.std) > 0, f"{key}.std must be > 0, got {list(self.std)}; e.g. [0.5,0.5,0.5]")
        known = self.interpolation in INTERPOLATIONS
        require(known, f"{key}.interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}")

    def read(self, file: str | Path | BinaryIO, path: str | Path | None = None, seed: int | None = None) -> Tensor:
        """Return the pixels of an image file, uint8 [3, size, size]; other modes than colour become RGB.

        Args:
            file: path of the file, or the file opened.
            path: how messages call it; None: as `file`.
            seed: of a random crop; None: the central one.

        Raises:
            InputError: the file is no image, or broken.
        """
        from PIL import Image
        from torchvision.transforms.functional import InterpolationMode, center_crop, resize

        path = str(file) if path is None else path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd metadata, of which the photographs of ImageNet have plenty
                with Image.open(file) as opened:
                    image: Any = _without_ends(_in_eight_bits(opened, path)).convert("RGB")
        except InputError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path} cannot be read as an image ({reason}); replace or remove it") from error
        if seed is None:
            image = center_crop(resize(image, [self.resize], InterpolationMode(self.interpolation)), [self.size])
        else:
            image = self._random_crop(image, seed)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def _random_crop(self, image: Any, seed: int) -> Any:
        """Return a random part of an image, perhaps mirrored, as networks are trained on (Szegedy et al. 2015)."""
        from torchvision.transforms import RandomResizedCrop
        from torchvision.transforms.functional import InterpolationMode, hflip, resized_crop

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: no other is restored
            box = RandomResizedCrop.get_params(image, scale=[*_CROP_AREA], ratio=[3 / 4, 4 / 3])
            mirrored = bool(torch.rand(()) < 0.5)
        image = resized_crop(image, *box, [self.size] * 2, InterpolationMode(self.interpolation))
        return hflip(image) if mirrored else image

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn pixels uint8 [B, 3, h, w] into normalised inputs, float32, on their own device."""
        # In place and with two operations: batches of images are the largest tensors that loading touches.
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device)
        shift = torch.tensor([mean / std for mean, std in zip(self.mean, self.std, strict=True)], device=pixels.device)
        return pixels.float().mul_(scale[:, None, None]).sub_(shift[:, None, None])


def _in_eight_bits(image: Any, path: str | Path) -> Any:
    """Return an image of at most 8 bits a channel: wider numbers are scaled, which Pillow itself cuts off at 255.

    Raises:
        InputError: 32-bit numbers of which the range of brightness is not known.
    """
    from PIL import Image

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    pixels = np.asarray(image).astype(np.float64)  # numpy takes care of the order of the bytes
    least, most = pixels.min(), pixels.max()
    if image.mode == "F":
        known, whole = least >= 0 and most <= 1, 1.0
    else:
        # Integers of 32 bits hold what 16 bits do, or 8: where none is above 255, nothing says which.
        known, whole = image.mode != "I" or (least >= 0 and (most == 0 or 255 < most <= 65535)), 65535.0
    require(
        known,
        f"{path} has pixels from {least:g} to {most:g} (Pillow's mode {image.mode}), which is neither 0 to 65535 nor "
        "0 to 1: its range of brightness is not known; save it with 8 or 16 bits a channel",
    )
    return Image.fromarray(np.round(pixels * (255 / whole)).astype(np.uint8))


def _without_ends(image: Any) -> Any:
    """Return the middle of an image that is far longer than wide; enlarged whole, it would take gigabytes."""
    width, height = image.size
    most = _LONGEST * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


@dataclass(frozen=True)
class FlipAndCrop:
    """Mirrors images left to right, each with probability 1/2, and cuts them at random out of a frame around them.

    The frame is zero in the form that the data set holds: black for pixels, which are normalised afterwards, as in
    torchvision's RandomHorizontalFlip and RandomCrop.

    Attributes:
        padding: width of the frame, and so the largest shift along either side, in pixels.
        flip: whether to mirror.

    Raises:
        InputError: a setting out of range; when called: inputs that are no images.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        require_integer("training.augment.padding", self.padding, at_least=0)
        require(isinstance(self.flip, bool), f"training.augment.flip must be true or false, got {self.flip!r}")

    def __call__(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Return other versions of images [B, C, height, width], each flipped and shifted independently."""
        shape = tuple(inputs.shape)
        require(len(shape) == 4, f"training.augment takes images [B, C, h, w], got {shape}; set training.augment=null")
        batch, _, height, width = shape
        first = torch.randint(2 * self.padding + 1, (2, batch, 1), generator=generator)
        mirrored = torch.rand(batch, 1, generator=generator) < 0.5 if self.flip else torch.zeros(batch, 1).bool()
        rows = first[0] + torch.arange(height)  # [B, height], of the framed image
        columns = first[1] + torch.arange(width)  # [B, width]
        columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows.to(inputs.device), columns.to(inputs.device)
        # One gather for the whole batch: a loop over images, as with torchvision's transforms, is slower.
        framed = pad(inputs, [self.padding] * 4).permute(0, 2, 3, 1)  # [B, h + 2p, w + 2p, C]
        sample = torch.arange(batch, device=inputs.device)[:, None, None]
        return framed[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def thumbnails(inputs: Tensor) -> np.ndarray | None:
    """Return images [N, c, h, w] (c = 1 or 3) as uint8 [N, h, w, c] of at most 48 pixels a side, else None.

    Pixels in bytes are shown as they are; other images are stretched each to its own range, for models see normalised
    pixels.
    """
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or min(inputs.shape[2:]) < 4:
        return None
    images = inputs.detach().float()
    if max(images.shape[2:]) > _THUMBNAIL:
        images = interpolate(images, scale_factor=_THUMBNAIL / max(images.shape[2:]), mode="area")
    if inputs.is_floating_point():
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        images = (images - low) / (high - low).clamp_min(1e-12) * 255
    return images.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def encode(images: np.ndarray) -> list[str]:
    """Return each image [h, w, c] as a data URI: without loss (PNG), or as JPEG where there are more than 2,000."""
    from PIL import Image

    kind = "png" if len(images) <= _LOSSLESS else "jpeg"
    uris = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format=kind, quality=75)
        uris.append(f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode())
    return uris


class ImageFiles(Packed):
    """Images in files, decoded whenever they are asked for; packed: uint8 [3, size, size].

    Args:
        source: where the files lie: a folder's path, or any source.
        names: paths of the files below it.
        targets: class of each.
        crop: how each image is decoded and normalised.
        crops: versions of each image, central crops first; see `Preprocessing.train_crops`.
    """

    def __init__(
        self, source: Path | ImageSource, names: Sequence[str], targets: Targets, crop: Crop, crops: int = 1
    ) -> None:
        self.source = FolderSource(source) if isinstance(source, Path) else source
        self.crop, self.unpack, self.versions = crop, crop, crops
        # One array of bytes: worker processes would copy a million Python strings page by page.
        self._names = np.array([os.fsencode(name) for name in names])
        self.targets = torch.as_tensor(np.asarray(targets, dtype=np.int64)).repeat(crops)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images, decoded."""
        return len(self), 3, self.crop.size, self.crop.size

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Decode one file.

        Raises:
            InputError: it is no image, or broken.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        version, number = divmod(index % len(self), len(self._names))
        name = os.fsdecode(self._names[number])
        seed = zlib.crc32(f"{version} {name}".encode(errors="surrogateescape")) if version else None
        return self.crop.read(self.source.open(name), self.source / name, seed), self.targets[index]

    def key(self) -> str:
        """Return a hash that changes with the folder, with the files, and with how they are decoded."""
        root = str(self.source.root.resolve())
        how = [_FORMAT, root, self.crop.size, self.crop.resize, self.crop.interpolation]
        how += [self.versions, *_CROP_AREA] if self.versions > 1 else []
        return hashlib.sha256(json.dumps(how).encode() + self._digest(changes=True)).hexdigest()[:24]

    def identity(self) -> tuple[object, ...]:
        """Return what two data sets of the same images share, in whatever folder they lie."""
        return self._digest(changes=False), self.targets, self.crop  # targets tell the number of versions

    def _digest(self, changes: bool) -> bytes:
        return self.source.digest([os.fsdecode(name) for name in self._names], changes)


class CachedImages(Packed):
    """Images in files that are decoded together when a loader first asks for all, and then read from a cache.

    Args:
        files: the images.
        folder: of the cache; None is the environment's LOSSKERNEL_CACHE, else ~/.cache/losskernel.
        workers: processes that decode.
    """

    def __init__(self, files: ImageFiles, folder: str | Path | None, workers: int) -> None:
        self._files, self._workers, self.unpack, self.targets = files, workers, files.unpack, files.targets
        self.versions = files.versions
        self._folder = Path(folder or os.environ.get(_VARIABLE) or "~/.cache/losskernel").expanduser()
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self._files)

    def identity(self) -> tuple[object, ...]:
        """Return what two data sets of the same images share."""
        return self._files.identity()

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one image, from its own file as long as no loader has asked for all."""
        return self._files.packed(index) if self._pixels is None else (self._pixels[index], self.targets[index])

    def held(self) -> tuple[Tensor, Tensor]:
        """Return all images as a mapped file, which is written if it does not exist.

        Raises:
            InputError: a file is no image, or the cache cannot be written.
        """
        if self._pixels is None:
            path, shape = self._folder / f"images-{self._files.key()}.npy", self._files.shape
            there = _is_whole(path, shape)
            if not there:
                batches = loaded(as_packed(self._files), batches_of(range(len(self))), self._workers)
                _write(path, shape, (pixels for pixels, _ in batches))
            report_download("decoded pictures", path, new=not there)
            # Copy on write: torch wants memory that it may write to, and the file must never change.
            self._pixels = torch.from_numpy(np.load(path, mmap_mode="c"))
        return self._pixels, self.targets


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
