"""From an image in a file to the input of a network (resize, crop, normalise), and back to a small picture."""

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.models.pretrained import input_settings

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """What is done to pictures before a network sees them; what is not given is as the network's weights want it.

    Attributes:
        network: whose pretrained weights' own transforms fill the gaps: "torchvision/googlenet", "timm/NAME"; None
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
        """Return all of it for an input of `size` pixels a side, by default the network's own.

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
        """Return the pixels of a picture file, uint8 [3, size, size]; other modes than colour become RGB.

        Raises:
            InputError: the file is no picture, or broken.
        """
        from PIL import Image
        from torchvision.transforms.functional import InterpolationMode, center_crop, resize

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd metadata, of which the photographs of ImageNet have plenty
                with Image.open(path) as file:
                    picture: Any = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path} cannot be read as a picture ({reason}); replace or remove it") from error
        picture = center_crop(resize(picture, [self.resize], InterpolationMode(self.interpolation)), [self.size])
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels uint8 [B, 3, h, w] into inputs, float32, on their own device."""
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device)
        shift = torch.tensor([mean / std for mean, std in zip(self.mean, self.std, strict=True)], device=pixels.device)
        return pixels.float().mul_(scale[:, None, None]).sub_(shift[:, None, None])


LARGEST = 48
_MOST_EXACT = 2000  # images beyond which a page of them must be small


def thumbnails(inputs: Tensor) -> np.ndarray | None:
    """Return images [N, c, h, w] (c = 1 or 3) as uint8 [N, h, w, c] of at most 48 pixels a side, else None.

    Pixels in bytes are shown as they are; other images are stretched each to its own range, for models see normalised
    pixels.
    """
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or min(inputs.shape[2:]) < 4:
        return None
    images = inputs.detach().float()
    if max(images.shape[2:]) > LARGEST:
        images = interpolate(images, scale_factor=LARGEST / max(images.shape[2:]), mode="area")
    if not inputs.is_floating_point():
        return images.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    scaled = (images - low) / (high - low).clamp_min(1e-12) * 255
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def encode(images: np.ndarray) -> list[str]:
    """Return each image [h, w, c] as a data URI: without loss (PNG), or as JPEG where there are more than 2,000."""
    from PIL import Image

    kind = "png" if len(images) <= _MOST_EXACT else "jpeg"
    uris = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format=kind, quality=75)
        uris.append(f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode())
    return uris
