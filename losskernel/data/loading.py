"""Feeding stacked chains: minibatches [C, B, ...] and probe blocks [b, ...], on the chains' device.

And the order in which chains and training see the training samples, with the generators that fix it.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from losskernel.data.base import Data, as_packed, batches_of, held, loaded, size, unpacker
from losskernel.data.global_state import Seeded

NOISE, MINIBATCH = 0, 1  # streams of random numbers of a chain
# The chain number whose minibatches and noise training sees: above that of any sampling chain.
TRAINING_STREAM = 2**30
# Part of a device's free memory that samples may occupy for good; a larger set is moved block by block.
_SHARE = 0.5


def generator(seed: int, stream: int, chain: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of one stream of one chain.

    torch's CPU generator keeps only 32 bits of its seed, so a hash could give two chains the same numbers.
    The mix below is one-to-one on 32 bits: streams and chains of one seed never collide.
    """
    state = (seed * 0x9E3779B1 + 2 * chain + stream) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's finaliser
        state = ((state ^ (state >> shift)) * factor) & 0xFFFFFFFF
    return torch.Generator(device=device).manual_seed(state ^ (state >> 16))


class MinibatchIndices:
    """Sample numbers [C, B], one set a step: every chain reshuffles its own epochs, without replacement.

    Args:
        seed: of the run.
        chains: numbers of the chains.
        train_size: training samples; those that fill no whole minibatch are left out of the epoch.
        batch_size: B.
        first_step: steps already done; their epochs are shuffled again to reach the same position.
    """

    def __init__(self, seed: int, chains: Sequence[int], train_size: int, batch_size: int, first_step: int = 0) -> None:
        self.shape = (len(chains), batch_size)
        self._seed, self._chains, self._step = seed, list(chains), first_step
        self._generators = [generator(seed, MINIBATCH, chain) for chain in chains]
        self._order = torch.empty(len(chains), train_size, dtype=torch.int64)  # [C, n]
        self._steps_per_epoch = train_size // batch_size
        epoch, self._offset = divmod(first_step, self._steps_per_epoch)
        # At the end of an epoch the next shuffle comes with the next step, not now.
        for _ in range(epoch + (self._offset > 0)):
            self._shuffle()

    def __call__(self) -> Tensor:
        """Return the next step's sample numbers, int64 on the CPU."""
        if self._offset == 0:
            self._shuffle()
        self._step += 1
        start = self._offset * self.shape[1]
        self._offset = (self._offset + 1) % self._steps_per_epoch
        return self._order[:, start : start + self.shape[1]]

    def seeded(self) -> list[Seeded]:
        """Return the next step's sample numbers with a seed of each chain and step, for transforms that are random."""
        rows = self().tolist()
        seeds = [np.random.SeedSequence([self._seed, chain, self._step]) for chain in self._chains]
        return [Seeded(int(seed.generate_state(1)[0]), part) for seed, part in zip(seeds, rows, strict=True)]

    def _shuffle(self) -> None:
        for row, random in zip(self._order, self._generators, strict=True):
            torch.randperm(len(row), generator=random, out=row)


class MinibatchLoader:
    """Minibatches of all chains, one step after another.

    Samples that lie in memory are indexed directly (a DataLoader over tensors costs more than a small
    model's step); others stream through a DataLoader with workers, which end with close().
    """

    def __init__(self, data: Data, indices: MinibatchIndices, device: torch.device) -> None:
        self._indices, self._device = indices, device
        self._unpack = unpacker(data.train)
        self._held = _held_on(data.train, device)
        batches = (self._indices.seeded() for _ in itertools.count())
        self._stream = loaded(as_packed(data.train), batches, data.workers, device)

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
