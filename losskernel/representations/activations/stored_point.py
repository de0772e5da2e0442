"""Points on disk, read some rows at a time: kernels that are too many to fit into memory together."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from losskernel.errors import TraceError
from losskernel.geometry import Point
from losskernel.geometry.point import SINGLE_PRECISION_INPUTS, first_entry, unpacked_rows, upper_triangle
from losskernel.storage.atomic import replacing
from losskernel.storage.locations import LocalLocation, guard
from losskernel.storage.xarray_zarr import CODEC, EVERY_CHUNK
from losskernel.storage.zarr_integrity import named, read_root, require_whole, seal

# A factor [N, d] with 64 d <= N stays a factor: dozens of them fit into memory.
_NARROW = 64
_CHUNK = 2**18  # numbers of a Zarr chunk
_WINDOW = 2**20  # numbers that are read, and held, at once
_NUMBERS = 2**24  # products of a wide factor that are written at once


@dataclass(frozen=True, eq=False, repr=False)
class StoredPoint(Point):
    """A point whose triangle is stored in a folder; rows are read on demand.

    Best read in order, since the following rows are read ahead: a point holds 4 MiB (8 in double precision).

    Attributes:
        folder: a Zarr group that `write_point` wrote.
    """

    folder: Path | None = None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows start to stop of the kernel from the column `start` on, [stop - start, N - start]."""
        count = self.inputs
        stop = min(stop, count)
        entries = self._window.read(first_entry(start, count), first_entry(stop, count))
        return unpacked_rows(entries, start, stop, count)

    def triangle_entries(self) -> np.ndarray:
        """Return the entries on and above the diagonal, row by row, [N (N + 1) / 2], as one array in memory."""
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
    """A sliding window over the entries of a triangle on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = LocalLocation(folder)
        self._array = cast(zarr.Array, zarr.open_group(folder, mode="r")["triangle"])
        self._begin = 0
        self._entries = np.empty(0)

    def read(self, begin: int, end: int) -> np.ndarray:
        if begin < self._begin or end > self._begin + len(self._entries):
            self._entries = np.empty(0)  # freed before the next ones are read
            # Up to the end of a chunk, so that no chunk is decompressed twice.
            ahead = -(-max(end, begin + _WINDOW) // _CHUNK) * _CHUNK
            with named(self._folder):
                self._begin, self._entries = begin, np.asarray(self._array[begin : min(ahead, self._array.shape[0])])
        return self._entries[begin - self._begin : end - self._begin]


def write_point(point: Point, folder: str | Path) -> Point:
    """Write a point, without its ids, and return it as `open_point` does.

    Kernels are written as their triangle, and so are factors with many columns, whose products are written some rows
    at a time: in double precision below 4096 inputs, so that what is read differs by rounding only.

    Args:
        point: a point.
        folder: of the point, replaced atomically; its parent must exist.

    Raises:
        TraceError: the folder cannot be written.
    """
    path = Path(folder)
    guard(path, _write, point, path)
    return open_point(path, point.ids)


def open_point(folder: str | Path, ids: np.ndarray) -> Point:
    """Return a point that `write_point` wrote; one with few features is read into memory, others stay on disk.

    Args:
        folder: of the point.
        ids: [N] names of the inputs; points that share one array are known to stand over the same inputs.

    Raises:
        TraceError: the folder holds no point of N inputs, or a damaged one.
    """
    path = Path(folder)
    try:
        attributes = read_root(LocalLocation(path))["attributes"]
        chains, centring = tuple(attributes["chains"]), attributes["centring"]
    except (FileNotFoundError, NotADirectoryError, KeyError) as error:
        raise TraceError(f"{path} holds no point; record it again") from error
    require_whole(LocalLocation(path), attributes)
    count = attributes["inputs"]
    if count != len(ids):
        raise TraceError(f"{path} holds a point over {count} inputs, but got {len(ids)} ids; pass those of its probes")
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
    if point.factor is not None and count < SINGLE_PRECISION_INPUTS:
        point = Point(point.ids, factor=point.factor.astype(np.float64, copy=False))
    dtype = point.rows(0, 1).dtype
    stored = _array(group, "triangle", (first_entry(count, count),), dtype, ("pair",))
    if point.triangle is not None:
        stored[:] = point.triangle
    else:
        step = max(1, _NUMBERS // count)
        for start in range(0, count, step):
            stop = min(start + step, count)
            rows = point.rows(start, stop)
            stored[first_entry(start, count) : first_entry(stop, count)] = upper_triangle(rows)
    # Stored beside the triangle, of which they would each take a whole pass.
    for name, values in {"diagonal": point.diagonal(), "sums": point.sums()}.items():
        _array(group, name, (count,), values.dtype, ("probe",))[:] = values


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any, dimensions: tuple[str, ...]) -> zarr.Array:
    chunks = (_CHUNK,) if name == "triangle" else shape
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, min(chunk, extent)) for chunk, extent in zip(chunks, shape, strict=True)),
        dtype=dtype,
        dimension_names=dimensions,
        compressors=[CODEC],
    )
