"""Digests of data sets that two processes agree on: of what they hold, or of the files that they read."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Subset

from losskernel.data.base import Packed, PackedTensors, ReadOnce, size, stack, tensors
from losskernel.data.recombined import Assembled
from losskernel.storage.object_digest import UnknownIdentity, object_digest, stored_digest
from losskernel.storage.settings_diff import UNKNOWN

# Data sets up to these sizes are read whole; of larger ones some samples, and the state that reads the others.
_READ_SAMPLES, _READ_BYTES = 4096, 2**28
_SPREAD = 256
_MOST_FILES = 200_000  # in folders, whose sizes and times are looked up


def dataset_digest(dataset: Any) -> str:
    """Return a short hash of a data set's samples, or the words "unknown (reason)" where nothing can tell them.

    Tensors in memory and small data sets are hashed whole. Of larger ones it is the code and the state of the data
    set, names, sizes and times of the files that it refers to, and some samples spread over all. State that changes as
    samples are read is left out.
    """
    try:
        return object_digest(list(_parts(dataset)))
    except UnknownIdentity as error:
        return f"unknown ({error})"


def _parts(dataset: Any) -> Iterator[Any]:
    """Yield what identifies a data set."""
    yield size(dataset)
    while isinstance(dataset, ReadOnce):
        # Kept once read, and read by what comes next anyway; pictures are known by their files.
        small = not isinstance(dataset.dataset, Packed) and size(dataset) <= _READ_SAMPLES
        if small and (whole := dataset.held()) is not None and whole[0].nbytes + whole[1].nbytes <= _READ_BYTES:
            yield from whole
            return
        dataset = dataset.dataset
    if (whole := tensors(dataset)) is not None:
        yield from whole
    elif isinstance(dataset, PackedTensors):
        yield from (dataset.inputs, dataset.targets, dataset.unpack)
    elif isinstance(dataset, Subset) and (len(dataset.indices) > _READ_SAMPLES or isinstance(dataset.dataset, Packed)):
        yield from _parts(dataset.dataset)
        yield np.asarray(dataset.indices)
    elif isinstance(dataset, Assembled):
        yield from (dataset.which, dataset.rows, dataset.targets)
        for source in dataset.sources:
            yield from _parts(source)
    elif hasattr(dataset, "identity"):
        yield from cast(Any, dataset).identity()
    else:
        yield from _general(dataset)


def _general(dataset: Any) -> Iterator[Any]:
    """Yield what identifies a data set of unknown kind."""
    count, before = size(dataset), _attributes(dataset)
    inputs, targets = stack(Subset(dataset, [0]))
    if count <= _READ_SAMPLES and count * (inputs.nbytes + targets.nbytes) <= _READ_BYTES:
        yield from stack(dataset)
        return
    yield type(dataset)
    after = _attributes(dataset)
    # Counters, caches and files that are opened on the way change as samples are read, and say nothing of these.
    kept = [name for name in before if before[name] == after.get(name)]
    for name in kept:
        if before[name].startswith(UNKNOWN):
            raise UnknownIdentity(before[name].removeprefix(UNKNOWN).removesuffix(")"))
        yield name, before[name]
    yield from _referred_files(dataset)
    rows = np.unique(np.linspace(0, count - 1, _SPREAD).astype(int)).tolist()
    yield from stack(Subset(dataset, rows))


def _attributes(dataset: Any) -> dict[str, str]:
    """Return attribute -> digest of a data set; of a list and the like, of its whole content."""
    state = vars(dataset) if hasattr(dataset, "__dict__") else {"content": dataset}
    return {name: stored_digest(value) for name, value in state.items()}


def _referred_files(dataset: Any) -> Iterator[tuple[str, int, int]]:
    """Yield (name, size, time) of the files that attributes of the data set name, or that lie in folders they name."""
    named = dict.fromkeys(_paths(vars(dataset) if hasattr(dataset, "__dict__") else dataset))
    files = [path for path in named if path.is_file()]
    # A folder of files that are listed holds nothing more; one around the program holds all that it writes, too.
    around = {Path.cwd(), *Path.cwd().parents, Path.home()}
    folders = [path for path in named if path.is_dir() and path.resolve() not in around] if not files else []
    for path in (*files, *(file for folder in folders for file in sorted(_below(folder)))):
        try:
            status = path.stat()
        except OSError:  # a broken link, or gone
            yield path.name, -1, -1
        else:
            yield path.name, status.st_size, status.st_mtime_ns


def _below(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, up to a number that is looked through in seconds."""
    walked = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return list(itertools.islice(walked, _MOST_FILES))


def _paths(value: Any, depth: int = 3) -> Iterator[Path]:
    """Yield the existing paths among strings in nested containers; words that only look like one are left out."""
    if isinstance(value, (str, Path)):
        # A bare word such as "train" may be a folder by chance.
        if (isinstance(value, Path) or os.sep in value) and len(str(value)) < 4096:
            with suppress(OSError, ValueError):
                if Path(value).exists():
                    yield Path(value)
    elif depth and isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _paths(value[key], depth - 1)
    elif depth and isinstance(value, (list, tuple, np.ndarray)) and not isinstance(value, torch.Tensor):
        for part in value if not isinstance(value, np.ndarray) or value.dtype.kind in "OSU" else ():
            yield from _paths(part, depth - 1)
