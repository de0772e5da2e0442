"""What a study is about: training set, probes, loss, what is known of each probe; and data sets as loaders see them.

The latter: their size, whether they lie in memory, and the packed form in which samples are moved.
"""

import functools
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from losskernel.data.global_state import Seeded, SeededReading, ordinary
from losskernel.data.sample_checks import check_container, check_sample, checked_label, collated_error, names_of
from losskernel.errors import InputError, require
from losskernel.signals import STOP_SIGNALS

Loss = Callable[[Tensor, Tensor], Tensor]
Unpack = Callable[[Tensor], Tensor]  # packed inputs [B, ...] -> the model's inputs [B, ...], on the same device

# Probes that are not in memory are read once and kept up to this size; larger ones are read at every draw.
KEPT_BYTES = 8 * 2**30
_BATCH = 64  # samples that a worker process hands over at once
# Seconds that a worker goes on after a scheduler's signal: enough for a draw, and no orphan for long.
_GRACE = 60


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
        check_container(self.train, "data.train")
        check_container(self.probes, "data.probes")
        require(size(self.train) > 0, "data.train is empty; give at least one training sample")
        count = size(self.probes)
        require(count > 0, "data.probes is empty; give at least two probes")
        for key, dataset in (("data.train", self.train), ("data.probes", self.probes)):
            if not _gives_pairs(dataset):
                check_sample(dataset, key)
        labels = {name: checked_label(name, values, count) for name, values in self.labels.items()}
        ids = np.arange(count) if self.ids is None else names_of(self.ids, "data.ids")
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

    def require_single(self, what: str) -> None:
        """Raise InputError where the training set holds versions of its pictures, which count as samples."""
        versions = getattr(self.train, "versions", 1)
        require(
            versions == 1,
            f"{what} takes training samples one by one, but dataset.preprocessing.train_crops={versions} makes as many "
            "of each picture; set train_crops=1",
        )

    def members(self) -> np.ndarray:
        """Return which training sample each probe is, [N]; -1 for probes that are none."""
        probes = {name: probe for probe, name in enumerate(np.asarray(self.ids).tolist())}
        rows = np.full(len(probes), -1)  # [N]
        for row, name in enumerate(() if self.train_ids is None else _plain(self.train_ids)):
            if name in probes:
                rows[probes[name]] = row
        return rows


def loss_name(loss: Loss) -> str:
    """Return what a loss is called in every process: a partial by its function, an object by its class."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return getattr(loss, "__name__", type(loss).__name__)


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


class Packed(Dataset[tuple[Tensor, Any]], ABC):
    """A map-style data set that keeps inputs in a smaller form than the model takes, such as pixels in bytes.

    Loaders hold and move the packed form, and unpack whole batches on the model's device.

    Attributes:
        unpack: turns packed inputs into the model's; data sets whose `unpack` is equal can share a batch.
    """

    unpack: Unpack

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return a sample whose input is packed."""

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Return all samples, packed, where they lie in memory or in a mapped file, else None."""
        return None

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        packed, target = self.packed(index)
        return self.unpack(packed[None])[0], target


class PackedTensors(Packed):
    """Samples in memory: packed inputs [N, ...], targets [N, ...], and what unpacks the inputs."""

    def __init__(self, inputs: Tensor, targets: Tensor, unpack: Unpack) -> None:
        self.inputs, self.targets, self.unpack = inputs, targets, unpack

    def __len__(self) -> int:
        return len(self.inputs)

    def packed(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one sample."""
        return self.inputs[index], self.targets[index]

    def held(self) -> tuple[Tensor, Tensor]:
        """Return all samples."""
        return self.inputs, self.targets


class ReadOnce(Packed):
    """Samples of any other data set, kept in memory, as small as it packs them, once a loader has asked for all.

    Args:
        dataset: map-style, of (input, target).
        workers: processes that read it.
    """

    def __init__(self, dataset: Dataset[Any], workers: int) -> None:
        self.dataset, self._workers, self.unpack = dataset, workers, unpacker(dataset)
        self._kept: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return size(self.dataset)

    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return a sample of the data set itself."""
        return as_packed(self.dataset)[index]

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.dataset[index]

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Read all samples, the first time; None where they are larger than KEPT_BYTES."""
        if self._kept is None and (whole := held(self.dataset)) is not None:
            return whole
        samples = as_packed(self.dataset)
        # The first sample says how large all are, before any memory is taken.
        if self._kept is None and len(self) * torch.as_tensor(samples[0][0]).nbytes <= KEPT_BYTES:
            self._kept = stack(samples, workers=self._workers)
        return self._kept


class _AsPacked(Dataset[tuple[Tensor, Any]]):
    """A Packed data set as worker processes read it: they hand on the smaller form."""

    def __init__(self, dataset: Packed) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self._dataset.packed(index)


def size(dataset: Dataset[Any]) -> int:
    """Return the number of samples.

    Raises:
        InputError: the data set is not map-style, so that minibatches could not be reproduced.
    """
    try:
        return len(cast(Any, dataset))
    except TypeError:
        raise InputError(
            f"{type(dataset).__name__} has no length; sampling needs map-style datasets (with __len__ and __getitem__)"
        ) from None


def tensors(dataset: Dataset[Any]) -> tuple[Tensor, Tensor] | None:
    """Return (inputs, targets) of a data set that lies in memory as two tensors, or a subset of one, else None."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        inputs, targets = dataset.tensors
        return ordinary(inputs), ordinary(targets)
    return _rows_of(tensors(dataset.dataset), dataset) if isinstance(dataset, Subset) else None


def held(dataset: Dataset[Any]) -> tuple[Tensor, Tensor] | None:
    """Return (inputs, targets) of a data set that lies in memory, its inputs packed where it packs them, else None."""
    if isinstance(dataset, Packed):
        return dataset.held()
    return _rows_of(held(dataset.dataset), dataset) if isinstance(dataset, Subset) else tensors(dataset)


def _rows_of(whole: tuple[Tensor, Tensor] | None, subset: Subset[Any]) -> tuple[Tensor, Tensor] | None:
    if whole is None:
        return None
    rows = torch.as_tensor(subset.indices)
    return whole[0][rows], whole[1][rows]


def unpacker(dataset: Dataset[Any]) -> Unpack:
    """Return what turns the inputs that loaders get from a data set into the model's; `unchanged` for plain ones."""
    if isinstance(dataset, Subset):
        return unpacker(dataset.dataset)
    return dataset.unpack if isinstance(dataset, Packed) else unchanged


def unchanged(inputs: Tensor) -> Tensor:
    """Return inputs that are not packed."""
    return inputs


def as_packed(dataset: Dataset[Any]) -> Dataset[Any]:
    """Return the same samples with inputs that are still packed."""
    if isinstance(dataset, Subset):
        return Subset(as_packed(dataset.dataset), dataset.indices)
    return _AsPacked(dataset) if isinstance(dataset, Packed) else dataset


def _gives_pairs(dataset: Dataset[Any]) -> bool:
    """Whether samples are known to be pairs of numbers: tensors in memory, and data sets of this package."""
    inner = dataset
    while isinstance(inner, Subset):
        inner = inner.dataset
    return tensors(inner) is not None or isinstance(inner, Packed)


def read_once(dataset: Dataset[Any], workers: int) -> Dataset[Any]:
    """Return a data set that keeps its samples once all were read: itself if it does so or lies in memory."""
    return dataset if _gives_pairs(dataset) else ReadOnce(dataset, workers)


def stack(dataset: Dataset[Any], limit: int | None = None, workers: int = 0) -> tuple[Tensor, Tensor]:
    """Load the first `limit` samples (all by default) as (inputs [n, ...], targets [n, ...])."""
    whole = tensors(dataset)
    if whole is not None:
        return whole[0][:limit], whole[1][:limit]
    batches = list(loaded(dataset, batches_of(range(size(dataset))[:limit]), workers))
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([targets for _, targets in batches])


def batches_of(rows: range) -> list[list[Seeded]]:
    """Split row numbers into batches that a worker process hands over at once; what lies in shared memory stays small.

    Every row has a seed of its own, so that it reads the same however many are read at once. An empty range gives no
    batch.
    """
    batches = [rows[first : first + _BATCH] for first in range(0, len(rows), _BATCH)]
    return [[Seeded(row, [row]) for row in batch] for batch in batches]


def loaded(
    dataset: Dataset[Any], batches: Iterable[Sequence[Seeded]], workers: int, device: torch.device | str = "cpu"
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Load batches of samples in worker processes, which end with the iterator, also where a sample cannot be read.

    Args:
        dataset: map-style, of (input, target).
        batches: the rows of each batch, with the seeds of whatever is random in reading them.
        workers: processes that read samples; 0 reads them here.
        device: where the samples go next; pinned memory speeds the way to CUDA up.

    Raises:
        InputError: what a worker's data set says is wrong.
    """
    loader = DataLoader(
        SeededReading(dataset),
        batch_sampler=batches,  # pyright: ignore[reportArgumentType]
        num_workers=min(workers, cores()),  # more would wait for each other, and torch warns of them
        pin_memory=torch.device(device).type == "cuda",
        worker_init_fn=_outlast_signals,
        # Its own: a loader draws a seed for its workers, and the caller's random numbers must not change.
        generator=torch.Generator(),
    )
    try:
        for inputs, targets in loader:
            yield torch.as_tensor(inputs), torch.as_tensor(targets)
    except InputError as error:
        error.__traceback__ = None  # for it would keep the processes alive
        # From a worker process the message comes with that process' traceback in its text.
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ", 1)[-1]) from error
    except (RuntimeError, TypeError) as error:
        if "stack expects each tensor" not in str(error) and "default_collate" not in str(error):
            raise
        raise collated_error(dataset) from error


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def _outlast_signals(_: int) -> None:
    """Let a worker outlast signals, which reach every process: the main one still wants to finish its draw."""
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    # The main process ends workers that do not end by themselves with the same signal as schedulers do.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
