"""The order in which chains and training see the training samples, and the generators that fix it."""

from collections.abc import Sequence

import torch
from torch import Tensor

NOISE, MINIBATCH = 0, 1  # streams of random numbers of a chain
# The chain number whose minibatches and noise training sees: above that of any sampling chain.
TRAINING_STREAM = 2**30


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
        start = self._offset * self.shape[1]
        self._offset = (self._offset + 1) % self._steps_per_epoch
        return self._order[:, start : start + self.shape[1]]

    def _shuffle(self) -> None:
        for row, random in zip(self._order, self._generators, strict=True):
            torch.randperm(len(row), generator=random, out=row)
