"""Points on disk: one group per source in the run's folder, written atomically, and read some rows at a time.

Kernels may be too many to fit into memory together.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from torch import nn

from losskernel.data.base import Data
from losskernel.data.global_state import with_own_state
from losskernel.errors import InputError, TraceError, require
from losskernel.geometry import Point
from losskernel.geometry.point import SINGLE_PRECISION_INPUTS, first_entry, unpacked_rows, upper_triangle
from losskernel.representations.baselines.collect import settings_of
from losskernel.representations.evaluation import History
from losskernel.representations.points.point_set import NamedPoint, PointSet, sampled_point
from losskernel.storage import zarr_integrity as integrity
from losskernel.storage.atomic import replacing, write_whole
from losskernel.storage.locations import LocalLocation, guard
from losskernel.traces.loss_traces import open_traces

# A factor [N, d] with 64 d <= N stays a factor: dozens of them fit into memory.
_NARROW = 64
_CHUNK = 2**18  # numbers of a Zarr chunk
_WINDOW = 2**20  # numbers that are read, and held, at once
_NUMBERS = 2**24  # products of a wide factor that are written at once
POINTS = "points.zarr"  # in the run's folder
_INDEX = "points.json"  # in that: order of the sources, probe ids and labels; written last

# Called (model, data, history) -> points, one after another.
Source = Callable[[nn.Module, Data, History], Iterable[NamedPoint]]


@dataclass(frozen=True, eq=False, repr=False)
class StoredPoint(Point):
    """A point whose triangle is stored in a folder; rows are read on demand.

    Best read in order, since the following rows are read ahead: a point holds 4 MiB (8 in double precision).

    Attributes:
        folder: a Zarr group that `write_point` wrote.
    """

    folder: Path = Path()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows start to stop of the kernel from the column `start` on, [stop - start, N - start]."""
        count = self.inputs
        stop = min(stop, count)
        entries = self._window.read(first_entry(start, count), first_entry(stop, count))
        return unpacked_rows(entries, start, stop, count)

    def triangle_entries(self) -> np.ndarray:
        """Return the entries on and above the diagonal, row by row, [N (N + 1) / 2], as one array in memory."""
        return _read_array(self.folder, "triangle")

    def diagonal(self) -> np.ndarray:
        """Return the kernel's diagonal [N], float64."""
        return _read_array(self.folder, "diagonal")

    def sums(self) -> np.ndarray:
        """Return the sum of each of the kernel's rows [N], float64."""
        return _read_array(self.folder, "sums")

    @cached_property
    def _window(self) -> "_Window":
        return _Window(self.folder)


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
            with integrity.named(self._folder):
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
    guard(path, _write_group, point, path)
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
        attributes = integrity.read_root(LocalLocation(path))["attributes"]
        chains, centring = tuple(attributes["chains"]), attributes["centring"]
    except (FileNotFoundError, NotADirectoryError, KeyError) as error:
        raise TraceError(f"{path} holds no point; record it again") from error
    integrity.require_whole(LocalLocation(path), attributes)
    count = attributes["inputs"]
    if count != len(ids):
        raise TraceError(f"{path} holds a point over {count} inputs, but got {len(ids)} ids; pass those of its probes")
    if (path / "factor").is_dir():
        return Point(ids, factor=_read_array(path, "factor"), chains=chains, centring=centring)
    return StoredPoint(ids, chains=chains, centring=centring, folder=path)


def _read_array(folder: Path, name: str) -> np.ndarray:
    with integrity.named(LocalLocation(folder)):
        return np.asarray(zarr.open_group(folder, mode="r")[name])


def _write_group(point: Point, path: Path) -> None:
    with replacing(path) as partial, zarr.config.set(integrity.EVERY_CHUNK):
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        group.attrs.update({"inputs": point.inputs, "chains": list(point.chains), "centring": point.centring})
        if point.factor is not None and _NARROW * point.factor.shape[1] <= point.inputs:
            _array(group, "factor", point.factor.shape, point.factor.dtype, ("probe", "unit"))[:] = point.factor
        else:
            _write_triangle(point, group)
        integrity.seal(LocalLocation(partial))
        shutil.rmtree(path, ignore_errors=True)


def _write_triangle(point: Point, group: zarr.Group) -> None:
    count = point.inputs
    if point.factor is not None and count < SINGLE_PRECISION_INPUTS:
        point = Point(point.ids, factor=point.factor.astype(np.float64, copy=False))
    stored = _array(group, "triangle", (first_entry(count, count),), point.rows(0, 1).dtype, ("pair",))
    if point.triangle is not None:
        stored[:] = point.triangle
    else:
        step = max(1, _NUMBERS // count)
        for start in range(0, count, step):
            stop = min(start + step, count)
            stored[first_entry(start, count) : first_entry(stop, count)] = upper_triangle(point.rows(start, stop))
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
        compressors=[integrity.CODEC],
    )


@with_own_state
def collect(
    sources: Mapping[str, Source],
    model: nn.Module,
    data: Data,
    folder: Path,
    history: History,
    report: Callable[[str], None] | None = None,
) -> PointSet | None:
    """Return the points of all sources, computed, or read from the store of an earlier job of the same run.

    A source whose points are all stored is not called again; an interrupted one is called from its beginning, and may
    itself store expensive results in the run's folder.

    Args:
        sources: name -> source.
        model: the trained network.
        data: whose probes the points are over.
        folder: of the run.
        history: of the network.
        report: called with the name of each source before it is computed.

    Raises:
        InputError: a source fails, or gives a point over other probes.
        TraceError: the folder cannot be written, or holds the points of other settings.
    """
    if not sources:
        return None
    for name, source in sources.items():
        path, settings = folder / POINTS / name, settings_of(source)
        if _stored(path, settings):
            continue
        if report is not None:
            report(name)
        try:
            guard(path, _write, path, settings, _checked(source(model, data, history), data))
        except InputError as error:
            raise InputError(f"points.{name}: {error}") from error
    # Last of all: a store without an index is one that is still being made.
    guard(folder / POINTS, _write_index, folder / POINTS, list(sources), data)
    return open_points(folder)


def _stored(path: Path, settings: str) -> bool:
    """Whether the points of a source are stored; raise TraceError where they are of other settings."""
    if not path.exists():
        return False
    stored = json.loads(_attributes(path)["asked"])
    if stored != settings:
        remedy = "choose another paths.run, or remove it"
        raise TraceError(f"{path} was made by {stored}, but the run has {settings}; {remedy}")
    return True


def open_points(folder: Path) -> PointSet | None:
    """Return the points of a run; None where it has none.

    Raises:
        TraceError: they are damaged.
    """
    root = folder / POINTS
    if not (root / _INDEX).is_file():
        return None
    try:
        index = json.loads((root / _INDEX).read_text(encoding="utf-8"))
    except ValueError as error:
        raise integrity.damaged(LocalLocation(root), _INDEX, "it is no JSON") from error
    ids = np.array(index["ids"])
    labels = {name: np.array(values) for name, values in index["labels"].items()}
    points = [point for name in index["order"] for point in _read(root / name, ids, folder)]
    return PointSet(tuple(points), labels, root)


def _checked(points: Iterable[NamedPoint], data: Data) -> Iterator[NamedPoint]:
    ids = np.asarray(data.ids)
    for named in points:
        same = np.array_equal(named.point.ids, ids)
        require(same, f"the point {named.name!r} is not over the probes; build it with ids=data.ids")
        # One array of ids for all: that they agree is then seen without comparing them.
        yield replace(named, point=replace(named.point, ids=ids))


def _write(path: Path, settings: str, points: Iterable[NamedPoint]) -> None:
    """Write a source's points as they come; all of them become visible at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, integrity.known_types():
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        facts = [_write_point(partial / f"{number:04d}", named) for number, named in enumerate(points)]
        group.attrs.update({"asked": json.dumps(settings), "points": facts})
        integrity.seal(LocalLocation(partial))


def _write_point(folder: Path, named: NamedPoint) -> dict[str, Any]:
    """Write a point and return what describes it; sampled kernels are read from their traces again."""
    if named.traces is None:
        write_point(named.point, folder)
    facts = {name: getattr(named, name) for name in ("name", "kind", "network", "step", "traces")}
    return facts | {"place": named.position, "after": list(named.after), "settings": dict(named.settings)}


def _write_index(root: Path, order: list[str], data: Data) -> None:
    labels = {name: np.asarray(values).tolist() for name, values in data.labels.items()}
    ids = np.asarray(data.ids).tolist()
    write_whole(root / _INDEX, json.dumps({"order": order, "ids": ids, "labels": labels}))


def _read(path: Path, ids: np.ndarray, folder: Path) -> Iterator[NamedPoint]:
    for number, facts in enumerate(_attributes(path)["points"]):
        traces, stored = facts["traces"], path / f"{number:04d}"
        point = sampled_point(open_traces(folder / traces)) if traces else _in_memory(open_point(stored, ids))
        known = {name: facts[name] for name in ("name", "kind", "network", "step", "settings")}
        yield NamedPoint(point=point, position=facts["place"], after=tuple(facts["after"]), traces=traces, **known)


def _attributes(path: Path) -> dict[str, Any]:
    try:
        attributes = integrity.read_root(LocalLocation(path))["attributes"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TraceError(f"{path} holds no points ({error}); remove {path.parent} and run again") from error
    if not {"asked", "points"} <= attributes.keys():
        raise TraceError(f"{path} holds no points; remove {path.parent} and run again")
    return attributes


def _in_memory(point: Point) -> Point:
    """Return a point in memory if all of a study's points fit there; larger ones stay on disk, read by rows."""
    if not isinstance(point, StoredPoint) or point.inputs >= SINGLE_PRECISION_INPUTS:
        return point
    return Point(point.ids, triangle=point.triangle_entries(), chains=point.chains, centring=point.centring)
