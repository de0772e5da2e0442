"""Whether arrays on disk are what was written: checksums of descriptions, a file for every chunk, checksums within.

Zarr checks a chunk's content, but takes a chunk that is missing for one that was never written, and believes every
description of an array. So the description of a group holds the checksums of the files below it, and of itself.

Of groups that `seal` closes these are the descriptions alone: chunks of theirs that are whole, but in another's place,
are not told from them.
"""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from losskernel.errors import TraceError
from losskernel.storage.bound import CHANGED, Bound, checksum
from losskernel.storage.bound import damaged as damaged
from losskernel.storage.bound import missing as missing
from losskernel.storage.places import Folder, Place, reading

ROOT = "zarr.json"
# Attribute of the root: file -> checksum.
CHECKSUMS = "checksums"
# Chunks that are read at once, where a trace is to be continued.
_SLAB = 16
Arrays = dict[str, dict[str, Any]]  # name -> description


def sealed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of a Zarr group with checksums of all of them in its root's description."""
    checksums = {name: checksum(content) for name, content in files.items() if name != ROOT}
    return {**files, ROOT: root_with(json.loads(files[ROOT]), **{CHECKSUMS: checksums})}


def root_with(document: Mapping[str, Any], **attributes: Any) -> bytes:
    """Return the root's description with some attributes changed, and its own checksum where there are any."""
    now = {**document, "attributes": {**document["attributes"], **attributes}}
    if CHECKSUMS in now["attributes"]:
        others = {name: each for name, each in now["attributes"][CHECKSUMS].items() if name != ROOT}
        now["attributes"][CHECKSUMS] = others
        now["attributes"][CHECKSUMS] = others | {ROOT: checksum(_plain(now))}
    return json.dumps(now, indent=1).encode()


def seal(place: Folder) -> None:
    """Add checksums to a group of arrays that has been written, and that nobody else reads yet."""
    named = [name for name in place.names() if name.endswith(ROOT)]
    (place / ROOT).write(sealed(place.read_all(named))[ROOT])


def read_root(place: Place) -> dict[str, Any]:
    """Return the description of a group.

    Raises:
        FileNotFoundError: there is none; NotADirectoryError: a file is in its place.
        TraceError: it is damaged.
    """
    content = reading(place, (place / ROOT).read)
    try:
        document = json.loads(content)
        attributes = document.setdefault("attributes", {})
        # Whatever a damaged name calls them now.
        if any(name == CHECKSUMS or (isinstance(each, dict) and ROOT in each) for name, each in attributes.items()):
            checksums = attributes[CHECKSUMS]
            own = checksums.pop(ROOT)
            if checksum(_plain(document)) != own:
                raise damaged(place, ROOT, CHANGED)
            checksums[ROOT] = own
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise damaged(place, ROOT, "it cannot be read") from error
    return document


def checksums_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return file -> checksum of a group's files, its own description left out; of old ones nothing is known."""
    return {name: each for name, each in attributes.get(CHECKSUMS, {}).items() if name != ROOT}


def require_whole(place: Place, attributes: Mapping[str, Any], sure: Collection[str] = ()) -> None:
    """Look whether all files of a group are there.

    Args:
        place: of the group.
        attributes: of the group.
        sure: arrays of which every chunk is there in groups without checksums too; others left out those that held
            nothing but the fill value.

    Raises:
        TraceError: a file is missing, or a description damaged.
    """
    names = reading(place, place.names)
    arrays = _arrays(place, attributes, names)
    for array in arrays if CHECKSUMS in attributes else sure:
        if array not in arrays:
            raise missing(place, f"{array}/{ROOT}")
        for name, _ in _chunks(array, arrays[array]):
            _require_there(place, names, name)


def _require_there(place: Place, names: Collection[str], name: str) -> None:
    """A listing may lag behind what was written: what it lacks is looked for."""
    if name not in names and not reading(place, (place / name).exists):
        raise missing(place, name)


def require_written(
    place: Place,
    attributes: Mapping[str, Any],
    growing: Collection[str],
    rows: int,
    written: int,
    chunks: dict[str, str],
) -> None:
    """Read what an unfinished trace holds.

    Args:
        place: of the trace.
        attributes: of its root.
        growing: arrays that grow while sampling; others are there from the start.
        rows: first chain of those that are being sampled; chains before are done.
        written: draws of the former that are written.
        chunks: of what grows: name -> checksum.

    Raises:
        TraceError: a file is missing or damaged.
    """
    names = reading(place, place.names)
    arrays = _arrays(place, attributes, names)
    group = zarr.open_group(Bound(place, checksums_of(attributes) | chunks), mode="r")
    for array, about in arrays.items():
        for region in _regions(about, rows, written) if array in growing else [()]:
            for name, _ in _chunks(array, about, region):
                if array == "losses" or CHECKSUMS in attributes:
                    _require_there(place, names, name)
            _ = cast(zarr.Array, group[array])[region]


@contextmanager
def named(place: Place) -> Iterator[None]:
    """Around what reads or writes arrays: where that breaks, say which file is damaged, if one is.

    Raises:
        TraceError: a file is damaged, or cannot be read.
    """
    try:
        yield
    except TraceError:
        raise
    except Exception as error:  # Zarr and what it builds on have no errors of their own for it
        _require_sound(place)
        reading(place, _raise, error)


def _raise(error: Exception) -> None:
    raise error


def _require_sound(place: Place) -> None:
    """Read every chunk by itself."""
    names = reading(place, place.names)
    for array, about in _arrays(place, read_root(place)["attributes"], names).items():
        for name, region in _chunks(array, about):
            if name not in names:
                continue
            content = reading(place / name, (place / name).read)
            held = {ROOT: json.dumps(about).encode(), name.removeprefix(f"{array}/"): content}
            buffers = {key: default_buffer_prototype().buffer.from_bytes(each) for key, each in held.items()}
            try:
                _ = zarr.open_array(MemoryStore(buffers), mode="r")[region]
            except Exception as error:  # whatever a codec raises
                raise damaged(place, name, _reason(error)) from error


def _arrays(place: Place, attributes: Mapping[str, Any], names: Collection[str]) -> Arrays:
    """Return the descriptions of a group's arrays, each as it was written."""
    checksums = checksums_of(attributes)
    listed = sorted(name for name in checksums or names if name.endswith(f"/{ROOT}"))
    contents, arrays = reading(place, place.read_all, listed), {}
    for name in listed:
        if name not in contents:
            raise missing(place, name)
        if checksums and checksum(contents[name]) != checksums[name]:
            raise damaged(place, name, CHANGED)
        array = name.removesuffix(f"/{ROOT}")
        try:
            arrays[array] = json.loads(contents[name])
            next(_chunks(array, arrays[array]), None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(place, name, "it does not describe an array") from error
    return arrays


def _chunks(
    array: str, about: Mapping[str, Any], region: tuple[slice, ...] = ()
) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield the name and the place of an array's chunks, of all or of those that a region touches."""
    shape, sizes = about["shape"], about["chunk_grid"]["configuration"]["chunk_shape"]
    whole = [*region, *(slice(0, extent) for extent in shape[len(region) :])]
    touched = [range(each.start // size, -(-each.stop // size)) for each, size in zip(whole, sizes, strict=True)]
    for index in itertools.product(*touched):
        places = zip(index, sizes, shape, strict=True)
        own = tuple(slice(each * size, min((each + 1) * size, extent)) for each, size, extent in places)
        yield "/".join([array, "c", *map(str, index)]), own


def _regions(about: Mapping[str, Any], rows: int, written: int) -> Iterator[tuple[slice, ...]]:
    """Yield what is written of an array [chain, ...] or [chain, draw, ...], some chunks at a time."""
    shape, sizes = about["shape"], about["chunk_grid"]["configuration"]["chunk_shape"]
    drawn = "draw" in about["dimension_names"]
    for first in range(0, min(rows + sizes[0], shape[0]), sizes[0]):
        chains = slice(first, min(first + sizes[0], shape[0]))
        if not drawn:
            yield from [(chains,)] if first < rows else []
            continue
        draws, step = shape[1] if first < rows else written, _SLAB * sizes[1]
        yield from ((chains, slice(start, min(start + step, draws))) for start in range(0, draws, step))


def _reason(error: Exception) -> str:
    return (" ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__).rstrip(".")


def _plain(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
