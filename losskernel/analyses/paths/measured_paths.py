"""The paths of networks through their layers, measured: distances, directions, and their errors over the probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry import AngularCKA, Arrangement, Point, Profile, Space, path_distances, profile
from losskernel.geometry.centring import centred
from losskernel.geometry.point import evenly
from losskernel.geometry.significance import jackknife_error, products_without
from losskernel.representations.points import TRAINED, PointSet

ALONG = ("spine", "all")
# Points on a path that every network has.
HIDDEN, INPUTS = "hidden", "inputs"
# Probes that are left out at most; errors of more shrink with the square root of their number.
_MOST = 1000
# Fewer leave nothing to centre.
_LEAST = 6


@dataclass(frozen=True)
class LayerPath:
    """One network's path through a set of points.

    Attributes:
        network: "trained", or "step 120" of a kept checkpoint.
        step: of training; None where it is not known.
        numbers: [P] of the points on the path, in the order of evaluation, inputs first.
        labels: [P] their names without the network.
        kinds: [P] what they are.
        edges: pairs of numbers that follow on each other in the network's graph, branches among them.
    """

    network: str
    step: int | None
    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def all_numbers(self) -> set[int]:
        """The numbers of the points on the path and on the branches beside it."""
        return {*self.numbers, *(number for edge in self.edges for number in edge)}

    @property
    def landmarks(self) -> dict[str, int]:
        """Indices on the path of the points that every network has: inputs, the last hidden layer, each output."""
        kinds = list(enumerate(self.kinds))
        hidden, outputs = ([index for index, kind in kinds if kind == wanted] for wanted in ("layer", "output"))
        last_hidden = {HIDDEN: hidden[-1]} if hidden else {}
        return {INPUTS: 0} | last_hidden | {self.labels[index].replace(" ", "_"): index for index in outputs}


def layer_paths(points: PointSet, networks: Sequence[str] | None = None, along: str = "spine") -> list[LayerPath]:
    """Return the paths of some networks, by default of all: in the order of training, the trained one last.

    A kept checkpoint of the trained network's own step is left out.

    Raises:
        InputError: there are no layers, a network is unknown, or a path has fewer than two points.
    """
    known = points.networks()
    require(len(known) > 0, "no network has layers; choose points=[layers,targets]")
    for name in networks or ():
        if name not in known:
            raise InputError(f"networks: there is none called {name!r}; choose from {', '.join(known)}")
    end = points.step(TRAINED) if TRAINED in known else None
    distinct = [name for name in known if name == TRAINED or end is None or points.step(name) != end]
    wanted = networks or distinct
    return [_layer_path(points, network, along) for network in known if network in wanted]


def spine(numbers: Sequence[int], edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return those of the points, in order of evaluation, that all routes from the first to the last pass through.

    Side by side branches fall out; the points where they part and meet stay.

    Raises:
        InputError: no route leads from the first point to the last.
    """
    # Routes that lead to each point, and from it: their product counts those through it. Python's whole numbers have
    # any size: a deep network has 2^40 routes.
    routes_to = dict.fromkeys(numbers, 0) | {numbers[0]: 1}
    routes_from = dict.fromkeys(numbers, 0) | {numbers[-1]: 1}
    order = {number: index for index, number in enumerate(numbers)}
    for before, after in sorted(edges, key=lambda edge: order[edge[1]]):
        routes_to[after] += routes_to[before]
    for before, after in sorted(edges, key=lambda edge: -order[edge[0]]):
        routes_from[before] += routes_from[after]
    total = routes_to[numbers[-1]]  # routes from the first point to the last
    require(total > 0, "no route leads from the inputs to the last output; use analysis.path.along=all")
    return [number for number in numbers if routes_to[number] * routes_from[number] == total]


def edges_of(points: PointSet, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of points that follow on each other: as the points say, else each after the one before."""
    named = {points[number].name: number for number in numbers}
    edges: list[tuple[int, int]] = []
    for before, number in pairwise(numbers):
        sources = dict.fromkeys(named[name] for name in points[number].after if name in named)
        edges += [(source, number) for source in sources or [before]]
    return edges


def _layer_path(points: PointSet, network: str, along: str) -> LayerPath:
    numbers = points.path(network)
    require(len(numbers) >= 2, f"{network}: a path needs >= 2 points, got {len(numbers)}; name more layers")
    edges = edges_of(points, numbers)
    if along == "spine":
        numbers = spine(numbers, edges)
    labels, kinds = zip(*((points[number].label, points[number].kind) for number in numbers), strict=True)
    return LayerPath(network, points.step(network), tuple(numbers), labels, kinds, tuple(edges))


class Errors(NamedTuple):
    """Standard errors over probes of one path; NaN where they are unknown. Distances in radians."""

    to_target: np.ndarray  # [P]
    step: np.ndarray  # [P - 1]
    length: float
    straightness: float
    chord: float
    efficiency: float


def errors_of(path: Sequence[Point], target: Point, space: object) -> Errors:
    """Return the jackknife errors of a path's distances; NaN but for angular CKA, which has a closed form.

    Layers are deterministic, but the probes are a sample. Of more than 1,000 probes as many are left out, evenly
    spaced, and their errors scaled by the root of the share.

    Args:
        path: P points, in order.
        target: what distances are measured to.
        space: where.

    Source: Efron & Stein 1981.
    """
    inputs, count = target.inputs, len(path)
    if not isinstance(space, AngularCKA) or inputs < _LEAST:
        return Errors(np.full(count, np.nan), np.full(count - 1, np.nan), *[float("nan")] * 4)
    probes = evenly(inputs, _MOST)
    jackknife = _Jackknife(space.centring, probes)
    goal, first = jackknife.kernel(target), jackknife.kernel(path[0])
    # One kernel [n, n] at a time beside the one before it: all of them need not fit into memory.
    before, to, steps = first, [jackknife.distances(first, goal)], []
    for point in path[1:]:
        kernel = jackknife.kernel(point)
        to.append(jackknife.distances(kernel, goal))
        steps.append(jackknife.distances(before, kernel))
        before = kernel
    chord = jackknife.distances(first, before)  # [n]; `before` is the last point by now
    to_target, step = np.stack(to), np.stack(steps)  # [P, n], [P - 1, n]
    length = step.sum(axis=0)  # [n]
    scale = np.sqrt(len(probes) / inputs)
    numbers = (to_target, step, length, chord / length, chord, (to_target[0] - to_target[-1]) / length)
    return Errors(*(scale * jackknife_error(values) for values in numbers))


def median_error(errors: Sequence[Errors]) -> float:
    """Return the median standard error of the distances of some paths; NaN where none is known."""
    values = np.concatenate([part for path in errors for part in (path.to_target, path.step)])
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


class _Jackknife(NamedTuple):
    """Distances between kernels without each of the probes."""

    centring: str
    probes: np.ndarray

    def kernel(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Return the centred kernel [n, n], and its squared lengths [n] without each probe."""
        # Masking is done again for every set of probes: it begins from the kernels before it.
        before = "double" if self.centring == "masked" else self.centring
        kernel = centred(point.over(self.probes).gram(), before)
        return kernel, products_without(kernel, kernel, self.centring)

    def distances(self, left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the angles [n] between two kernels, in radians."""
        cosine = products_without(left[0], right[0], self.centring) / np.sqrt(left[1] * right[1])
        return np.arccos(np.clip(cosine, -1.0, 1.0))


@dataclass(frozen=True, eq=False)
class MeasuredPath:
    """One network's path, measured. Distances in the space's units, angles in radians."""

    path: LayerPath
    profile: Profile
    errors: Errors
    chord: float  # from the inputs to the last output

    @property
    def efficiency(self) -> float:
        """By how much the whole path comes nearer to the target, as a share of its length."""
        gained = float(self.profile.to_target[0] - self.profile.to_target[-1])
        return gained / self.profile.length if self.profile.length > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class MeasuredPaths:
    """Paths and their target in one space.

    Attributes:
        points: the set that the paths go through.
        arrangement: of all points of the set, in its order; those off every path have NaN.
        paths: in the order of training.
        target: number of the target's point.
        space: where they were measured.
    """

    points: PointSet
    arrangement: Arrangement
    paths: tuple[MeasuredPath, ...]
    target: int
    space: Space

    @cached_property
    def between(self) -> np.ndarray:
        """Mean distances [n, n] between the paths where both have gone the same fraction of their length."""
        return path_distances(self.arrangement, [measured.path.numbers for measured in self.paths])

    @property
    def noise(self) -> float:
        """The median standard error of a distance over all steps and distances to the target; NaN where unknown."""
        return median_error([measured.errors for measured in self.paths])

    @property
    def conditions(self) -> str:
        """What every number depends on, as a figure says it: probes, space, noise."""
        return conditions(len(self.points.ids), self.space, self.noise)


def measure(points: PointSet, paths: Sequence[LayerPath], target: int, space: Space) -> MeasuredPaths:
    """Measure paths on their way to a target.

    Angles are left out where a side is within three standard errors of its length, or shorter than 0.05 rad.

    Raises:
        InputError: a point cannot be compared in the space.
    """
    used = sorted({target}.union(*(path.all_numbers for path in paths)))
    arrangement = _of_all(points.only(used).arrangement(space), used, len(points))
    kernels = [item.point for item in points.points]
    measured = []
    for path in paths:
        errors = errors_of([kernels[number] for number in path.numbers], kernels[target], space)
        floor = _floor(path, target, errors, len(points))
        chord = float(arrangement.distances[path.numbers[0], path.numbers[-1]])
        measured.append(MeasuredPath(path, profile(arrangement, path.numbers, target, floor=floor), errors, chord))
    return MeasuredPaths(points, arrangement, tuple(measured), target, space)


def conditions(probes: int, space: Any, noise: float) -> str:
    """Return what every number depends on, as a figure says it: probes, space, and the noise of distances if known."""
    words = "" if np.isnan(noise) else f"a distance's standard error over probes: {noise:.3f} (median)"
    centring = getattr(space, "centring", None)
    name = f"angular CKA, {centring}-centred" if centring else repr(space).removesuffix("()")
    return " · ".join(part for part in (f"m = {probes:,} probes", name, words) if part)


def _floor(path: LayerPath, target: int, errors: Errors, count: int) -> np.ndarray:
    """Return the standard errors [all, all] of the distances that are known to have one, NaN of others."""
    floor = np.full((count, count), np.nan)  # [all, all]
    numbers = np.array(path.numbers)
    for first, second, values in ((numbers, target, errors.to_target), (numbers[:-1], numbers[1:], errors.step)):
        floor[first, second] = floor[second, first] = values
    return floor


def _of_all(arrangement: Arrangement, used: Sequence[int], count: int) -> Arrangement:
    """Return the arrangement under the numbers of the whole set, NaN of the points that are not in it."""

    def spread(matrix: np.ndarray) -> np.ndarray:
        every = np.full((count, count), np.nan)
        every[np.ix_(used, used)] = matrix  # rows and columns of the points that are on a path
        return every

    cosines = arrangement.cosines
    return Arrangement(spread(arrangement.distances), None if cosines is None else spread(cosines))
