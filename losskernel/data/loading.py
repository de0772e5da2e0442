"""Feeding stacked chains: minibatches [C, B, ...] and probe blocks [b, ...], on the chains' device."""

import itertools
import os
import signal
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from losskernel.data.base import Data
from losskernel.data.minibatch_order import MinibatchIndices
from losskernel.data.packed import as_packed, batches_of, held, size, unpacker
from losskernel.signals import STOP_SIGNALS

# Most samples that a worker hands over at once for a block: what lies in shared memory stays small.
_PIECE = 64
# Part of a device's free memory that samples may take for good; what is larger is moved block by block.
_SHARE = 0.5
# Seconds that a worker goes on after a scheduler's signal: enough for a draw, and no orphan for long.
_LAST = 60


class MinibatchLoader:
    """Minibatches of all chains, one step after another.

    Samples that lie in memory are indexed directly (a DataLoader over tensors costs more than a small
    model's step); others stream through a DataLoader with workers, which end with close().
    """

    def __init__(self, data: Data, indices: MinibatchIndices, device: torch.device) -> None:
        self._indices, self._device = indices, device
        self._unpack = unpacker(data.train)
        samples = held(data.train)
        self._held = None if samples is None else _placed(samples, device)
        rows = (self._indices().reshape(-1).tolist() for _ in itertools.count())
        self._stream = loaded(data.train, rows, data.workers, device)

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
        flat = self._indices().reshape(-1).to(inputs.device)
        return inputs.index_select(0, flat), targets.index_select(0, flat)


class BlockLoader:
    """All samples of a dataset in fixed order, in blocks; kept on the device where they lie in memory and fit."""

    def __init__(self, dataset: Dataset[Any], block: int, workers: int, device: torch.device) -> None:
        self._dataset, self._block, self._workers, self._device = dataset, block, workers, device
        self._unpack = unpacker(dataset)
        samples = held(dataset)
        self._held = None if samples is None else _placed(samples, device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for packed, targets in self._blocks():
            yield self._unpack(packed.to(self._device)), targets.to(self._device)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._held is None:
            yield from self._streamed()
            return
        inputs, targets = self._held
        for start in range(0, size(self._dataset), self._block):
            yield inputs[start : start + self._block], targets[start : start + self._block]

    def _streamed(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = size(self._dataset)
        blocks = [range(first, min(first + self._block, count)) for first in range(0, count, self._block)]
        pieces = [list(block[first : first + _PIECE]) for block in blocks for first in range(0, len(block), _PIECE)]
        batches = loaded(self._dataset, pieces, self._workers, self._device)
        for block in blocks:
            inputs, targets = zip(*itertools.islice(batches, -(-len(block) // _PIECE)), strict=True)
            yield torch.cat(inputs), torch.cat(targets)


def _placed(samples: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return samples on the device, or where they are if they would take too much of its memory."""
    inputs, targets = samples
    if device.type == "cuda" and inputs.nbytes > _SHARE * torch.cuda.mem_get_info(device)[0]:
        return inputs, targets
    return inputs.to(device), targets.to(device)


def loaded(
    dataset: Dataset[Any], rows: Iterable[list[int]], workers: int, device: torch.device
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Load the samples of each row in worker processes, inputs still packed; the processes end with the iterator.

    Raises:
        InputError: what a worker's dataset says is wrong.
    """
    loader = DataLoader(
        as_packed(dataset),
        batch_sampler=rows,  # pyright: ignore[reportArgumentType]
        num_workers=min(workers, _cores()),  # more would wait for each other, and torch warns of them
        pin_memory=device.type == "cuda",
        worker_init_fn=_outlast,
        # Its own: a loader draws a seed for its workers, and the caller's random numbers are not ours to use.
        generator=torch.Generator(),
    )
    yield from batches_of(loader)


def _cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def _outlast(_: int) -> None:
    """Let a worker outlast signals, which reach every process: the main one still wants to finish its draw."""
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    # The main process ends workers that do not end by themselves with the same signal as schedulers do.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LAST))
