"""Feeding stacked chains: minibatches [C, B, ...] and probe blocks [b, ...], on the chains' device."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from losskernel.data.base import Data
from losskernel.data.minibatch_order import MinibatchIndices
from losskernel.data.packed import as_packed, batches_of, held, loaded, size, unpacker

# Part of a device's free memory that samples may occupy for good; a larger set is moved block by block.
_SHARE = 0.5


class MinibatchLoader:
    """Minibatches of all chains, one step after another.

    Samples that lie in memory are indexed directly (a DataLoader over tensors costs more than a small
    model's step); others stream through a DataLoader with workers, which end with close().
    """

    def __init__(self, data: Data, indices: MinibatchIndices, device: torch.device) -> None:
        self._indices, self._device = indices, device
        self._unpack = unpacker(data.train)
        self._held = _held_on(data.train, device)
        rows = (self._indices().reshape(-1).tolist() for _ in itertools.count())
        self._stream = loaded(as_packed(data.train), rows, data.workers, device)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return the next minibatch: inputs [C, B, ...], targets [C, B, ...]."""
        packed, targets = next(self._stream) if self._held is None else self._indexed(*self._held)
        inputs = self._unpack(packed.to(self._device, non_blocking=True))
        shape = self._indices.shape
        return inputs.unflatten(0, shape), targets.to(self._device, non_blocking=True).unflatten(0, shape)

    def close(self) -> None:
        """End the processes that load samples; nothing can be loaded after this."""
        self._stream.close()

    def _indexed(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        flat = self._indices().reshape(-1).to(inputs.device)  # [C · B]
        return inputs.index_select(0, flat), targets.index_select(0, flat)


class BlockLoader:
    """All samples of a data set in fixed order, in blocks; kept on the device where they lie in memory and fit."""

    def __init__(self, dataset: Dataset[Any], block: int, workers: int, device: torch.device) -> None:
        self._dataset, self._block, self._workers, self._device = dataset, block, workers, device
        self._unpack = unpacker(dataset)
        self._held = _held_on(dataset, device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for packed, targets in self._streamed() if self._held is None else self._sliced(*self._held):
            yield self._unpack(packed.to(self._device)), targets.to(self._device)

    def _sliced(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(inputs.split(self._block), targets.split(self._block), strict=True)

    def _streamed(self) -> Iterator[tuple[Tensor, Tensor]]:
        rows = range(size(self._dataset))
        # Workers hand over less than a block at once, so that shared memory stays small.
        blocks = [batches_of(rows[first : first + self._block]) for first in range(0, len(rows), self._block)]
        stream = loaded(as_packed(self._dataset), itertools.chain(*blocks), self._workers, self._device)
        for block in blocks:
            inputs, targets = zip(*itertools.islice(stream, len(block)), strict=True)
            yield torch.cat(inputs), torch.cat(targets)


def _held_on(dataset: Dataset[Any], device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return samples that lie in memory, moved to the device unless they would fill too much of its memory."""
    samples = held(dataset)
    if samples is None:
        return None
    inputs, targets = samples
    if device.type == "cuda" and inputs.nbytes > _SHARE * torch.cuda.mem_get_info(device)[0]:
        return inputs, targets
    return inputs.to(device), targets.to(device)
