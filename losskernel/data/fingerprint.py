"""Short hashes that say whether two data sets, or two sets of weights, are the same.

They are stored with traces and compared with those of later runs: a change here makes old traces unusable.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losskernel.data.packed import ReadOnce, size, tensors
from losskernel.data.recombined import Assembled


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


def digest(values: Iterable[Tensor]) -> str:
    """Return a short hash of tensors' bytes."""
    result = hashlib.sha256()
    for value in values:
        result.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return result.hexdigest()[:16]
