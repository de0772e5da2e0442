"""Points on disk, read some rows at a time, for kernels too many to be held together."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from losskernel.errors import TraceError
from losskernel.geometry import Point
from losskernel.representations.activations.products import MANY, first_entry
from losskernel.storage.atomic import replacing
from losskernel.storage.locations import LocalLocation, guard
from losskernel.storage.xarray_zarr import CODEC, EVERY_CHUNK
from losskernel.storage.zarr_integrity import named, read_root, require_whole, seal

# A factor with fewer columns than this share of the inputs stays a factor, for 60 of them fit anywhere.
_NARROW = 64
# Numbers of a chunk; of what is read, and kept, at once.
_CHUNK, _WINDOW = 2**18, 2**20
# Numbers of a wide factor's products that are written at once.
_NUMBERS = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class StoredPoint(Point):
    """A point whose triangle lies in a folder; its rows are read when they are asked for.

    Read rows in order, for what follows is read ahead: a point keeps 4 MiB (8 in double precision).

    Attributes:
        folder: a Zarr group that `write_point` wrote.
    """

    folder: Path | None = None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows start to stop of the kernel from the column `start` on, [stop - start, N - start]."""
        count = self.inputs
        stop = min(stop, count)
        begin = first_entry(start, count)
        entries = self._window.read(begin, first_entry(stop, count))
        found = np.zeros((stop - start, count - start), dtype=entries.dtype)
        for row in range(start, stop):
            first = first_entry(row, count) - begin
            found[row - start, row - start :] = entries[first : first + count - row]
        own = found[:, : stop - start]
        own += np.triu(own, 1).T
        return found

    def triangle_entries(self) -> np.ndarray:
        """Return the entries on and above the diagonal, row by row, [N (N + 1) / 2]: as much as N is worth."""
        return self._whole("triangle")

    def diagonal(self) -> np.ndarray:
        """Return the kernel's diagonal [N], float64."""
        return self._whole("diagonal")

    def sums(self) -> np.ndarray:
        """Return the sum of each of the kernel's rows [N], float64."""
        return self._whole("sums")

    def _whole(self, name: str) -> np.ndarray:
        return _read(cast(Path, self.folder), name)

    @cached_property
    def _window(self) -> "_Window":
        return _Window(cast(Path, self.folder))


class _Window:
    """Entries of a triangle on disk of which the last that were read are kept."""

    def __init__(self, folder: Path) -> None:
        self._place = LocalLocation(folder)
        self._array = cast(zarr.Array, zarr.open_group(folder, mode="r")["triangle"])
        self._begin = 0
        self._entries = np.empty(0)

    def read(self, begin: int, end: int) -> np.ndarray:
        if begin < self._begin or end > self._begin + len(self._entries):
            self._entries = np.empty(0)  # freed before the next are there
            # Up to the end of a chunk: none is unpacked twice.
            ahead = -(-max(end, begin + _WINDOW) // _CHUNK) * _CHUNK
            with named(self._place):
                self._begin, self._entries = begin, np.asarray(self._array[begin : min(ahead, self._array.shape[0])])
        return self._entries[begin - self._begin : end - self._begin]


def write_point(point: Point, folder: str | Path) -> Point:
    """Write a point, without its ids, and return it as `open_point` gives it.

    Kernels are written as their triangle, and so are factors with many columns, whose products are written some rows
    at a time: in double precision below 4096 inputs, so that what is read differs by rounding only.

    Args:
        point: a point.
        folder: where it goes, replaced whole; its parent must exist.

    Raises:
        TraceError: the folder cannot be written.
    """
    path = Path(folder)
    guard(path, _write, point, path)
    return open_point(path, point.ids)


def open_point(folder: str | Path, ids: np.ndarray) -> Point:
    """Return a point that `write_point` wrote; one with few features is in memory, others stay on disk.

    Args:
        folder: where it was written.
        ids: [N] names of the inputs; points that share one array are known to stand over the same inputs.

    Raises:
        TraceError: no point of N inputs lies there, or it is damaged.
    """
    path = Path(folder)
    try:
        about = read_root(LocalLocation(path))["attributes"]
        chains, centring = tuple(about["chains"]), about["centring"]
    except (FileNotFoundError, NotADirectoryError, KeyError) as error:
        raise TraceError(f"{path} holds no point; record it again") from error
    require_whole(LocalLocation(path), about)
    count = about["inputs"]
    if count != len(ids):
        raise TraceError(f"{path} holds a point over {count} inputs, but {len(ids)} ids were given; give its own")
    if (path / "factor").is_dir():
        return Point(ids, factor=_read(path, "factor"), chains=chains, centring=centring)
    return StoredPoint(ids, chains=chains, centring=centring, folder=path)


def _read(folder: Path, name: str) -> np.ndarray:
    with named(LocalLocation(folder)):
        return np.asarray(zarr.open_group(folder, mode="r")[name])


def _write(point: Point, path: Path) -> None:
    with replacing(path) as partial, zarr.config.set(EVERY_CHUNK):
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        group.attrs.update({"inputs": point.inputs, "chains": list(point.chains), "centring": point.centring})
        if point.factor is not None and _NARROW * point.factor.shape[1] <= point.inputs:
            _array(group, "factor", point.factor.shape, point.factor.dtype, ("probe", "unit"))[:] = point.factor
        else:
            _write_triangle(point, group)
        seal(LocalLocation(partial))
        shutil.rmtree(path, ignore_errors=True)


def _write_triangle(point: Point, group: zarr.Group) -> None:
    count = point.inputs
    if point.factor is not None and count < MANY:
        point = Point(point.ids, factor=point.factor.astype(np.float64, copy=False))
    kind = point.rows(0, 1).dtype
    stored = _array(group, "triangle", (first_entry(count, count),), kind, ("pair",))
    if point.triangle is not None:
        stored[:] = point.triangle
    else:
        step = max(1, _NUMBERS // count)
        for start in range(0, count, step):
            stop = min(start + step, count)
            rows = point.rows(start, stop)
            stored[first_entry(start, count) : first_entry(stop, count)] = np.concatenate(
                [row[place:] for place, row in enumerate(rows)]
            )
    for name, values in {"diagonal": point.diagonal(), "sums": point.sums()}.items():
        _array(group, name, (count,), values.dtype, ("probe",))[:] = values


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], kind: Any, dimensions: tuple[str, ...]) -> zarr.Array:
    chunks = (_CHUNK,) if name == "triangle" else shape
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, min(chunk, extent)) for chunk, extent in zip(chunks, shape, strict=True)),
        dtype=kind,
        dimension_names=dimensions,
        compressors=[CODEC],
    )
