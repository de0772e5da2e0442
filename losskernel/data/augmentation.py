"""Training samples that change at every draw: pictures mirrored and shifted at random."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from losskernel.data.packed import Packed, as_packed, held, size, unpacker
from losskernel.errors import require, require_integer

# (inputs [B, ...] as the dataset holds them, random numbers on the CPU) -> inputs
Augment = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True)
class FlipAndCrop:
    """Mirrors pictures left to right, each with probability 1/2, and cuts them at random out of a frame around them.

    The frame is zero where the dataset holds the picture: black for pixels, which are normalised afterwards, as in
    torchvision's RandomHorizontalFlip and RandomCrop.

    Attributes:
        padding: width of the frame, and so the largest shift along either side, in pixels.
        flip: whether to mirror.

    Raises:
        InputError: a setting out of range; when called: inputs that are no pictures.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        require_integer("training.augment.padding", self.padding, at_least=0)
        require(isinstance(self.flip, bool), f"training.augment.flip must be true or false, got {self.flip!r}")

    def __call__(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Return other versions of pictures [B, C, height, width], each with random numbers of its own."""
        shape = tuple(inputs.shape)
        require(
            len(shape) == 4, f"training.augment takes pictures [B, C, h, w], got {shape}; set training.augment=null"
        )
        batch, _, height, width = shape
        first = torch.randint(2 * self.padding + 1, (2, batch, 1), generator=generator)
        mirrored = torch.rand(batch, 1, generator=generator) < 0.5 if self.flip else torch.zeros(batch, 1).bool()
        rows = first[0] + torch.arange(height)  # [B, height], of the framed picture
        columns = first[1] + torch.arange(width)
        columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows.to(inputs.device), columns.to(inputs.device)
        framed = torch.nn.functional.pad(inputs, [self.padding] * 4).permute(0, 2, 3, 1)
        every = torch.arange(batch, device=inputs.device)[:, None, None]
        return framed[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


class Augmented(Packed):
    """A training set whose batches are changed whenever they are loaded, in the form in which they are packed.

    Args:
        dataset: map-style, of (input, target); itself not changed.
        augment: what changes them.
        generator: its random numbers, on the CPU.
    """

    def __init__(self, dataset: Dataset[Any], augment: Augment, generator: Generator) -> None:
        self._dataset, self._augment, self._generator = dataset, augment, generator

    def __len__(self) -> int:
        return size(self._dataset)

    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return a sample of the dataset, not yet changed."""
        return as_packed(self._dataset)[index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Change a batch, then unpack it as the dataset does."""
        return unpacker(self._dataset)(self._augment(packed, self._generator))

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Return all samples of the dataset where they lie in memory, not yet changed."""
        return held(self._dataset)
