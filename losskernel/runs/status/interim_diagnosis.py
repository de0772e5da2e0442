"""Looks at the draws of a run at work, now and then: often enough to be of use, seldom enough to cost nothing."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losskernel.kernel.diagnosis.interim import ENOUGH, Interim, interim
from losskernel.kernel.diagnosis.statistics import load_arviz

_EVERY = 30.0  # seconds between two looks
_SOON = 5.0  # where the draws have doubled since
_SHARE = 200  # a look waits this many times as long as the last one took


class Glances:
    """Gathers three numbers a draw and chain, and judges them so far.

    Draws from before an interruption are not among them.

    Args:
        of: draws of each chain in the end.
        clock: seconds that go by.

    Attributes:
        last: the verdict so far; None before the first.
    """

    def __init__(self, of: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._of, self._clock = of, clock
        self._finished: list[tuple[Sequence[int], np.ndarray]] = []  # whole stacks: their chains, [C, D, 3]
        self.last: Interim | None = None

    def begin(self, chains: Sequence[int], per_loss: float | None, fresh: bool) -> None:
        """Turn to a stack of chains.

        Args:
            chains: their numbers.
            per_loss: what a loss is counted in, 2 nbeta / P; None where that is not known.
            fresh: whether they stand at w*.
        """
        self._chains, self._per_loss, self._fresh = chains, per_loss, fresh
        self._draws: list[list[Tensor]] = []  # three [C] each
        self._start: float | None = None
        self._looked, self._draws_then, self._took = self._clock(), 0, 0.0

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Take what a stride shows."""
        if self._fresh:  # the mean loss where the chains have hardly left w*: no larger excess than there is
            self._start, self._fresh = float(outputs["train_loss"].mean()), False
        if "losses" in outputs:
            seen = (outputs["losses"].mean(1), outputs["train_loss"], outputs["distance"])
            self._draws.append([value.cpu() for value in seen])

    def end(self) -> None:
        """Keep a stack whose chains have all their draws."""
        if len(self._draws) == self._of:
            self._finished.append((self._chains, self._observed()))

    def look(self, at_once: bool = False) -> None:
        """Judge the draws so far, if it is time.

        Args:
            at_once: look though it is not time.
        """
        waited, doubled = self._clock() - self._looked, len(self._draws) >= 2 * self._draws_then
        soon = waited >= (_SOON if doubled else _EVERY) and waited >= _SHARE * self._took
        if len(self._draws) >= ENOUGH and (soon or at_once):
            load_arviz()  # seconds, once, that the diagnosis needs anyway: no part of what a look takes
            began = self._clock()
            self.last = self._judged()
            self._looked, self._draws_then = self._clock(), len(self._draws)
            self._took = self._looked - began

    def _judged(self) -> Interim:
        """Judge the stack at work; single chains rather beside each other, once two are finished."""
        if len(self._chains) > 1 or len(self._finished) < 2:
            observed = self._observed()
            excess = float("nan")
            if self._start is not None and self._per_loss is not None:
                excess = (observed[:, :, 1].mean() - self._start) * self._per_loss
            return interim(observed, self._of, self._chains, float(excess))
        chains = [chain for stack, _ in self._finished for chain in stack]
        return interim(np.concatenate([observed for _, observed in self._finished]), self._of, chains)

    def _observed(self) -> np.ndarray:
        flat = torch.stack([value for draw in self._draws for value in draw])  # [3 D, C]
        return flat.double().numpy().reshape(len(self._draws), 3, -1).transpose(2, 0, 1)  # [C, D, 3]
