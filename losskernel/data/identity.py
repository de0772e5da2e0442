"""Digests of data sets that two processes agree on: of what they hold, or of the files that they read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from losskernel.data.base import PackedTensors, ReadOnce, size, stack, tensors
from losskernel.data.recombined import Assembled
from losskernel.storage.object_digest import UnknownIdentity, object_digest

# Data sets up to these sizes are read whole; of larger ones some samples, and the state that reads the others.
_READ_SAMPLES, _READ_BYTES = 4096, 2**28
_SPREAD = 256
_MOST_FILES = 200_000  # whose sizes and times are looked up


def dataset_digest(dataset: Any) -> str:
    """Return a short hash of a data set's samples, or the words "unknown (reason)" where nothing can tell them.

    Tensors in memory and small data sets are hashed whole. Of larger ones it is the code and the state of the data
    set, names, sizes and times of the files that it refers to, and some samples spread over all.
    """
    try:
        return object_digest(list(_parts(dataset)))
    except UnknownIdentity as error:
        return f"unknown ({error})"


def _parts(dataset: Any) -> Iterator[Any]:
    """Yield what identifies a data set."""
    while isinstance(dataset, ReadOnce):
        dataset = dataset.dataset
    yield size(dataset)
    if (whole := tensors(dataset)) is not None:
        yield from whole
    elif isinstance(dataset, PackedTensors):
        yield from (dataset.inputs, dataset.targets, dataset.unpack)
    elif isinstance(dataset, Subset):
        yield from _parts(dataset.dataset)
        yield np.asarray(dataset.indices)
    elif isinstance(dataset, Assembled):
        yield from (dataset.which, dataset.rows, dataset.targets)
        for source in dataset.sources:
            yield from _parts(source)
    elif hasattr(dataset, "identity"):
        yield from dataset.identity()
    else:
        yield from _general(dataset)


def _general(dataset: Any) -> Iterator[Any]:
    """Yield what identifies a data set of unknown kind."""
    count = size(dataset)
    inputs, targets = stack(Subset(dataset, [0]))
    if count <= _READ_SAMPLES and count * (inputs.nbytes + targets.nbytes) <= _READ_BYTES:
        yield from stack(dataset)
        return
    yield dataset
    yield from _referred_files(dataset)
    rows = np.unique(np.linspace(0, count - 1, _SPREAD).astype(int)).tolist()
    yield from stack(Subset(dataset, rows))


def _referred_files(dataset: Any) -> Iterator[tuple[str, int, int]]:
    """Yield (name, size, time) of every file that an attribute of the data set names, or that lies in such a folder."""
    seen = 0
    for path in _paths(vars(dataset) if hasattr(dataset, "__dict__") else dataset):
        files = [path] if path.is_file() else (Path(top) / name for top, _, names in os.walk(path) for name in names)
        for file in files:
            seen += 1
            if seen > _MOST_FILES:
                raise UnknownIdentity(f"{type(dataset).__name__} refers to more than {_MOST_FILES:,} files")
            status = file.stat()
            yield (os.fspath(file.relative_to(path)), status.st_size, status.st_mtime_ns)


def _paths(value: Any, depth: int = 3) -> Iterator[Path]:
    """Yield the existing paths among strings in nested containers; words that only look like one are left out."""
    if isinstance(value, (str, Path)):
        path = Path(value)
        # A bare word such as "train" may be a folder by chance.
        if (isinstance(value, Path) or os.sep in value) and len(str(value)) < 4096 and path.exists():
            yield path
    elif depth and isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _paths(value[key], depth - 1)
    elif depth and isinstance(value, (list, tuple, np.ndarray)) and not isinstance(value, torch.Tensor):
        for part in value if not isinstance(value, np.ndarray) or value.dtype.kind in "OSU" else ():
            yield from _paths(part, depth - 1)
