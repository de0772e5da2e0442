"""From a picture in a file to the input of a network: resize, crop, normalise."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.models.timm_models import TIMM, timm_config
from losskernel.models.torchvision_models import TORCHVISION, torchvision_weights

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
        own = _of_network(self.network or f"{TORCHVISION}/googlenet")
        if size is not None:
            require_integer("dataset.size", size, at_least=1)
            own |= {"size": size, "resize": round(own["resize"] * size / own["size"])}
        given = {name: getattr(self, name) for name in ("resize", "mean", "std", "interpolation")}
        return Crop(**(own | {name: value for name, value in given.items() if value is not None}))


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


def _of_network(network: str) -> dict[str, Any]:
    """Return what the pretrained weights of a network expect, as arguments of Crop."""
    library, _, name = network.partition("/")
    require(
        library in (TORCHVISION, TIMM) and bool(name),
        f"dataset.preprocessing.network must be {TORCHVISION}/NAME or {TIMM}/NAME, got {network!r}",
    )
    if library == TIMM:
        config = timm_config(name, "dataset.preprocessing.network")
        side = config["input_size"][-1]
        return {
            "size": side,
            "resize": math.floor(side / config["crop_pct"]),
            "mean": list(config["mean"]),
            "std": list(config["std"]),
            "interpolation": config["interpolation"],
        }
    own = torchvision_weights(name, "dataset.preprocessing.network").transforms()
    return {
        "size": own.crop_size[0],
        "resize": own.resize_size[0],
        "mean": list(own.mean),
        "std": list(own.std),
        "interpolation": own.interpolation.value,
    }
