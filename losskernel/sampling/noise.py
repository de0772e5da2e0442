"""The noise of chains: every chain has its own, whichever chains run beside it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losskernel.data.minibatch_order import NOISE, generator

# Noise is drawn in blocks of about this many numbers per chain: one call then serves many steps of a small
# model, and a single step of a large one. Part of a chain's law: another length gives other numbers.
BLOCK_NUMBERS = 8192


class NoiseStream:
    """Standard normal numbers [C, P], one set a step.

    Args:
        seed: of the run.
        chains: numbers of the chains.
        like: weights [C, P] that the numbers are for.
    """

    def __init__(self, seed: int, chains: Sequence[int], like: Tensor) -> None:
        length = max(1, min(64, BLOCK_NUMBERS // like.shape[1]))
        self._generators = [generator(seed, NOISE, chain, like.device) for chain in chains]
        self._block = torch.empty(len(chains), length, like.shape[1], dtype=like.dtype, device=like.device)
        self._next = length
        self._before: list[Tensor] = []

    def __call__(self, _: Tensor | None = None) -> Tensor:
        """Return the next step's numbers."""
        if self._next == self._block.shape[1]:
            self._draw()
        self._next += 1
        return self._block[:, self._next - 1]

    def _draw(self) -> None:
        self._before = [each.get_state() for each in self._generators]
        for row, own in zip(self._block, self._generators, strict=True):
            row.normal_(generator=own)
        self._next = 0

    def state(self) -> dict[str, Any]:
        """Return where the stream stands: the generators before the current block, and the place in it."""
        return {"generators": self._before, "next": self._next}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        if state["generators"]:
            for own, before in zip(self._generators, state["generators"], strict=True):
                own.set_state(before)
            self._draw()
        self._next = state["next"]
