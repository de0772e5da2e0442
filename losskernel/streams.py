"""Every random number of a chain as a pure function of (seed, chain, step).

Because no generator state survives a block, a resumed chain needs only its step number, and chain k is the
same alone and among many.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

NOISE, MINIBATCH = 0, 1
# Noise is drawn in blocks of about this many numbers per chain: one call then serves many steps of a small
# model, and a single step of a large one.
BLOCK_NUMBERS = 8192


def generator(seed: int, stream: int, chain: int, block: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one block of one stream of one chain."""
    mixed = np.random.SeedSequence([seed, stream, chain, block]).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(mixed) & (2**63 - 1))


class NoiseStream:
    """Standard normal numbers [C, P] for each step, from each chain's own generator."""

    def __init__(self, seed: int, chains: Sequence[int], like: Tensor) -> None:
        self.seed, self.chains = seed, list(chains)
        self.length = max(1, min(64, BLOCK_NUMBERS // like.shape[1]))
        self.step = 0
        self._block = -1
        self._noise = torch.empty(len(self.chains), self.length, like.shape[1], dtype=like.dtype, device=like.device)

    def __call__(self, weights: Tensor) -> Tensor:
        """Return the numbers of the current step, [C, P]; move `step` on between calls."""
        block, offset = divmod(self.step, self.length)
        if block != self._block:
            for row, chain in zip(self._noise, self.chains, strict=True):
                row.normal_(generator=generator(self.seed, NOISE, chain, block, weights.device))
            self._block = block
        return self._noise[:, offset]


class MinibatchIndices:
    """Sample numbers [C, B] for each step: every chain reshuffles its own epochs, without replacement."""

    def __init__(self, seed: int, chains: Sequence[int], train_size: int, batch_size: int) -> None:
        self.seed, self.chains = seed, list(chains)
        self.train_size, self.batch_size = train_size, batch_size
        self.steps_per_epoch = train_size // batch_size
        self._epoch = -1
        self._order = torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        """Return the sample numbers of one step, [C, B] int64 on the CPU."""
        epoch, offset = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            orders = [self._shuffle(chain, epoch) for chain in self.chains]
            self._order, self._epoch = torch.stack(orders), epoch
        start = offset * self.batch_size
        return self._order[:, start : start + self.batch_size]

    def _shuffle(self, chain: int, epoch: int) -> Tensor:
        own = generator(self.seed, MINIBATCH, chain, epoch)
        return torch.randperm(self.train_size, generator=own)[: self.steps_per_epoch * self.batch_size]
