"""Maps of paths, and the other figures of paths through layers."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from losskernel import figures, geometry
from losskernel.analyses.paths.measured_paths import HIDDEN, INPUTS, LayerPath, MeasuredPath, MeasuredPaths
from losskernel.figures.paths.paths import Course, Falling, Route, Sheet, along_colours
from losskernel.figures.shared.lettering import with_unit
from losskernel.figures.shared.style import OKABE_ITO
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.geometry import Arrangement
from losskernel.geometry.paths.path import FLOORS, LEAST_SIDE
from losskernel.representations.points import TRAINED

# Of the maps behind the curve of stress.
_DIMENSIONS = tuple(range(1, 13))
_RECOVERED = 0.95
_ERRORS = "bars: standard errors"
_LANDMARKS = {HIDDEN: "last hidden layer"}

Edges = Sequence[tuple[int, int]]


def sheets_of(arrangement: Arrangement, edges: Edges, unit: str = "rad") -> list[Sheet]:
    """Return two maps of the same points: on a sphere, seen from above its middle, and in the tangent space there.

    Where the space is no sphere both would be classical scaling, which is there once.
    """
    names = [with_unit(f"axis {axis}", unit) for axis in (1, 2)]
    if arrangement.cosines is None:
        flat = geometry.classical_scaling(arrangement.distances)
        return [Sheet("classical scaling", flat.coordinates, flat.stress, names[0], names[1], {})]
    tangent = geometry.tangent_pca(arrangement)
    shares = [f"{name} ({share:.0%})" for name, share in zip(names, tangent.explained, strict=True)]
    second = Sheet("tangent PCA", tangent.coordinates, tangent.stress, shares[0], shares[1], {})
    globe = geometry.spherical_mds(arrangement.distances)
    on_globe, axes = globe.coordinates, geometry.frame(globe.coordinates)  # seen from above the middle of the points
    drawn = geometry.azimuthal(on_globe, axes)
    joined = {(a, b): geometry.azimuthal(geometry.arc(on_globe[a], on_globe[b]), axes) for a, b in edges}
    return [Sheet("spherical MDS", drawn, globe.stress, names[0], names[1], joined), second]


def curves_of(arrangement: Arrangement) -> list[Falling]:
    """Return the stress of each way of making maps in ever more dimensions, and how many recover 95 % of its fall."""
    if arrangement.cosines is None:
        curve = geometry.stress_curve(arrangement, _DIMENSIONS, "classical")
        needed = geometry.dimensions_needed(arrangement, "classical", _RECOVERED)
        return [Falling("classical scaling", curve.dimensions, curve.stress, needed)]
    curves = []
    for method, title in (("spherical", "spherical MDS"), ("tangent", "tangent PCA")):
        curve = geometry.stress_curve(arrangement, _DIMENSIONS, method)
        # In all dimensions points of a sphere have no stress, which need not be searched for.
        enough = curve.dimensions[curve.raw <= (1 - _RECOVERED) * curve.raw[0]]
        curves.append(Falling(title, curve.dimensions, curve.stress, int(enough[0]) if len(enough) else None))
    return curves


def chosen_names(labels: Sequence[str], kinds: Sequence[str], most: int) -> Mapping[int, str]:
    """Return index -> label of so many points of a path, the ends of layers and outputs first, then evenly spaced."""
    count = len(labels)
    outputs = [index for index, kind in enumerate(kinds) if kind == "output"]
    hidden = [index for index, kind in enumerate(kinds) if kind == "layer"]
    first = [*outputs[::-1], *hidden[-1:], *hidden[:1]]
    spaced = np.linspace(0, count - 1, max(min(most, count), 1)).round().astype(int).tolist()
    kept = list(dict.fromkeys([*first, *(index for index in spaced if kinds[index] == "layer")]))
    return {index: labels[index] for index in kept[:most]}


class Maps(NamedTuple):
    """Maps of all points that are drawn."""

    row: dict[int, int]  # number of each point -> its row on the maps
    routes: list[Route]
    sheets: list[Sheet]
    curves: list[Falling]

    @property
    def metrics(self) -> dict[str, float]:
        """The maps' stress, and how many dimensions the 95 % rule asks for."""
        numbers = {f"stress_{sheet.title.split()[0]}": sheet.stress for sheet in self.sheets}
        needed = {curve.title.split()[0]: curve.needed for curve in self.curves if curve.needed}
        return numbers | {f"dimensions_{name}": float(count) for name, count in needed.items()}


def maps_of(measured: MeasuredPaths) -> Maps:
    """Return the maps of all paths; the branches beside the last one are drawn, of the others the path alone."""
    paths = [item.path for item in measured.paths]
    used = sorted({measured.target, *paths[-1].all_numbers, *(number for path in paths for number in path.numbers)})
    row = {number: index for index, number in enumerate(used)}
    coloured = zip(paths, along_colours(len(paths)), strict=True)
    routes = [_route(path, row, colour, path is paths[-1]) for path, colour in coloured]
    arrangement = measured.arrangement.of(used)
    edges = [edge for route in routes for edge in (*route.edges, *route.branches)]
    return Maps(row, routes, sheets_of(arrangement, edges, measured.space.unit), curves_of(arrangement))


def draw(measured: MeasuredPaths, maps: Maps, names: int) -> dict[str, figures.Figure]:
    """Return the map of paths, profiles over layers, numbers along training, and whole paths against each other."""
    drawn = {"path_map": _map(measured, maps, names), "path_profiles": _profiles(measured)}
    steps = [item for item in measured.paths if item.path.step is not None]
    if len(steps) > 1:
        drawn["path_training"] = _training(measured, steps)
    if len(measured.paths) > 2:
        drawn["path_distances"] = _distances(measured)
    return drawn


def _title(path: LayerPath) -> str:
    """Return what a figure calls a network."""
    if path.network == TRAINED:
        return TRAINED if path.step is None else f"{TRAINED}, step {path.step:,}"
    return "untrained" if path.step == 0 else path.network


def _route(path: LayerPath, row: dict[int, int], colour: str, leading: bool) -> Route:
    on_path = set(pairwise(path.numbers))
    branches = [(row[a], row[b]) for a, b in path.edges if (a, b) not in on_path] if leading else []
    return Route(_title(path), [row[number] for number in path.numbers], colour, branches, leading, path.step == 0)


def _map(measured: MeasuredPaths, maps: Maps, most: int) -> figures.Figure:
    path, row = measured.paths[-1].path, maps.row
    inputs = list(dict.fromkeys(row[item.path.numbers[0]] for item in measured.paths))
    goal = row[measured.target]
    target = f"{measured.points[measured.target].label} (target)"
    names = {goal: target, inputs[0]: path.labels[0]}
    chosen = chosen_names(path.labels, path.kinds, most)
    names |= {row[path.numbers[index]]: label for index, label in chosen.items()}
    return figures.path_map(maps.sheets, maps.curves, maps.routes, names, inputs, goal, measured.conditions, target)


def _profiles(measured: MeasuredPaths) -> figures.Figure:
    """Draw the trained network's profile, and the first one's if it has the same layers."""
    main, first = measured.paths[-1], measured.paths[0]
    both = first is not main and first.path.labels == main.path.labels  # panels share the axis of layers
    chosen = [first, main] if both else [main]
    courses = [_course(item, colour) for item, colour in zip(chosen, OKABE_ITO[1::-1][-len(chosen) :], strict=True)]
    share = " rad" if measured.arrangement.cosines is not None else " of the greatest distance"
    note = f"{_with_errors(measured)} · no angle where a side is < {LEAST_SIDE:g}{share} or < {FLOORS:g} errors"
    return figures.path_profiles(main.path.labels, courses, note, measured.space.unit)


def _with_errors(measured: MeasuredPaths) -> str:
    """Return what every number depends on, and what the bars are."""
    return measured.conditions if np.isnan(measured.noise) else f"{measured.conditions} · {_ERRORS}"


def _course(measured: MeasuredPath, colour: str) -> Course:
    lines = attrgetter("to_target", "off", "fraction", "step", "progress", "heading", "turning")(measured.profile)
    drawn: list[np.ndarray] = [*lines, measured.errors.to_target, measured.errors.step]
    return Course(_title(measured.path), colour, *drawn)


def _training(measured: MeasuredPaths, steps: Sequence[MeasuredPath]) -> figures.Figure:
    values = [float(item.path.step or 0) for item in steps]
    axis = Axis("training step", [f"{value:g}" for value in values], values)

    def along(read: Callable[[MeasuredPath], tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
        values, errors = np.array([read(item) for item in steps], dtype=float).T
        return values, errors

    totals = {
        with_unit("length", measured.space.unit): along(lambda item: (item.profile.length, item.errors.length)),
        "straightness": along(lambda item: (item.profile.straightness, item.errors.straightness)),
    }
    distances = {
        _LANDMARKS.get(name, name): along(lambda item, name=name: _to_target(item, name))
        for name in steps[-1].path.landmarks
        if name != INPUTS
    }
    return figures.path_training(axis, totals, distances, _with_errors(measured), measured.space.unit)


def _to_target(measured: MeasuredPath, name: str) -> tuple[float, float]:
    index = measured.path.landmarks.get(name)
    if index is None:  # an untrained network may end in a layer that has no kernel yet
        return float("nan"), float("nan")
    return float(measured.profile.to_target[index]), float(measured.errors.to_target[index])


def _distances(measured: MeasuredPaths) -> figures.Figure:
    between, unit = measured.between, measured.space.unit
    layout = geometry.classical_scaling(between)  # [paths, 2]
    names = [_title(item.path) for item in measured.paths]
    note = f"{measured.conditions} · distances: mean over equal fractions of both lengths"
    colours, joined = along_colours(len(names)), [range(len(names))]  # one line, in the order of training
    return figures.path_distances(between, layout.coordinates, layout.stress, names, colours, joined, note, unit)
