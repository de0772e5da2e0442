"""Data sets made of other data sets' samples: other targets, another order, a few inputs changed, or augmented.

And the hashes that tell them apart, which are stored with traces and compared with those of later runs: a change of
these makes old traces unusable.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from losskernel.data.base import (
    Packed,
    PackedTensors,
    ReadOnce,
    Unpack,
    as_packed,
    batches_of,
    held,
    loaded,
    size,
    tensors,
    unchanged,
    unpacker,
)
from losskernel.storage.object_digest import stored_digest

# A data set, and the rows of it that are taken, in any order.
Part = tuple[Dataset[Any], Sequence[int] | np.ndarray]
# (inputs [B, ...] as the data set holds them, random numbers on the CPU) -> inputs
Augment = Callable[[Tensor, Generator], Tensor]
_CHECKED = 8  # samples whose targets must be those that their data set states in `targets`


def assemble(parts: Sequence[Part], targets: Tensor) -> Dataset[Any]:
    """Return the samples of all parts, one part after another, with the given targets [N, ...].

    Tensors stay tensors; samples in files are not read until a loader asks for them.
    """
    wholes = [tensors(dataset) for dataset, _ in parts]
    if all(whole is not None for whole in wholes):
        inputs = [_taken(whole[0], rows) for whole, (_, rows) in zip(wholes, parts, strict=True) if whole is not None]
        return TensorDataset(inputs[0] if len(inputs) == 1 else torch.cat(inputs), targets)
    return Assembled([_origin(dataset, np.asarray(rows, dtype=np.int64)) for dataset, rows in parts], targets)


def as_probes(dataset: Dataset[Any], workers: int) -> Dataset[Any]:
    """Return an assembled data set as probes, which are read at every draw: samples from files are kept once read."""
    return dataset if tensors(dataset) is not None else ReadOnce(dataset, workers)


class Assembled(Packed):
    """Samples from other data sets with targets of their own; packed as these are, where all pack alike.

    Args:
        origins: for each part (data sets, which of them [n], rows there [n]); none of the data sets is assembled.
        targets: of all samples, [N, ...].

    Attributes:
        sources: the data sets that samples come from.
        which: of the sources, [N].
        rows: in that source, [N].
    """

    def __init__(self, origins: Sequence[tuple[Sequence[Dataset[Any]], np.ndarray, np.ndarray]], targets: Tensor):
        self.sources = list({id(source): source for sources, _, _ in origins for source in sources}.values())
        number = {id(source): number for number, source in enumerate(self.sources)}
        self.which = np.concatenate([np.array([number[id(s)] for s in sources])[of] for sources, of, _ in origins])
        self.rows = np.concatenate([rows for _, _, rows in origins])
        self.targets = targets
        # Data sets that pack in different ways cannot share a batch, so their samples come unpacked.
        self._alike = all(unpacker(source) == unpacker(self.sources[0]) for source in self.sources)
        self.unpack = unpacker(self.sources[0]) if self._alike else unchanged
        self._inputs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return one sample, read from its source."""
        source, row = self.sources[self.which[index]], int(self.rows[index])
        inputs, _ = (as_packed(source) if self._alike else source)[row]
        return torch.as_tensor(inputs), self.targets[index]

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Return all samples where all sources lie in memory; put together the first time."""
        if self._inputs is None:
            wholes = [held(source) for source in self.sources]
            if any(whole is None for whole in wholes):
                return None
            self._inputs = self._gathered([whole[0] for whole in wholes if whole is not None])
        return self._inputs, self.targets

    def _gathered(self, wholes: list[Tensor]) -> Tensor:
        """Return the inputs [N, ...] of all samples; of mapped files only the rows taken are read."""
        parts = []
        for number, (source, whole) in enumerate(zip(self.sources, wholes, strict=True)):
            part = _taken(whole, self.rows[self.which == number])
            parts.append(part if self._alike else unpacker(source)(part))
        if len(parts) == 1:
            return parts[0]
        inputs = torch.empty(len(self), *parts[0].shape[1:], dtype=parts[0].dtype)  # [N, ...]
        for number, part in enumerate(parts):
            inputs[self.which == number] = part
        return inputs


class Augmented(Packed):
    """A training set whose batches are changed whenever they are loaded, in the form in which they are packed.

    Args:
        dataset: map-style, of (input, target); itself not changed.
        augment: what changes batches.
        generator: of its random numbers, on the CPU.
    """

    def __init__(self, dataset: Dataset[Any], augment: Augment, generator: Generator) -> None:
        self._dataset = dataset
        self.unpack = functools.partial(_augmented, augment, generator, unpacker(dataset))

    def __len__(self) -> int:
        return size(self._dataset)

    def packed(self, index: int) -> tuple[Tensor, Any]:
        """Return a sample of the data set, not yet changed."""
        return as_packed(self._dataset)[index]

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Return all samples of the data set where they lie in memory, not yet changed."""
        return held(self._dataset)


def _augmented(augment: Augment, generator: Generator, unpack: Unpack, packed: Tensor) -> Tensor:
    return unpack(augment(packed, generator))


def inputs_like(inputs: Tensor, like: Dataset[Any]) -> Dataset[Any]:
    """Return new inputs [n, ...], packed as another data set packs its own, to be assembled with it."""
    targets = torch.zeros(len(inputs))  # never read: assembling gives others
    unpack = unpacker(like)
    return TensorDataset(inputs, targets) if unpack is unchanged else PackedTensors(inputs, targets, unpack)


def packed_inputs(dataset: Dataset[Any], rows: Sequence[int] | np.ndarray) -> Tensor:
    """Read the inputs of some samples, [n, ...], still packed; of files only these."""
    whole, samples = tensors(dataset), as_packed(dataset)
    if whole is not None:
        return whole[0][torch.as_tensor(np.asarray(rows))]
    return torch.stack([torch.as_tensor(samples[int(row)][0]) for row in rows])


def targets_of(dataset: Dataset[Any], workers: int = 0) -> Tensor:
    """Return all targets [n, ...]; samples are read only where a data set does not know its targets."""
    known = _known_targets(dataset)
    if known is not None:
        return known
    kept = dataset.held() if isinstance(dataset, ReadOnce) else None
    if kept is not None:
        return kept[1]
    return torch.cat([targets for _, targets in loaded(dataset, batches_of(range(size(dataset))), workers)])


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
    # torchvision's data sets state theirs too, but not what a transform or a subclass makes of them.
    checked = np.linspace(0, len(known) - 1, min(_CHECKED, len(known))).astype(int).tolist()
    same = all(bool((torch.as_tensor(cast(Any, dataset)[row][1]) == known[row]).all()) for row in checked)
    return known if same else None


def _origin(dataset: Dataset[Any], rows: np.ndarray) -> tuple[Sequence[Dataset[Any]], np.ndarray, np.ndarray]:
    """Return where samples come from in the end: data sets that are not assembled, which of them, rows there."""
    if isinstance(dataset, Subset):
        return _origin(dataset.dataset, np.asarray(dataset.indices, dtype=np.int64)[rows])
    # Through wrappers of wrappers, so that fingerprints and loading do not depend on how many there were.
    if isinstance(dataset, ReadOnce) and isinstance(dataset.dataset, Assembled):
        dataset = dataset.dataset
    if isinstance(dataset, Assembled):
        return dataset.sources, dataset.which[rows], dataset.rows[rows]
    return [dataset], np.zeros(len(rows), dtype=np.int64), rows


def _taken(inputs: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
    """Return some rows; not a copy where these are all, in order."""
    chosen = np.asarray(rows)
    return inputs if np.array_equal(chosen, np.arange(len(inputs))) else inputs[torch.as_tensor(chosen)]


def fingerprint(dataset: Any) -> str:
    """Return the size of a data set and a digest of its contents in memory, or of a wrapper's choices.

    Samples in files, and pixels in bytes, are known by their number alone, for reading them all would take too long.
    """
    values: Iterable[Tensor] | None = tensors(dataset)
    inner = dataset.dataset if isinstance(dataset, ReadOnce) else dataset
    if isinstance(inner, Assembled):
        # What a wrapper did is in the samples that it took and the targets that it gave them.
        values = [inner.targets, torch.as_tensor(inner.which), torch.as_tensor(inner.rows)]
    return f"{size(dataset)} samples" if values is None else f"{size(dataset)} samples, {digest(values)}"


def digest(values: Iterable[Any]) -> str:
    """Return a short hash of tensors' bytes; entries that numpy cannot hold count by their `stored_digest`."""
    result = hashlib.sha256()
    for value in values:
        try:
            content = np.ascontiguousarray(value.detach().cpu().numpy()).tobytes()
        except (AttributeError, TypeError, RuntimeError):  # an extra state; bfloat16; sparse or quantised tensors
            content = stored_digest(value).encode()
        result.update(content)
    return result.hexdigest()[:16]
