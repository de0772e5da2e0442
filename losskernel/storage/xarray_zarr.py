"""Datasets as Zarr stores of which every file has a checksum."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import xarray as xr
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from losskernel.storage.locations import StorageLocation
from losskernel.storage.zarr_integrity import CHECKSUMS, ChunkChecksums, checksums_of, named, read_root, sealed

CODEC = ZstdCodec(level=1, checksum=True)
# Chunks of nothing but NaN are written too: so a chunk that does not exist was lost.
EVERY_CHUNK = {"array.write_empty_chunks": True}


def files_of(dataset: xr.Dataset, extend: Callable[[zarr.Group], None] = lambda _: None) -> dict[str, bytes]:
    """Return name -> content of the Zarr store of a dataset, to which `extend` may add arrays."""
    # In memory first: checksums need every file's content, and files are then written in one step.
    files: dict[str, Buffer] = {}
    compressed = {str(name): {"compressors": [CODEC]} for name in dataset.variables}
    with known_types(), zarr.config.set(EVERY_CHUNK):
        memory = MemoryStore(files)
        dataset.to_zarr(
            memory, mode="w", zarr_format=3, consolidated=False, encoding=compressed, write_empty_chunks=True
        )
        extend(zarr.open_group(memory, mode="r+"))
    return sealed({name: content.to_bytes() for name, content in files.items()})


def dataset_of(location: StorageLocation) -> xr.Dataset:
    """Return a whole dataset, in memory.

    Raises:
        TraceError: a file of it is damaged, or another's, or cannot be read.
    """
    checksums = checksums_of(read_root(location)["attributes"])
    with named(location), known_types():
        store = ChunkChecksums(location, checksums)
        dataset = xr.open_zarr(store, consolidated=False, chunks=None, zarr_format=3).load()
    # The attribute belongs to the files, not to the data.
    dataset.attrs.pop(CHECKSUMS, None)
    return dataset


@contextmanager
def known_types() -> Iterator[None]:
    """Silence Zarr's warnings about text arrays, which its specification lacks, and about files that are not its own.

    The latter are resume states and locks.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        warnings.filterwarnings("ignore", message=".*is not recognized as a component of a Zarr hierarchy.*")
        yield
