"""Maps of paths: which points are drawn where, joined by which lines, under which names."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from losskernel import figures
from losskernel.analyses.paths.measured_paths import HIDDEN, INPUTS, Survey, Traced, Walk, landmarks
from losskernel.figures.paths.path_map import Falling, Route, Sheet, along_colours
from losskernel.figures.paths.path_profiles import Course
from losskernel.figures.shared.lettering import with_unit
from losskernel.figures.shared.style import OKABE_ITO
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.geometry import Arrangement
from losskernel.geometry.maps.dimensions import dimensions_needed, stress_curve
from losskernel.geometry.maps.globe import arc, azimuthal, frame
from losskernel.geometry.maps.linear import classical_scaling, tangent_pca
from losskernel.geometry.maps.spherical_mds import spherical_mds
from losskernel.geometry.paths.path import FLOORS, LEAST_SIDE
from losskernel.representations.points import TRAINED

# Of the maps behind the curve of stress.
_DIMENSIONS = tuple(range(1, 13))
_RECOVERED = 0.95

Edges = Sequence[tuple[int, int]]


def sheets_of(arrangement: Arrangement, edges: Edges, unit: str = "rad") -> list[Sheet]:
    """Return two maps of the same points: on a sphere, seen from above its middle, and in the tangent space there.

    Where the space is no sphere both would be classical scaling, which is there once.
    """
    names = [with_unit(f"axis {axis}", unit) for axis in (1, 2)]
    if arrangement.cosines is None:
        flat = classical_scaling(arrangement.distances)
        return [Sheet("classical scaling", flat.coordinates, flat.stress, names[0], names[1], {})]
    tangent = tangent_pca(arrangement)
    shares = [f"{name} ({share:.0%})" for name, share in zip(names, tangent.explained, strict=True)]
    second = Sheet("tangent PCA", tangent.coordinates, tangent.stress, shares[0], shares[1], {})
    globe = spherical_mds(arrangement.distances)
    axes = frame(globe.coordinates)
    drawn = azimuthal(globe.coordinates, axes)
    joined = {edge: azimuthal(arc(globe.coordinates[edge[0]], globe.coordinates[edge[1]]), axes) for edge in edges}
    return [Sheet("spherical MDS", drawn, globe.stress, names[0], names[1], joined), second]


def curves_of(arrangement: Arrangement) -> list[Falling]:
    """Return the stress of each way of making maps in ever more dimensions, and how many recover 95 % of its fall."""
    if arrangement.cosines is None:
        curve = stress_curve(arrangement, _DIMENSIONS, "classical")
        needed = dimensions_needed(arrangement, "classical", _RECOVERED)
        return [Falling("classical scaling", curve.dimensions, curve.stress, needed)]
    found = []
    for method, title in (("spherical", "spherical MDS"), ("tangent", "tangent PCA")):
        curve = stress_curve(arrangement, _DIMENSIONS, method)
        # In all dimensions points of a sphere have no stress, which need not be searched for.
        enough = curve.dimensions[curve.raw <= (1 - _RECOVERED) * curve.raw[0]]
        found.append(Falling(title, curve.dimensions, curve.stress, int(enough[0]) if len(enough) else None))
    return found


def chosen_names(labels: Sequence[str], kinds: Sequence[str], most: int) -> Mapping[int, str]:
    """Return place -> label of so many points of a path, the ends of layers and outputs first, then evenly spaced."""
    count = len(labels)
    outputs = [place for place, kind in enumerate(kinds) if kind == "output"]
    hidden = [place for place, kind in enumerate(kinds) if kind == "layer"]
    first = [*outputs[::-1], *hidden[-1:], *hidden[:1]]
    spaced = np.linspace(0, count - 1, max(min(most, count), 1)).round().astype(int).tolist()
    kept = list(dict.fromkeys([*first, *(place for place in spaced if kinds[place] == "layer")]))
    return {place: labels[place] for place in kept[:most]}


_ERRORS = "bars: standard errors"
_LANDMARKS = {HIDDEN: "last hidden layer"}


class Maps(NamedTuple):
    """Maps of all points that are drawn."""

    used: list[int]  # numbers of the points, in the order of the maps
    routes: list[Route]
    sheets: list[Sheet]
    curves: list[Falling]

    @property
    def metrics(self) -> dict[str, float]:
        """The maps' stress, and how many dimensions the 95 % rule asks for."""
        found = {f"stress_{each.title.split()[0]}": each.stress for each in self.sheets}
        return found | {
            f"dimensions_{each.title.split()[0]}": float(each.needed) for each in self.curves if each.needed
        }


def maps_of(survey: Survey) -> Maps:
    """Return the maps of all paths; the branches beside the last one are drawn, of the others the path alone."""
    walks = [each.walk for each in survey.traced]
    used = sorted({survey.target, *walks[-1].everything, *(number for walk in walks for number in walk.numbers)})
    row = {number: place for place, number in enumerate(used)}
    routes = [
        _route(walk, row, colour, walk is walks[-1])
        for walk, colour in zip(walks, along_colours(len(walks)), strict=True)
    ]
    arrangement = survey.arrangement.of(used)
    sheets = sheets_of(
        arrangement, [edge for each in routes for edge in (*each.edges, *each.branches)], survey.space.unit
    )
    return Maps(used, routes, sheets, curves_of(arrangement))


def draw(survey: Survey, maps: Maps, names: int) -> dict[str, Figure]:
    """Return the map of paths, profiles over layers, numbers along training, and whole paths against each other."""
    found = {"path_map": _map(survey, maps, names), "path_profiles": _profiles(survey)}
    steps = [each for each in survey.traced if each.walk.step is not None]
    if len(steps) > 1:
        found["path_training"] = _training(survey, steps)
    if len(survey.traced) > 2:
        found["path_distances"] = _distances(survey)
    return found


def said(walk: Walk) -> str:
    """Return what a figure calls a network."""
    if walk.network == TRAINED:
        return TRAINED if walk.step is None else f"{TRAINED}, step {walk.step:,}"
    return "untrained" if walk.step == 0 else walk.network


def _route(walk: Walk, row: dict[int, int], colour: str, leading: bool) -> Route:
    own = set(pairwise(walk.numbers))
    branches = [(row[a], row[b]) for a, b in walk.edges if (a, b) not in own] if leading else []
    numbers = [row[number] for number in walk.numbers]
    return Route(said(walk), numbers, colour, branches, leading, walk.step == 0)


def _map(survey: Survey, maps: Maps, most: int) -> Figure:
    row = {number: place for place, number in enumerate(maps.used)}
    walk = survey.traced[-1].walk
    inputs = list(dict.fromkeys(row[each.walk.numbers[0]] for each in survey.traced))
    target = f"{survey.points[survey.target].label} (target)"
    chosen = chosen_names(walk.labels, walk.kinds, most)
    names = {row[survey.target]: target, inputs[0]: walk.labels[0]}
    names |= {row[walk.numbers[place]]: label for place, label in chosen.items()}
    return figures.path_map(
        maps.sheets, maps.curves, maps.routes, names, inputs, row[survey.target], survey.conditions(), target
    )


def _profiles(survey: Survey) -> Figure:
    main, first = survey.traced[-1], survey.traced[0]
    both = first is not main and first.walk.labels == main.walk.labels
    chosen = [first, main] if both else [main]
    colours = [OKABE_ITO[1], OKABE_ITO[0]][-len(chosen) :]
    courses = [_course(each, colour) for each, colour in zip(chosen, colours, strict=True)]
    share = " rad" if survey.arrangement.cosines is not None else " of the greatest distance"
    note = f"{_with_errors(survey)} · no angle where a side is < {LEAST_SIDE:g}{share} or < {FLOORS:g} errors"
    return figures.path_profiles(main.walk.labels, courses, note, survey.space.unit)


def _with_errors(survey: Survey) -> str:
    """Return what every number depends on, and what the bars are."""
    return f"{survey.conditions()} · {_ERRORS}" if survey.noise == survey.noise else survey.conditions()


def _course(traced: Traced, colour: str) -> Course:
    profile, errors = traced.profile, traced.errors
    return Course(
        said(traced.walk),
        colour,
        profile.to_target,
        profile.off,
        profile.fraction,
        profile.step,
        profile.progress,
        profile.heading,
        profile.turning,
        errors.to_target,
        errors.step,
    )


def _training(survey: Survey, steps: Sequence[Traced]) -> Figure:
    values = [float(each.walk.step or 0) for each in steps]
    axis = Axis("training step", [f"{value:g}" for value in values], values)

    def along(read: Any) -> tuple[np.ndarray, np.ndarray]:
        values, errors = np.array([read(each) for each in steps], dtype=float).T
        return values, errors

    totals = {
        with_unit("length", survey.space.unit): along(lambda each: (each.profile.length, each.errors.length)),
        "straightness": along(lambda each: (each.profile.straightness, each.errors.straightness)),
    }
    distances = {
        _LANDMARKS.get(name, name): along(lambda each, name=name: _to_target(each, name))
        for name in landmarks(steps[-1])
        if name != INPUTS
    }
    return figures.path_training(axis, totals, distances, _with_errors(survey), survey.space.unit)


def _to_target(traced: Traced, name: str) -> tuple[float, float]:
    place = landmarks(traced).get(name)
    if place is None:  # an untrained network may end in a layer that has no kernel yet
        return float("nan"), float("nan")
    return float(traced.profile.to_target[place]), float(traced.errors.to_target[place])


def _distances(survey: Survey) -> Figure:
    near, unit = survey.between, survey.space.unit
    layout = classical_scaling(near)
    names = [said(each.walk) for each in survey.traced]
    colours = along_colours(len(names))
    joined = [range(len(names))]
    note = f"{survey.conditions()} · distances: mean over equal fractions of both lengths"
    return figures.path_distances(near, layout.coordinates, layout.stress, names, colours, joined, note, unit)
