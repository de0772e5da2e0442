"""Points on disk: a group per source in the run's folder, written whole or not at all."""

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
from losskernel.representations.activations import MANY, StoredPoint, open_point, write_point
from losskernel.representations.baselines.collect import History, settings_of
from losskernel.representations.points.point_set import Placed, PointSet
from losskernel.storage.atomic import replacing, write_whole
from losskernel.storage.locations import LocalLocation, guard
from losskernel.storage.xarray_zarr import known_types
from losskernel.storage.zarr_integrity import damaged, read_root, seal
from losskernel.traces.loss_traces import LossTraces, open_traces

# In the run's folder.
POINTS = "points.zarr"

# Called (model, data, history) -> points, one after another.
Source = Callable[[nn.Module, Data, History], Iterable[Placed]]


def collect(
    sources: Mapping[str, Source],
    model: nn.Module,
    data: Data,
    folder: Path,
    history: History,
    says: Callable[[str], None] | None = None,
) -> PointSet | None:
    """Return the points of all sources, computed or, where this run was interrupted later, read again.

    A source whose points are all there is not asked again; one that was interrupted is asked from its beginning, and
    may itself keep what is dear in the run's folder. `says` is told the name of each source before it is asked.

    Raises:
        InputError: a source fails, or gives a point over other probes.
        TraceError: the folder cannot be written, or holds the points of other settings.
    """
    if not sources:
        return None
    for name, source in sources.items():
        path = folder / POINTS / name
        settings = settings_of(source)
        if path.exists():
            made = json.loads(_attributes(path)["asked"])
            if made != settings:
                remedy = "choose another paths.run, or remove it"
                raise TraceError(f"{path}: it was made by {made}, but {settings} is asked for; {remedy}")
            continue
        if says is not None:
            says(name)
        try:
            guard(path, _write, path, settings, _checked(source(model, data, history), data))
        except InputError as error:
            raise InputError(f"points.{name}: {error}") from error
    order = list(sources)
    guard(folder / POINTS, _write_order, folder / POINTS, order, data)
    return open_points(folder)


def open_points(folder: Path) -> PointSet | None:
    """Return the points of a run; None where it made none.

    Raises:
        TraceError: they are damaged.
    """
    root = folder / POINTS
    if not (root / "points.json").is_file():
        return None
    try:
        about = json.loads((root / "points.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(LocalLocation(root), "points.json", "it is no JSON") from error
    ids = np.array(about["ids"])
    labels = {name: np.array(values) for name, values in about["labels"].items()}
    placed = [each for name in about["order"] for each in _read(root / name, ids, folder)]
    return PointSet(tuple(placed), labels, root)


def sampled_point(traces: LossTraces) -> Point:
    """Return the point of a loss kernel, each chain's draws kept apart."""
    losses = traces.losses.transpose("chain", "probe", "draw").values
    return Point.from_draws(list(losses), traces.losses["probe"].values)


def _checked(placed: Iterable[Placed], data: Data) -> Iterator[Placed]:
    ids = np.asarray(data.ids)
    for each in placed:
        same = np.array_equal(each.point.ids, ids)
        require(same, f"the point {each.name!r} does not stand over the probes; build it with ids=data.ids")
        yield replace(each, point=replace(each.point, ids=ids))


def _write(path: Path, settings: str, placed: Iterable[Placed]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, known_types():
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        about = [_write_point(partial / f"{number:04d}", each) for number, each in enumerate(placed)]
        group.attrs.update({"asked": json.dumps(settings), "points": about})
        seal(LocalLocation(partial))


def _write_point(folder: Path, each: Placed) -> dict[str, Any]:
    if each.traces is None:
        write_point(each.point, folder)
    facts = ("name", "kind", "network", "step", "place", "traces")
    return {fact: getattr(each, fact) for fact in facts} | {"after": list(each.after), "settings": dict(each.settings)}


def _write_order(root: Path, order: list[str], data: Data) -> None:
    labels = {name: np.asarray(values).tolist() for name, values in data.labels.items()}
    about = {"order": order, "ids": np.asarray(data.ids).tolist(), "labels": labels}
    write_whole(root / "points.json", json.dumps(about))


def _read(path: Path, ids: np.ndarray, folder: Path) -> Iterator[Placed]:
    for number, about in enumerate(_attributes(path)["points"]):
        traces, own = about["traces"], path / f"{number:04d}"
        point = sampled_point(open_traces(folder / traces)) if traces else _held(open_point(own, ids))
        facts: dict[str, Any] = about | {"after": tuple(about["after"])}
        yield Placed(point=point, **facts)


def _attributes(path: Path) -> dict[str, Any]:
    try:
        found = read_root(LocalLocation(path))["attributes"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TraceError(f"{path} holds no points ({error}); remove {path.parent} and run again") from error
    if not {"asked", "points"} <= found.keys():
        raise TraceError(f"{path} holds no points; remove {path.parent} and run again")
    return found


def _held(point: Point) -> Point:
    """Return a point in memory, where all of a study's points fit there; others are read some rows at a time."""
    if not isinstance(point, StoredPoint) or point.inputs >= MANY:
        return point
    return Point(point.ids, triangle=point.triangle_entries(), chains=point.chains, centring=point.centring)
