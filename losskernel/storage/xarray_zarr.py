"""Datasets as Zarr stores of which every array carries checksums."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from losskernel.storage.bound import Bound
from losskernel.storage.places import Place
from losskernel.storage.zarr_integrity import CHECKSUMS, checksums_of, named, read_root, sealed
from losskernel.traces.records import Arrays

CODEC = ZstdCodec(level=1, checksum=True)
# Chunks that hold nothing but NaN are written too: one that is not there is one that was lost.
EVERY_CHUNK = {"array.write_empty_chunks": True}


def files_of(dataset: xr.Dataset, grow: Callable[[zarr.Group], None] = lambda _: None) -> dict[str, bytes]:
    """Return the files of a Zarr store that holds a dataset, and what else `grow` makes there: name -> content."""
    held: dict[str, Buffer] = {}
    checked = {"compressors": [CODEC]}
    with known_types(), zarr.config.set(EVERY_CHUNK):
        memory = MemoryStore(held)
        encoding = {str(name): checked for name in dataset.variables}
        dataset.to_zarr(memory, mode="w", zarr_format=3, consolidated=False, encoding=encoding, write_empty_chunks=True)
        grow(zarr.open_group(memory, mode="r+"))
    return sealed({name: content.to_bytes() for name, content in held.items()})


def dataset_of(place: Place) -> xr.Dataset:
    """Return all of a dataset.

    Raises:
        TraceError: a file of it is damaged, or another's, or cannot be read.
    """
    checksums = checksums_of(read_root(place)["attributes"])
    with named(place), known_types():
        found = xr.open_zarr(Bound(place, checksums), consolidated=False, chunks=None, zarr_format=3).load()
    found.attrs.pop(CHECKSUMS, None)
    return found


def create_arrays(group: zarr.Group, arrays: Arrays, stacked: int, most: int, dtype: str, labels: str) -> None:
    """Lay out arrays that grow along `draw`.

    Args:
        group: where.
        arrays: name -> (dimensions, extent).
        stacked: chains of a chunk.
        most: bytes of a chunk of losses.
        dtype: of all.
        labels: names of the probes' labels, with spaces between.
    """
    shape = arrays["losses"][1]
    stacked = min(stacked, shape[0])
    chunk = max(1, min(shape[1], most // (shape[2] * np.dtype(dtype).itemsize * stacked)))
    for name, (dimensions, extent) in arrays.items():
        per_draw = {"draw": chunk, "chain": stacked}
        group.create_array(
            name,
            shape=extent,
            chunks=tuple(per_draw.get(each, length) for each, length in zip(dimensions, extent, strict=True)),
            dtype=dtype,
            dimension_names=dimensions,
            fill_value=np.nan,
            attributes={"coordinates": labels} if name == "losses" and labels else {},
            compressors=[CODEC],
        )


@contextmanager
def known_types() -> Iterator[None]:
    """Silence Zarr's warnings: text arrays are not in its specification yet; states and locks are none of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        warnings.filterwarnings("ignore", message=".*is not recognized as a component of a Zarr hierarchy.*")
        yield
