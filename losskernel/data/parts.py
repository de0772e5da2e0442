"""Parts of samples: targets without inputs, inputs of a few samples."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from losskernel.data.packed import Packed, ReadOnce, as_packed, size, tensors

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
