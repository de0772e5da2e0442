"""What a study is about: training set, probes, loss, and what is known of each probe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from losskernel.data.samples import read_once, size, stack, tensors
from losskernel.errors import require

__all__ = ["Data", "Loss", "size", "stack", "tensors"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Data:
    """A training set and the probes whose losses are compared.

    Probes that are neither tensors in memory nor Packed are wrapped, so that they are read once and not at every draw.

    Attributes:
        train: map-style dataset of (input, target).
        probes: map-style dataset of (input, target); they may be training samples or not.
        loss: (outputs, targets) -> [B], one loss per sample (see losskernel.losses).
        labels: name -> [N] array of what is known of each probe (task, class, ...).
        ids: [N] names of the probes, unique; their numbers by default.
        workers: processes that load samples where they are not tensors in memory.

    Raises:
        InputError: a set is empty, or labels or ids do not match the probes.
    """

    train: Dataset[Any]
    probes: Dataset[Any]
    loss: Loss
    labels: Mapping[str, Any] = field(default_factory=dict)
    ids: Sequence[Any] | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        require(callable(self.loss), f"data.loss must be a function (outputs, targets) -> [B], got {self.loss!r}")
        require(size(self.train) > 0, "data.train is empty; give at least one training sample")
        count = size(self.probes)
        require(count > 0, "data.probes is empty; give at least two probes")
        labels = {name: np.asarray(values) for name, values in self.labels.items()}
        for name, values in labels.items():
            require(
                values.shape == (count,),
                f"data.labels[{name!r}] has shape {values.shape}, but there are {count} probes; give one value each",
            )
            require(name not in ("chain", "draw", "probe"), f"data.labels: the name {name!r} is taken; rename it")
        ids = np.arange(count) if self.ids is None else np.asarray(self.ids)
        require(len(ids) == count, f"data.ids has {len(ids)} entries, but there are {count} probes; give one each")
        require(len(set(ids.tolist())) == count, "data.ids are not unique; give every probe its own id")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "probes", read_once(self.probes, self.workers))
