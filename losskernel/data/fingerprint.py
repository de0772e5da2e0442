"""Short hashes that say whether two data sets, or two sets of weights, are the same."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losskernel.data.packed import ReadOnce, size, tensors
from losskernel.data.recombined import Assembled


def fingerprint(dataset: Any) -> str:
    """Return the size of a dataset and a digest: of its contents in memory, or of what a wrapper put together."""
    held: Iterable[Tensor] | None = tensors(dataset)
    inner = dataset.dataset if isinstance(dataset, ReadOnce) else dataset
    if isinstance(inner, Assembled):
        # What a wrapper did to files is in which samples it took and what it called them.
        held = [inner.targets, torch.as_tensor(inner.which), torch.as_tensor(inner.rows)]
    return f"{size(dataset)} samples" if held is None else f"{size(dataset)} samples, {digest(held)}"


def digest(values: Iterable[Tensor]) -> str:
    """Return a short hash of tensors' bytes."""
    result = hashlib.sha256()
    for value in values:
        result.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return result.hexdigest()[:16]
