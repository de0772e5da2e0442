"""From an image in a file to the input of a network: resize, crop, normalise, augment; and back to a thumbnail."""

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate, pad

from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.models.pretrained import input_settings

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_THUMBNAIL = 48  # pixels of the longer side, at most
_LOSSLESS = 2000  # images up to which a page of them may be large


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
    """

    network: str | None = None
    resize: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str | None = None

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
        choices = ", ".join(INTERPOLATIONS)
        require(known, f"{key}.interpolation must be one of {choices}, got {self.interpolation!r}")

    def read(self, path: str | Path) -> Tensor:
        """Return the pixels of an image file, uint8 [3, size, size]; other modes than colour become RGB.

        Raises:
            InputError: the file is no image, or broken.
        """
        from PIL import Image
        from torchvision.transforms.functional import InterpolationMode, center_crop, resize

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd metadata, of which the photographs of ImageNet have plenty
                with Image.open(path) as file:
                    image: Any = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path} cannot be read as an image ({reason}); replace or remove it") from error
        image = center_crop(resize(image, [self.resize], InterpolationMode(self.interpolation)), [self.size])
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn pixels uint8 [B, 3, h, w] into normalised inputs, float32, on their own device."""
        # In place and with two operations: batches of images are the largest tensors that loading touches.
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device)
        shift = torch.tensor([mean / std for mean, std in zip(self.mean, self.std, strict=True)], device=pixels.device)
        return pixels.float().mul_(scale[:, None, None]).sub_(shift[:, None, None])


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
