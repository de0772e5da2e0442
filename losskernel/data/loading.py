"""Feeding stacked chains: minibatches [C, B, ...] and probe blocks [b, ...], on the chains' device."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from losskernel.data.base import Data, size, tensors
from losskernel.streams import MinibatchIndices


class MinibatchLoader:
    """Minibatches of all chains, one step after another.

    Samples that lie in memory are indexed directly (a DataLoader over tensors costs more than a small
    model's step); others stream through a DataLoader with workers.
    """

    def __init__(self, data: Data, indices: MinibatchIndices, device: torch.device) -> None:
        self._indices = indices
        held = tensors(data.train)
        self._held = None if held is None else tuple(tensor.to(device) for tensor in held)
        self._stream = self._open(data, device)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return the next minibatch: inputs [C, B, ...], targets [C, B, ...]."""
        if self._held is None:
            return next(self._stream)
        flat = self._indices().reshape(-1).to(self._held[0].device)
        inputs, targets = (tensor.index_select(0, flat) for tensor in self._held)
        return inputs.unflatten(0, self._indices.shape), targets.unflatten(0, self._indices.shape)

    def _open(self, data: Data, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        rows = (self._indices().reshape(-1).tolist() for _ in itertools.count())
        for batch in DataLoader(data.train, batch_sampler=rows, num_workers=data.workers):  # pyright: ignore[reportArgumentType]
            inputs, targets = (torch.as_tensor(part).to(device) for part in batch)
            yield inputs.unflatten(0, self._indices.shape), targets.unflatten(0, self._indices.shape)


class BlockLoader:
    """All samples of a dataset in fixed order, in blocks; kept on the device where they lie in memory."""

    def __init__(self, dataset: Dataset[Any], block: int, workers: int, device: torch.device) -> None:
        self._dataset, self._block, self._workers, self._device = dataset, block, workers, device
        held = tensors(dataset)
        self._held = None if held is None else tuple(tensor.to(device) for tensor in held)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._held is not None:
            inputs, targets = self._held
            for start in range(0, size(self._dataset), self._block):
                yield inputs[start : start + self._block], targets[start : start + self._block]
            return
        for batch in DataLoader(self._dataset, batch_size=self._block, num_workers=self._workers):
            inputs, targets = (torch.as_tensor(part).to(self._device) for part in batch)
            yield inputs, targets
