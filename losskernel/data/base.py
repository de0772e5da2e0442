"""What a study is about: training set, probes, loss, and what is known of each probe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from losskernel.errors import InputError, require

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Data:
    """A training set and the probes whose losses are compared.

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


def size(dataset: Dataset[Any]) -> int:
    """Return the number of samples.

    Raises:
        InputError: the dataset is not map-style, so that minibatches could not be reproduced.
    """
    try:
        return len(cast(Any, dataset))
    except TypeError:
        raise InputError(
            f"{type(dataset).__name__} has no length; sampling needs map-style datasets (with __len__ and __getitem__)"
        ) from None


def tensors(dataset: Dataset[Any]) -> tuple[Tensor, Tensor] | None:
    """Return (inputs, targets) of a dataset that already lies in memory as two tensors, else None."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[0], dataset.tensors[1]
    if isinstance(dataset, Subset) and (whole := tensors(dataset.dataset)) is not None:
        chosen = torch.as_tensor(dataset.indices)
        return whole[0][chosen], whole[1][chosen]
    return None


def stack(dataset: Dataset[Any], limit: int | None = None, workers: int = 0) -> tuple[Tensor, Tensor]:
    """Load the first `limit` samples (all by default) as (inputs [n, ...], targets [n, ...])."""
    held = tensors(dataset)
    if held is not None:
        return held[0][:limit], held[1][:limit]
    chosen = range(size(dataset) if limit is None else min(limit, size(dataset)))
    batches = list(DataLoader(Subset(dataset, list(chosen)), batch_size=64, num_workers=workers))
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([torch.as_tensor(targets) for _, targets in batches])
