"""Whether arrays on disk are what was written: checksums of every file, kept in the description of their group.

Zarr checks the content of a chunk, but takes a missing chunk for one that was never written, cannot tell a chunk from
another whole one in its place, and believes every description of an array. So the root's attributes hold the checksum
of each file below it, and of the root itself: `files_of` and `dataset_of` write and read whole data sets so. Groups
that `seal` closes have checksums of the descriptions only.
"""

import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore

from losskernel.errors import TraceError
from losskernel.storage.locations import LocalLocation, StorageLocation, one_line, read_errors, reading

ROOT = "zarr.json"
# Attribute of the root: file -> checksum.
CHECKSUMS = "checksums"
_CHANGED = "its content has changed since it was written"
# Files that are read at once when a trace is resumed.
_BATCH = 16
Descriptions = dict[str, dict[str, Any]]  # array -> its zarr.json
CODEC = ZstdCodec(level=1, checksum=True)
# Chunks of nothing but NaN are written too: so a chunk that does not exist was lost.
EVERY_CHUNK = {"array.write_empty_chunks": True}


class ChunkChecksums(WrapperStore[Store]):
    """A Zarr store that compares what it reads with known checksums, and records those of what it writes.

    Args:
        location: where the group lies.
        checksums: file -> checksum; files without one are read unchecked. Writes are added.
    """

    def __init__(self, location: StorageLocation, checksums: dict[str, str], store: Store | None = None) -> None:
        if store is None:
            local = isinstance(location, LocalLocation)
            store = LocalStore(location.path) if local else FsspecStore.from_url(str(location))
        super().__init__(store)
        self._location, self._checksums = location, checksums

    def _with_store(self, store: Store) -> "ChunkChecksums":
        return ChunkChecksums(self._location, self._checksums, store)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return a file's content.

        Raises:
            TraceError: it is not what was written.
        """
        content = await self._store.get(key, prototype, byte_range)
        known = None if byte_range is not None else self._checksums.get(key)
        if content is not None and known is not None and checksum(content.to_bytes()) != known:
            raise damaged(self._location, key, _CHANGED)
        return content

    async def set(self, key: str, value: Any) -> None:
        """Write a file, and record its checksum."""
        await self._store.set(key, value)
        self._checksums[key] = checksum(value.to_bytes())


def checksum(content: bytes) -> str:
    """Return a short SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def damaged(location: StorageLocation, name: str, reason: str) -> TraceError:
    """Return the error for a file that is not what was written."""
    return TraceError(f"{location}/{name} is damaged: {reason}; {_remedy(location)}")


def missing(location: StorageLocation, name: str) -> TraceError:
    """Return the error for a file that does not exist."""
    return TraceError(f"{location}/{name} is missing; {_remedy(location)}")


def _remedy(location: StorageLocation) -> str:
    return f"restore it from a copy, or remove {location} and run again"


# --- the root's description


def sealed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of a Zarr group with checksums of all of them in its root's description."""
    checksums = {name: checksum(content) for name, content in files.items() if name != ROOT}
    return {**files, ROOT: root_with(json.loads(files[ROOT]), **{CHECKSUMS: checksums})}


def root_with(document: Mapping[str, Any], **attributes: Any) -> bytes:
    """Return the root's description with some attributes changed, and its own checksum where there are any."""
    changed = {**document, "attributes": {**document["attributes"], **attributes}}
    if CHECKSUMS in changed["attributes"]:
        # The root's own checksum is that of the document which lacks it.
        changed["attributes"][CHECKSUMS] = checksums_of(changed["attributes"])
        changed["attributes"][CHECKSUMS] |= {ROOT: checksum(_canonical(changed))}
    return json.dumps(changed, indent=1).encode()


def seal(location: LocalLocation) -> None:
    """Add checksums of the descriptions to a group that has been written and that no other process reads yet."""
    descriptions = [name for name in location.names() if name.endswith(ROOT)]
    (location / ROOT).write(sealed(location.read_all(descriptions))[ROOT])


def read_root(location: StorageLocation) -> dict[str, Any]:
    """Return the description of a group.

    Raises:
        FileNotFoundError: there is none; NotADirectoryError: a file is in its place.
        TraceError: it is damaged.
    """
    content = reading(location, (location / ROOT).read)
    try:
        document = json.loads(content)
        attributes = document.setdefault("attributes", {})
        # Recognised by the value too: damage may have changed the attribute's name.
        if any(name == CHECKSUMS or (isinstance(value, dict) and ROOT in value) for name, value in attributes.items()):
            checksums = attributes[CHECKSUMS]
            expected = checksums.pop(ROOT)
            if checksum(_canonical(document)) != expected:
                raise damaged(location, ROOT, _CHANGED)
            checksums[ROOT] = expected
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise damaged(location, ROOT, "it cannot be read") from error
    return document


def checksums_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return file -> checksum of a group's files without its root; groups of older versions have none."""
    return {name: value for name, value in attributes.get(CHECKSUMS, {}).items() if name != ROOT}


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


# --- the files below it


def require_whole(location: StorageLocation, attributes: Mapping[str, Any], dense: Collection[str] = ()) -> None:
    """Check that all files of a group exist.

    Args:
        location: of the group.
        attributes: of its root.
        dense: arrays of which every chunk exists in groups without checksums too; of others, chunks that held nothing
            but the fill value were not written there.

    Raises:
        TraceError: a file is missing, or a description damaged.
    """
    names = reading(location, location.names)
    arrays = _descriptions(location, attributes, names)
    for array in arrays if CHECKSUMS in attributes else dense:
        if array not in arrays:
            raise missing(location, f"{array}/{ROOT}")
        for name, _ in _chunks(array, arrays[array]):
            # A store's listing may lag behind its writes, so what it lacks is looked up.
            if name not in names and not reading(location, (location / name).exists):
                raise missing(location, name)


def require_unchanged(location: StorageLocation, attributes: Mapping[str, Any], chunks: Mapping[str, str]) -> None:
    """Compare every file of an unfinished group with its checksum.

    Args:
        location: of the group.
        attributes: of its root.
        chunks: checksums of the chunks that a resume state counts; the root does not know them yet.

    Raises:
        TraceError: a file is missing or damaged.
    """
    checksums = checksums_of(attributes) | dict(chunks)
    names = sorted(checksums)
    for first in range(0, len(names), _BATCH):
        contents = reading(location, location.read_all, names[first : first + _BATCH])
        for name in names[first : first + _BATCH]:
            if name not in contents:
                raise missing(location, name)
            if checksum(contents[name]) != checksums[name]:
                raise damaged(location, name, _CHANGED)


@contextmanager
def named(location: StorageLocation) -> Iterator[None]:
    """Around reads or writes of arrays: if they fail, name the damaged file, if there is one.

    Raises:
        TraceError: a file is damaged, or cannot be read.
    """
    try:
        yield
    except TraceError:
        raise
    except Exception:  # Zarr and its codecs have no common exception
        _require_sound(location)
        with read_errors(location):
            raise


def _require_sound(location: StorageLocation) -> None:
    """Decode every chunk by itself, as an array of its own in memory."""
    names = reading(location, location.names)
    for array, description in _descriptions(location, read_root(location)["attributes"], names).items():
        for name, region in _chunks(array, description):
            if name not in names:
                continue
            content = reading(location / name, (location / name).read)
            files = {ROOT: json.dumps(description).encode(), name.removeprefix(f"{array}/"): content}
            buffer = default_buffer_prototype().buffer
            try:
                store = MemoryStore({key: buffer.from_bytes(value) for key, value in files.items()})
                _ = zarr.open_array(store, mode="r")[region]
            except Exception as error:  # whatever a codec raises
                raise damaged(location, name, one_line(error).rstrip(".")) from error


def _descriptions(location: StorageLocation, attributes: Mapping[str, Any], names: Collection[str]) -> Descriptions:
    """Return the description of each array, checked against its checksum."""
    checksums = checksums_of(attributes)
    listed = sorted(name for name in checksums or names if name.endswith(f"/{ROOT}"))
    contents, arrays = reading(location, location.read_all, listed), {}
    for name in listed:
        if name not in contents:
            raise missing(location, name)
        if checksums and checksum(contents[name]) != checksums[name]:
            raise damaged(location, name, _CHANGED)
        array = name.removesuffix(f"/{ROOT}")
        try:
            arrays[array] = json.loads(contents[name])
            next(_chunks(array, arrays[array]), None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(location, name, "it does not describe an array") from error
    return arrays


def _chunks(array: str, description: Mapping[str, Any]) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield name and extent of each chunk of an array."""
    shape, sizes = description["shape"], description["chunk_grid"]["configuration"]["chunk_shape"]
    for index in itertools.product(*(range(-(-length // size)) for length, size in zip(shape, sizes, strict=True))):
        axes = zip(index, sizes, shape, strict=True)
        extent = tuple(slice(i * size, min((i + 1) * size, length)) for i, size, length in axes)
        yield "/".join([array, "c", *map(str, index)]), extent


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
