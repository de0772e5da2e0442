"""Points on disk: one group per source in the run's folder, written atomically."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from torch import nn

from losskernel.data.base import Data
from losskernel.errors import InputError, TraceError, require
from losskernel.geometry import Point
from losskernel.geometry.point import SINGLE_PRECISION_INPUTS
from losskernel.representations.activations.stored_point import StoredPoint, open_point, write_point
from losskernel.representations.baselines.collect import settings_of
from losskernel.representations.history import History
from losskernel.representations.points.point_set import NamedPoint, PointSet, sampled_point
from losskernel.storage.atomic import replacing, write_whole
from losskernel.storage.locations import LocalLocation, guard
from losskernel.storage.xarray_zarr import known_types
from losskernel.storage.zarr_integrity import damaged, read_root, seal
from losskernel.traces.loss_traces import open_traces

POINTS = "points.zarr"  # in the run's folder
_INDEX = "points.json"  # in that: order of the sources, probe ids and labels; written last

# Called (model, data, history) -> points, one after another.
Source = Callable[[nn.Module, Data, History], Iterable[NamedPoint]]


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
        raise damaged(LocalLocation(root), _INDEX, "it is no JSON") from error
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
    with replacing(path) as partial, known_types():
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        facts = [_write_point(partial / f"{number:04d}", named) for number, named in enumerate(points)]
        group.attrs.update({"asked": json.dumps(settings), "points": facts})
        seal(LocalLocation(partial))


def _write_point(folder: Path, named: NamedPoint) -> dict[str, Any]:
    """Write a point and return what describes it; sampled kernels are read from their traces again."""
    if named.traces is None:
        write_point(named.point, folder)
    facts = {name: getattr(named, name) for name in ("name", "kind", "network", "step", "traces")}
    return facts | {"place": named.position, "after": list(named.after), "settings": dict(named.settings)}


def _write_index(root: Path, order: list[str], data: Data) -> None:
    labels = {name: np.asarray(values).tolist() for name, values in data.labels.items()}
    index = {"order": order, "ids": np.asarray(data.ids).tolist(), "labels": labels}
    write_whole(root / _INDEX, json.dumps(index))


def _read(path: Path, ids: np.ndarray, folder: Path) -> Iterator[NamedPoint]:
    for number, facts in enumerate(_attributes(path)["points"]):
        traces, stored = facts["traces"], path / f"{number:04d}"
        point = sampled_point(open_traces(folder / traces)) if traces else _in_memory(open_point(stored, ids))
        known = {name: facts[name] for name in ("name", "kind", "network", "step", "settings")}
        yield NamedPoint(point=point, position=facts["place"], after=tuple(facts["after"]), traces=traces, **known)


def _attributes(path: Path) -> dict[str, Any]:
    try:
        attributes = read_root(LocalLocation(path))["attributes"]
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
