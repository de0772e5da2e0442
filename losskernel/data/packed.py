"""Datasets as loaders see them: their size, whether they lie in memory, and in what form."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from losskernel.errors import InputError

# Probes that no loader can take whole are read once and kept up to this size; larger ones are read at every draw.
KEPT_BYTES = 8 * 2**30


class Packed(Dataset[tuple[Tensor, Any]], ABC):
    """A map-style dataset that keeps inputs in a smaller form than the model takes, such as pixels in bytes.

    Loaders hold and move the packed form, and unpack whole batches where the model is.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return a sample whose input is packed."""

    @abstractmethod
    def unpack(self, packed: Tensor) -> Tensor:
        """Turn packed inputs [B, ...] into the model's, on their own device."""

    @property
    def packing(self) -> Any:
        """Whatever `unpack` depends on: datasets of equal packing share it."""
        return self

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Return all samples, packed, where they lie in memory or in a mapped file, else None."""
        return None

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        packed, target = self.packed(index)
        return self.unpack(packed[None])[0], target


class ReadOnce(Packed):
    """Samples of any other dataset, kept in memory, as small as it packs them, once a loader has asked for all.

    Args:
        dataset: map-style, of (input, target).
        workers: processes that read it.
    """

    def __init__(self, dataset: Dataset[Any], workers: int) -> None:
        self.dataset, self._workers = dataset, workers
        self._kept: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return size(self.dataset)

    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return a sample of the dataset itself."""
        return as_packed(self.dataset)[index]

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.dataset[index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Unpack as the dataset does; plain inputs stay what they are."""
        return unpacker(self.dataset)(packed)

    @property
    def packing(self) -> Any:
        """The dataset's own."""
        return packing(self.dataset)

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Read all samples, the first time; None where they are larger than KEPT_BYTES."""
        if self._kept is None and (there := held(self.dataset)) is not None:
            return there
        plain = as_packed(self.dataset)
        if self._kept is None and len(self) * torch.as_tensor(plain[0][0]).nbytes <= KEPT_BYTES:
            self._kept = stack(plain, workers=self._workers)
        return self._kept


class _AsPacked(Dataset[tuple[Tensor, Any]]):
    """A Packed dataset as worker processes read it: they hand on the smaller form."""

    def __init__(self, dataset: Packed) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self._dataset.packed(index)


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


def held(dataset: Dataset[Any]) -> tuple[Tensor, Tensor] | None:
    """Return (inputs, targets) of a dataset that lies in memory, its inputs packed where it packs them, else None."""
    if isinstance(dataset, Packed):
        return dataset.held()
    if isinstance(dataset, Subset) and (whole := held(dataset.dataset)) is not None:
        chosen = torch.as_tensor(dataset.indices)
        return whole[0][chosen], whole[1][chosen]
    return tensors(dataset)


def unpacker(dataset: Dataset[Any]) -> Callable[[Tensor], Tensor]:
    """Return what turns the inputs that loaders get from a dataset into the model's."""
    if isinstance(dataset, Subset):
        return unpacker(dataset.dataset)
    return dataset.unpack if isinstance(dataset, Packed) else lambda inputs: inputs


def packing(dataset: Dataset[Any]) -> Any:
    """Return what tells whether two datasets unpack alike; None where inputs are not packed."""
    if isinstance(dataset, Subset):
        return packing(dataset.dataset)
    return dataset.packing if isinstance(dataset, Packed) else None


def as_packed(dataset: Dataset[Any]) -> Dataset[Any]:
    """Return the same samples with inputs that are still packed."""
    if isinstance(dataset, Subset):
        return Subset(as_packed(dataset.dataset), dataset.indices)
    return _AsPacked(dataset) if isinstance(dataset, Packed) else dataset


def read_once(dataset: Dataset[Any], workers: int) -> Dataset[Any]:
    """Return the dataset, so wrapped that its samples are kept once they were all read, unless it sees to that."""
    inner = dataset
    while isinstance(inner, Subset):
        inner = inner.dataset
    return dataset if tensors(dataset) is not None or isinstance(inner, Packed) else ReadOnce(dataset, workers)


def stack(dataset: Dataset[Any], limit: int | None = None, workers: int = 0) -> tuple[Tensor, Tensor]:
    """Load the first `limit` samples (all by default) as (inputs [n, ...], targets [n, ...])."""
    whole = tensors(dataset)
    if whole is not None:
        return whole[0][:limit], whole[1][:limit]
    chosen = range(size(dataset) if limit is None else min(limit, size(dataset)))
    samples = Subset(dataset, list(chosen))
    # Its own generator: a loader draws a seed for its workers, and the caller's random numbers are not ours to use.
    loader = DataLoader(samples, batch_size=64, num_workers=workers, generator=torch.Generator())
    batches = list(batches_of(loader))
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([targets for _, targets in batches])


def batches_of(loader: DataLoader[Any]) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield a loader's batches; its worker processes end with the iterator, also where a sample cannot be read.

    Raises:
        InputError: what a worker's dataset says is wrong.
    """
    try:
        for inputs, targets in loader:
            yield torch.as_tensor(inputs), torch.as_tensor(targets)
    except InputError as error:
        error.__traceback__ = None  # for it would hold the processes
        raise _without_traceback(error) from error


def _without_traceback(error: InputError) -> InputError:
    """Return what a worker process found wrong: from there it comes with that process' traceback in its text."""
    return InputError(str(error).strip().splitlines()[-1].split("InputError: ", 1)[-1])
