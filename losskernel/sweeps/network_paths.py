"""The trained networks' paths of several runs in one space: their distances, and a map of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.paths.map_sheets import curves_of, sheets_of
from losskernel.analyses.paths.measured_paths import conditions, errors_of, layer_paths, median_error
from losskernel.analyses.result import Result
from losskernel.errors import InputError, TraceError
from losskernel.figures import Figure
from losskernel.figures.paths.path_map import Route, along_colours
from losskernel.figures.shared.lettering import plain
from losskernel.figures.shared.style import palette
from losskernel.geometry import AngularCKA, Arrangement, Point, classical_scaling, frechet_distance, path_distances
from losskernel.geometry.point import evenly
from losskernel.representations.points import TRAINED, PointSet, open_points
from losskernel.sweeps.comparison_page import Finding
from losskernel.sweeps.design import Design
from losskernel.sweeps.read_runs import Run

_SPACE = AngularCKA(centring="u")
# Probes at most, because the kernels of all runs are in memory at once.
_MOST_PROBES = 1000
# Paths whose colours can be told apart on a map.
_MOST_ROUTES = 12


@dataclass(frozen=True, eq=False)
class _SharedSpace:
    """The points of several runs' paths, arranged in one space.

    members: [n] numbers of the runs. paths: [n] for each run the numbers of the points along its path.
    target: number of the target's point, or None. noise: median standard error of a distance over probes.
    """

    members: list[int]
    paths: list[list[int]]
    arrangement: Arrangement
    target: int | None
    target_name: str
    probes: int
    noise: float


def whole_paths(runs: Sequence[Run], design: Design) -> Finding:
    """Compare the paths that the runs' trained networks take; nothing where fewer than two runs have layers.

    Each path is that of the points which all routes through its network pass, so that networks of any depth and width
    can be compared. Points of other probes cannot, and a note says so.
    """
    space, notes = _read(runs, design)
    if space is None:
        return Finding(notes=notes)
    between = path_distances(space.arrangement, space.paths)
    note = conditions(space.probes, _SPACE, space.noise)
    names, colours = [design.names[run] for run in space.members], _colours(design, space.members)
    layout, lines = classical_scaling(between), _successive(design, space.members)
    printed = [plain(name) for name in names]
    between_paths = figures.path_distances(between, layout.coordinates, layout.stress, printed, colours, lines, note)
    drawn = {"whole_paths": between_paths}
    captions = {"whole_paths": _caption(space.probes)}
    if space.target is not None and len(names) <= _MOST_ROUTES:
        drawn["paths"] = _map(space, names, colours, note)
        captions["paths"] = (
            "The trained networks' paths from the inputs towards the target on one map. Spherical maps are seen from "
            "above the points' middle; stress is the share of the distances that a map gets wrong, c in ever more "
            "dimensions."
        )
    return Finding(Result({}, {"whole_paths": _table(space, between, names)}, drawn), captions, notes)


def _read(runs: Sequence[Run], design: Design) -> tuple[_SharedSpace | None, list[str]]:
    members: list[int] = []
    paths: list[list[int]] = []
    kernels: list[Point] = []
    notes: list[str] = []
    target, name = None, ""
    for member, run in enumerate(runs):
        path = None if run.missing else _trained(run)
        if path is None:
            continue
        points, chosen, end = path
        probes = evenly(len(points.ids), _MOST_PROBES)
        if kernels and not np.array_equal(points.ids[probes], kernels[0].ids):
            notes.append(f"run {design.names[member]}: its path is not compared, for its probes are others")
            continue
        members.append(member)
        paths.append(list(range(len(kernels), len(kernels) + len(chosen))))
        kernels += [points[number].point.over(probes) for number in chosen]
        if end is not None and target is None:
            target, name = len(kernels), points[end].label
            kernels.append(points[end].point.over(probes))
    if len(members) < 2:
        return None, notes
    goal = kernels[paths[0][-1] if target is None else target]
    noise = median_error([errors_of([kernels[point] for point in path], goal, _SPACE) for path in paths])
    return _SharedSpace(members, paths, _SPACE.arrangement(kernels), target, name, goal.inputs, noise), notes


def _trained(run: Run) -> tuple[PointSet, list[int], int | None] | None:
    """Return a run's points, the numbers of those on its trained network's path, and the number of its target."""
    try:
        points = open_points(run.folder)
        if points is None or TRAINED not in points.networks():
            return None
        (walk,) = layer_paths(points, [TRAINED])
    except (InputError, TraceError):  # damaged points: the run's own page reports them
        return None
    return points, list(walk.numbers), next(iter(points.of("target")), None)


def _map(space: _SharedSpace, names: Sequence[str], colours: Sequence[str], note: str) -> Figure:
    routes = [Route(name, path, colour) for name, path, colour in zip(names, space.paths, colours, strict=True)]
    target = space.target or 0
    inputs = [path[0] for path in space.paths]
    labels = {target: f"{space.target_name} (target)", inputs[0]: "inputs"}
    sheets = sheets_of(space.arrangement, [edge for route in routes for edge in route.edges])
    return figures.path_map(sheets, curves_of(space.arrangement), routes, labels, inputs, target, note, labels[target])


def _table(space: _SharedSpace, between: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    leash = path_distances(space.arrangement, space.paths, frechet_distance)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return pd.DataFrame(
        [{"run": names[i], "other": names[j], "distance": between[i, j], "frechet": leash[i, j]} for i, j in pairs]
    )


def _colours(design: Design, members: Sequence[int]) -> list[str]:
    """Return a colour per run: by its position on the axis if there is one curve, in order where the axis has one."""
    positions = [design.index[run] for run in members]
    if len(design.curves) > 1 or None in positions:
        return palette(len(members))
    count = len(design.axis.names)
    colours = palette(count) if design.axis.values is None else along_colours(count)
    return [colours[index or 0] for index in positions]


def _successive(design: Design, members: Sequence[int]) -> list[list[int]]:
    """Return for each curve the rows of its runs in the axis' order, if no position has several runs."""
    if design.axis.values is None:
        return []
    row = {run: index for index, run in enumerate(members)}
    lines = []
    for curve in range(len(design.curves)):
        positions = [design.at(curve, index) for index in range(len(design.axis.names))]
        rows = [[row[run] for run in at_position if run in row] for at_position in positions]
        if all(len(at_position) <= 1 for at_position in rows):
            lines.append([number for at_position in rows for number in at_position])
    return [line for line in lines if len(line) > 1]


def _caption(probes: int) -> str:
    return (
        f"How far apart the trained networks' paths are, over {probes:,} probes (angular CKA, U-centred): the mean "
        "distance between the places where two paths have gone the same fraction of their lengths, on the geodesics "
        "between layers too, so that the networks' depths need not agree; seeds of one network tell how far apart "
        "paths are by chance. b: classical scaling of these distances. Lengths grow with the points recorded: compare "
        "networks with equally many, or each with its untrained self."
    )
