"""How a network is trained: steps, batches, the optimiser and its learning rate, augmentation."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from losskernel.data.recombined import Augment
from losskernel.errors import require, require_integer, require_number


@dataclass(frozen=True)
class Training:
    """How to train: an optimiser's steps, while its learning rate falls.

    Attributes:
        steps: optimiser steps; 0 keeps the initial weights.
        batch_size: training samples per step; at most the training set.
        optimizer: builds the optimiser from the parameters.
        checkpoints: how many checkpoints to keep along the way, spaced logarithmically; the last is the end.
        milestones: parts of training, in (0, 1), after each of which the learning rate falls tenfold; None: it falls to
            zero along a cosine.
        augment: (inputs [B, ...] as the dataset holds them, torch.Generator) -> inputs; changes training samples at
            every draw in training, and nowhere else; None changes nothing.

    Raises:
        InputError: a length is not a whole number in range, or milestones or augment are of another kind.
    """

    steps: int = 3000
    batch_size: int = 128
    optimizer: Callable[..., Optimizer] = field(default=torch.optim.Adam)
    checkpoints: int = 8
    milestones: Sequence[float] | None = None
    augment: Augment | None = None

    def __post_init__(self) -> None:
        for key, least in (("steps", 0), ("batch_size", 1), ("checkpoints", 0)):
            require_integer(f"training.{key}", getattr(self, key), at_least=least)
        require(callable(self.optimizer), f"training.optimizer must build an optimiser, got {self.optimizer!r}")
        known = self.augment is None or callable(self.augment)
        require(known, f"training.augment must be null or a function of (inputs, generator), got {self.augment!r}")
        if self.milestones is not None:
            _check_milestones(self.milestones)

    def __repr__(self) -> str:
        # Retrained networks on disk are named by this text, so a field that is None must not change it.
        given = self._given()
        return f"Training({', '.join(f'{name}={value!r}' for name, value in given.items() if value is not None)})"

    def settings(self) -> dict[str, Any]:
        """Return the fields, JSON-ready; functions as text without addresses, which is the same in every process."""
        plain = (int, float, type(None))
        given = self._given()
        # As text of plain floats: Hydra gives its own kinds of lists and numbers.
        given["milestones"] = None if self.milestones is None else str([float(part) for part in self.milestones])
        return {
            name: value if isinstance(value, plain) else re.sub(r" at 0x[0-9a-f]+", "", str(value))
            for name, value in given.items()
        }

    def _given(self) -> dict[str, Any]:
        return {known.name: getattr(self, known.name) for known in fields(self)}

    def checkpoint_steps(self) -> list[int]:
        """Return the steps after which weights are kept, 0 (untrained) first."""
        if self.checkpoints == 0 or self.steps == 0:
            return []
        return sorted({0, *np.geomspace(1, self.steps, self.checkpoints).round().astype(int).tolist()})

    def decay(self, optimizer: Optimizer) -> LRScheduler:
        """Return the schedule of the optimiser's learning rate, stepped once a minibatch."""
        if self.milestones is None:
            return CosineAnnealingLR(optimizer, T_max=self.steps)
        return MultiStepLR(optimizer, [round(part * self.steps) for part in self.milestones], gamma=0.1)


def _check_milestones(milestones: Any) -> None:
    """Raise InputError unless milestones are increasing parts of a whole."""
    listed = isinstance(milestones, Sequence) and not isinstance(milestones, str) and len(milestones) > 0
    example = "e.g. [0.5,0.75]"
    require(listed, f"training.milestones must be null or a list of parts of training, got {milestones!r}; {example}")
    for part in milestones:
        require_number("training.milestones", part, above=0)
    rising = all(before < after for before, after in itertools.pairwise([*map(float, milestones), 1.0]))
    require(rising, f"training.milestones must rise and be < 1, got {list(milestones)}; {example}")
