"""Data sets made of other data sets' samples: other targets, another order, a few inputs changed, or augmented."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from losskernel.data.packed import Packed, ReadOnce, as_packed, held, packing, size, tensors, unpacker

# Of a dataset: some of its samples, in any order.
Part = tuple[Dataset[Any], Sequence[int] | np.ndarray]


def assemble(parts: Sequence[Part], targets: Tensor) -> Dataset[Any]:
    """Return the samples of all parts, one part after another, with the given targets [N, ...].

    Tensors stay tensors; what lies in files stays there until a loader asks for it.
    """
    wholes = [tensors(dataset) for dataset, _ in parts]
    if all(whole is not None for whole in wholes):
        inputs = [_taken(whole[0], rows) for whole, (_, rows) in zip(wholes, parts, strict=True) if whole is not None]
        return TensorDataset(inputs[0] if len(inputs) == 1 else torch.cat(inputs), targets)
    return Assembled([_origin(dataset, np.asarray(rows, dtype=np.int64)) for dataset, rows in parts], targets)


def as_probes(dataset: Dataset[Any], workers: int) -> Dataset[Any]:
    """Return an assembled dataset as probes, which are read at every draw: what lies in files is kept once read."""
    return dataset if tensors(dataset) is not None else ReadOnce(dataset, workers)


class Assembled(Packed):
    """Samples from other datasets with targets of their own; packed as these are, where all pack alike.

    Args:
        origins: for each part (datasets, which of them [n], rows there [n]); none of the datasets assembled itself.
        targets: of all samples, [N, ...].
    """

    def __init__(self, origins: Sequence[tuple[Sequence[Dataset[Any]], np.ndarray, np.ndarray]], targets: Tensor):
        self.sources = list({id(source): source for sources, _, _ in origins for source in sources}.values())
        place = {id(source): number for number, source in enumerate(self.sources)}
        self.which = np.concatenate([np.array([place[id(each)] for each in own])[of] for own, of, _ in origins])
        self.rows = np.concatenate([rows for _, _, rows in origins])
        self.targets = targets
        self._alike = all(packing(source) == packing(self.sources[0]) for source in self.sources)
        self._inputs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return one sample, read from where it lies."""
        source, row = self.sources[self.which[index]], int(self.rows[index])
        inputs, _ = (as_packed(source) if self._alike else source)[row]
        return torch.as_tensor(inputs), self.targets[index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Unpack as the sources do; where they differ, samples come unpacked."""
        return unpacker(self.sources[0])(packed) if self._alike else packed

    @property
    def packing(self) -> Any:
        """The sources' own, or None where they differ."""
        return packing(self.sources[0]) if self._alike else None

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Return all samples where all sources hold theirs; put together the first time."""
        if self._inputs is None:
            wholes = [held(source) for source in self.sources]
            if any(whole is None for whole in wholes):
                return None
            self._inputs = self._together([whole[0] for whole in wholes if whole is not None])
        return self._inputs, self.targets

    def _together(self, wholes: list[Tensor]) -> Tensor:
        if len(wholes) == 1:
            return self._plain(0, _taken(wholes[0], self.rows))
        parts = [self._plain(number, whole[self.rows[self.which == number]]) for number, whole in enumerate(wholes)]
        inputs = torch.empty(len(self), *parts[0].shape[1:], dtype=parts[0].dtype)
        for number, part in enumerate(parts):
            inputs[self.which == number] = part
        return inputs

    def _plain(self, number: int, inputs: Tensor) -> Tensor:
        return inputs if self._alike else unpacker(self.sources[number])(inputs)


class _Own(Packed):
    """Inputs in memory that are packed as another dataset packs its own; their targets are given where they join it."""

    def __init__(self, inputs: Tensor, like: Dataset[Any]) -> None:
        self._inputs, self._unpack, self._packing = inputs, unpacker(like), packing(like)
        self._none = torch.zeros(len(inputs))

    def __len__(self) -> int:
        return len(self._inputs)

    def packed(self, index: int) -> tuple[Tensor, Any]:
        return self._inputs[index], self._none[index]

    def unpack(self, packed: Tensor) -> Tensor:
        return self._unpack(packed)

    @property
    def packing(self) -> Any:
        return self._packing

    def held(self) -> tuple[Tensor, Tensor]:
        return self._inputs, self._none


def own_inputs(inputs: Tensor, like: Dataset[Any]) -> Dataset[Any]:
    """Return new inputs [n, ...], packed as another dataset packs its own, to be assembled with it."""
    return TensorDataset(inputs, torch.zeros(len(inputs))) if packing(like) is None else _Own(inputs, like)


def _origin(dataset: Dataset[Any], rows: np.ndarray) -> tuple[Sequence[Dataset[Any]], np.ndarray, np.ndarray]:
    """Return where samples lie in the end: datasets that are not assembled themselves, which of them, rows there."""
    if isinstance(dataset, Subset):
        return _origin(dataset.dataset, np.asarray(dataset.indices, dtype=np.int64)[rows])
    if isinstance(dataset, ReadOnce) and isinstance(dataset.dataset, Assembled):
        dataset = dataset.dataset
    if isinstance(dataset, Assembled):
        return dataset.sources, dataset.which[rows], dataset.rows[rows]
    return [dataset], np.zeros(len(rows), dtype=np.int64), rows


def _taken(inputs: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
    """Return some rows; not a copy where these are all, in order."""
    chosen = np.asarray(rows)
    return inputs if np.array_equal(chosen, np.arange(len(inputs))) else inputs[torch.as_tensor(chosen)]


_LOOKED_AT = 8  # samples that must have the target that their dataset says


def packed_inputs(dataset: Dataset[Any], rows: Sequence[int] | np.ndarray) -> Tensor:
    """Read the inputs of some samples, [n, ...], still packed; of files only these."""
    whole, plain = tensors(dataset), as_packed(dataset)
    if whole is not None:
        return whole[0][torch.as_tensor(np.asarray(rows))]
    return torch.stack([torch.as_tensor(plain[int(row)][0]) for row in rows])


def targets_of(dataset: Dataset[Any], workers: int = 0) -> Tensor:
    """Return all targets [n, ...]; samples are read only where a dataset does not know its targets."""
    known = _known_targets(dataset)
    if known is not None:
        return known
    kept = dataset.held() if isinstance(dataset, ReadOnce) else None
    if kept is not None:
        return kept[1]
    loader = DataLoader(_Targets(dataset), batch_size=64, num_workers=workers, generator=torch.Generator())
    return torch.cat([torch.as_tensor(batch) for batch in loader])


def _known_targets(dataset: Dataset[Any]) -> Tensor | None:
    whole = tensors(dataset)
    if whole is not None:
        return whole[1]
    if isinstance(dataset, Subset):
        inner = _known_targets(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ReadOnce):
        return _known_targets(dataset.dataset)
    known = getattr(dataset, "targets", None)
    if known is None or len(known) != size(dataset):
        return None
    known = torch.as_tensor(known)
    if isinstance(dataset, Packed):
        return known
    # torchvision's datasets know theirs too, but not what a transform or a subclass makes of them.
    looked_at = np.linspace(0, len(known) - 1, min(_LOOKED_AT, len(known))).astype(int).tolist()
    same = all(bool((torch.as_tensor(cast(Any, dataset)[row][1]) == known[row]).all()) for row in looked_at)
    return known if same else None


class _Targets(Dataset[Any]):
    """The targets alone of a dataset's samples."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return size(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index][1]
