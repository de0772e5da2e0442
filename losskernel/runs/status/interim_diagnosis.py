"""The diagnosis of an unfinished run: from time to time, often enough to be useful, rarely enough to cost nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losskernel.kernel.diagnosis.diagnose import ENOUGH, Interim, interim
from losskernel.kernel.diagnosis.statistics import load_arviz

_EVERY = 30.0  # seconds between two diagnoses
_SOON = 5.0  # seconds where the draws have doubled since the last one
_SHARE = 200  # the least time between two, in units of the time that the last one took: at most 0.5 % of the run


class InterimDiagnosis:
    """Collects three numbers per draw and chain, and diagnoses them at intervals.

    The numbers are the probes' mean loss, the minibatch loss and the distance from w*. Draws from before an
    interruption are not among them, since the trace on disk is not read back.

    Args:
        draws: of each chain in the end.
        clock: seconds that pass.

    Attributes:
        latest: the last diagnosis; None before the first.
    """

    def __init__(self, draws: int, clock: Callable[[], float]) -> None:
        self._total, self._clock = draws, clock
        self._finished: list[tuple[Sequence[int], np.ndarray]] = []  # complete stacks: their chains, [C, D, 3]
        self.latest: Interim | None = None

    def start_stack(self, chains: Sequence[int], loss_scale: float | None, at_start: bool) -> None:
        """Begin a stack of chains.

        Args:
            chains: their numbers.
            loss_scale: 2 nbeta / P, which turns an excess loss into units of its stationary mean; None if unknown.
            at_start: whether the chains are still at w*.
        """
        self._chains, self._loss_scale, self._at_start = chains, loss_scale, at_start
        self._draws: list[list[Tensor]] = []  # three tensors [C] each
        self._start_loss: float | None = None
        self._last_time, self._last_count, self._cost = self._clock(), 0, 0.0

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Add the outputs of a stride, a draw or burn-in steps."""
        if self._at_start:
            # After one stride the chains have hardly left w*, so this overestimates the loss there, if anything:
            # the excess loss is never exaggerated.
            self._start_loss, self._at_start = float(outputs["train_loss"].mean()), False
        if "losses" in outputs:
            values = (outputs["losses"].mean(1), outputs["train_loss"], outputs["distance"])
            self._draws.append([value.cpu() for value in values])

    def finish_stack(self) -> None:
        """Keep the draws of a complete stack."""
        if len(self._draws) == self._total:
            self._finished.append((self._chains, self._observed()))

    def refresh(self, force: bool = False) -> None:
        """Diagnose the draws so far, if the interval has passed.

        Args:
            force: diagnose even if it has not.
        """
        waited, doubled = self._clock() - self._last_time, len(self._draws) >= 2 * self._last_count
        due = waited >= (_SOON if doubled else _EVERY) and waited >= _SHARE * self._cost
        if len(self._draws) >= ENOUGH and (due or force):
            load_arviz()  # takes seconds, once; the final diagnosis needs it anyway, so it does not count as cost
            began = self._clock()
            self.latest = self._diagnose()
            self._last_time, self._last_count = self._clock(), len(self._draws)
            self._cost = self._last_time - began

    def _diagnose(self) -> Interim:
        # One chain alone can only be split in halves. Two complete chains say more: whether they agree.
        if len(self._chains) > 1 or len(self._finished) < 2:
            observed = self._observed()
            excess = float("nan")
            if self._start_loss is not None and self._loss_scale is not None:
                excess = (observed[:, :, 1].mean() - self._start_loss) * self._loss_scale
            return interim(observed, self._total, self._chains, float(excess))
        chains = [chain for stack, _ in self._finished for chain in stack]
        return interim(np.concatenate([observed for _, observed in self._finished]), self._total, chains)

    def _observed(self) -> np.ndarray:
        flat = torch.stack([value for draw in self._draws for value in draw])  # [3 D, C]
        return flat.double().numpy().reshape(len(self._draws), 3, -1).transpose(2, 0, 1)  # [C, D, 3]
