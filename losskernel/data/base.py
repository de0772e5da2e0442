"""What a study is about: training set, probes, loss, what is known of each probe, and the classes of its targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from losskernel.data.packed import read_once, size, stack, tensors
from losskernel.errors import require

__all__ = ["Data", "Loss", "size", "stack", "tensors"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Data:
    """A training set and the probes whose losses are compared.

    Probes that are neither tensors in memory nor Packed are wrapped, so that they are read once and not at every draw.

    Attributes:
        train: map-style data set of (input, target).
        probes: map-style data set of (input, target); they may be training samples or not.
        loss: (outputs, targets) -> [B], one loss per sample (see losskernel.losses).
        labels: name -> [N] array of what is known of each probe (task, class, ...).
        ids: [N] names of the probes, unique; their numbers by default.
        train_ids: [n] names of the training samples, unique. A probe that is a training sample has the same name in
            both; None says that no probe is known to be one.
        classes: names of the classes that integer targets count; None where they have none.
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
    train_ids: Sequence[Any] | None = None
    classes: Sequence[str] | None = None

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
        if self.train_ids is not None:
            given, samples = len(self.train_ids), size(self.train)
            require(given == samples, f"data.train_ids has {given} entries for {samples} training samples")
            # A set, for a million paths of files take it 0.4 s; sorting them takes ten times as long.
            distinct = len(set(_plain(self.train_ids)))
            require(distinct == samples, "data.train_ids are not unique; give every training sample its own id")
        # The only way to complete a frozen dataclass.
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "probes", read_once(self.probes, self.workers))

    def members(self) -> np.ndarray:
        """Return which training sample each probe is, [N]; -1 for probes that are none."""
        probes = {name: probe for probe, name in enumerate(np.asarray(self.ids).tolist())}
        rows = np.full(len(probes), -1)  # [N]
        for row, name in enumerate(() if self.train_ids is None else _plain(self.train_ids)):
            if name in probes:
                rows[probes[name]] = row
        return rows


def is_classes(targets: Tensor) -> bool:
    """Whether targets are class numbers, one for each sample."""
    kind = targets.dtype
    return targets.ndim == 1 and not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def class_names(data: Data, targets: Tensor) -> np.ndarray:
    """Return the names of class numbers, [n]; the numbers themselves where the data have no names.

    Raises:
        InputError: there are more classes than names.
    """
    numbers = targets.numpy()
    if data.classes is None:
        return numbers
    most = int(numbers.max()) + 1 if len(numbers) else 0
    require(
        most <= len(data.classes),
        f"data.classes has {len(data.classes)} names, but targets count {most} classes; name all",
    )
    return np.asarray(data.classes)[numbers]


def class_number(data: Data, given: Any, count: int, key: str) -> int:
    """Return the number of a class that is given by its name or number, of `count`.

    Raises:
        InputError: there is no such class, or several of that name.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        require(0 <= given < count, f"{key}: there is no class {given}; classes are 0 ... {count - 1}")
        return given
    names: list[Any] = [] if data.classes is None else list(data.classes)
    choices = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else f"0 ... {count - 1}"
    matches = names.count(given)
    subject = "no class is" if matches == 0 else f"{matches} classes are"
    require(matches == 1, f"{key}: {subject} named {given!r}; classes are {choices}")
    return names.index(given)


def class_count(data: Data, targets: Tensor) -> int:
    """Return how many classes there are: as many as have names, else as the training samples' targets count."""
    return int(targets.max()) + 1 if data.classes is None else len(data.classes)


def named_generator(name: str, seed: int, *more: int) -> np.random.Generator:
    """Return the random numbers of a wrapper.

    All wrappers have the run's seed by default; with the same numbers, what one chooses would say what another does.
    """
    return np.random.default_rng([seed, *name.encode(), *more])


def _plain(names: Sequence[Any]) -> Sequence[Any]:
    """Return names as Python's own objects, all text where some are, as an array of them would hold them."""
    alike = isinstance(names, np.ndarray) or len({type(name) for name in names}) <= 1
    return names if alike and not isinstance(names, np.ndarray) else np.asarray(names).tolist()
