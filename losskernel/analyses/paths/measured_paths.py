"""All paths of a study in one space: how their points stand to each other and to the target, with what errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry import AngularCKA, Arrangement, Point, Space
from losskernel.geometry.centring import centred
from losskernel.geometry.paths.path import Profile, profile
from losskernel.geometry.paths.path_distances import path_distances
from losskernel.geometry.point import evenly
from losskernel.geometry.significance import jackknife_error, products_without
from losskernel.representations.points import TRAINED, PointSet

ALONG = ("spine", "all")
HIDDEN, INPUTS = "hidden", "inputs"


@dataclass(frozen=True)
class Walk:
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
    def everything(self) -> list[int]:
        """The numbers of the points on the path and on the branches beside it."""
        return sorted({*self.numbers, *(number for edge in self.edges for number in edge)})

    def last(self, kind: str) -> int | None:
        """Return the place on the path of the last point of a kind; None where there is none."""
        return next((place for place in reversed(range(len(self.kinds))) if self.kinds[place] == kind), None)


def walks_of(points: PointSet, networks: Sequence[str] | None = None, along: str = "spine") -> list[Walk]:
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
    wanted = list(networks or (each for each in known if each == TRAINED or end is None or points.step(each) != end))
    return [_walk(points, network, along) for network in known if network in wanted]


def spine(numbers: Sequence[int], edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return those of the points, in order of evaluation, that all routes from the first to the last pass through.

    Side by side branches fall out; the points where they part and meet stay.

    Raises:
        InputError: no route leads from the first point to the last.
    """
    ways = dict.fromkeys(numbers, 0) | {numbers[0]: 1}  # whole numbers of any size: a deep network has 2^40 routes
    back = dict.fromkeys(numbers, 0) | {numbers[-1]: 1}
    order = {number: place for place, number in enumerate(numbers)}
    for before, after in sorted(edges, key=lambda edge: order[edge[1]]):
        ways[after] += ways[before]
    for before, after in sorted(edges, key=lambda edge: -order[edge[0]]):
        back[before] += back[after]
    every = ways[numbers[-1]]
    require(every > 0, "no route leads from the inputs to the last output; use analysis.path.along=all")
    return [number for number in numbers if ways[number] * back[number] == every]


def edges_of(points: PointSet, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of points that follow on each other: as the points say, else each after the one before."""
    named = {points[number].name: number for number in numbers}
    found: list[tuple[int, int]] = []
    for before, number in pairwise(numbers):
        said = dict.fromkeys(named[name] for name in points[number].after if name in named)
        found += [(each, number) for each in said or {before: None}]
    return found


def _walk(points: PointSet, network: str, along: str) -> Walk:
    every = points.path(network)
    require(len(every) >= 2, f"{network}: a path needs >= 2 points, got {len(every)}; name more layers")
    edges = edges_of(points, every)
    numbers = every if along == "all" else spine(every, edges)
    placed = [points[number] for number in numbers]
    return Walk(
        network,
        points.step(network),
        tuple(numbers),
        tuple(each.label for each in placed),
        tuple(each.kind for each in placed),
        tuple(edges),
    )


# Probes that are left out at most; errors of more shrink with the square root of their number.
_MOST = 1000
# Fewer leave nothing to centre.
_LEAST = 6


class Errors(NamedTuple):
    """Standard errors over probes of one path; NaN where they are unknown. Distances in radians."""

    to_target: np.ndarray  # [P]
    step: np.ndarray  # [P - 1]
    length: float
    straightness: float
    chord: float
    efficiency: float


def unknown(count: int) -> Errors:
    """Return the errors of a path of so many points where nothing can be said of them."""
    nan = float("nan")
    return Errors(np.full(count, nan), np.full(count - 1, nan), nan, nan, nan, nan)


def errors_of(path: Sequence[Point], target: Point, space: object) -> Errors:
    """Return the jackknife errors of a path's distances, angular CKA alone having a closed form.

    Of more than 1,000 probes as many are left out, evenly spaced, and their errors scaled by the root of the share.

    Args:
        path: P points, in order.
        target: what distances are measured to.
        space: where.

    Source: Efron & Stein 1981.
    """
    inputs = target.inputs
    if not isinstance(space, AngularCKA) or inputs < _LEAST:
        return unknown(len(path))
    probes = evenly(inputs, _MOST)
    walk = _Without(space, probes)
    goal, first = walk.kernel(target), walk.kernel(path[0])
    before, to, steps = None, [], []
    for point in path:
        own = walk.kernel(point)
        to.append(walk.distances(own, goal))
        steps += [] if before is None else [walk.distances(before, own)]
        before = own
    chord = walk.distances(first, before or first)
    to_target, step = np.stack(to), np.stack(steps)  # [P, n], [P - 1, n]
    length = step.sum(axis=0)
    scale = np.sqrt(len(probes) / inputs)
    numbers = (to_target, step, length, chord / length, chord, (to_target[0] - to_target[-1]) / length)
    return Errors(*(scale * jackknife_error(each) for each in numbers))


def median_error(errors: Sequence[Errors]) -> float:
    """Return the median standard error of the distances of some paths; NaN where none is known."""
    every = np.concatenate([part for each in errors for part in (each.to_target, each.step)])
    known = every[np.isfinite(every)]
    return float(np.median(known)) if len(known) else float("nan")


class _Without:
    """Distances between kernels without each of the probes."""

    def __init__(self, space: AngularCKA, probes: np.ndarray) -> None:
        self._centring, self._probes = space.centring, probes

    def kernel(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Return the centred kernel [n, n], and its squared lengths [n] without each probe."""
        # Masking is done again for every set of probes: it begins from the kernels before it.
        before = "double" if self._centring == "masked" else self._centring
        own = centred(point.over(self._probes).gram(), before)
        return own, products_without(own, own, self._centring)

    def distances(self, left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the angles [n] between two kernels, in radians."""
        cosine = products_without(left[0], right[0], self._centring) / np.sqrt(left[1] * right[1])
        return np.arccos(np.clip(cosine, -1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Traced:
    """One network's path, measured. Distances in the space's units, angles in radians."""

    walk: Walk
    profile: Profile
    errors: Errors
    chord: float  # from the inputs to the last output

    @property
    def efficiency(self) -> float:
        """By how much the whole path comes nearer to the target, as a share of its length."""
        gained = float(self.profile.to_target[0] - self.profile.to_target[-1])
        return gained / self.profile.length if self.profile.length > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Survey:
    """Paths and their target in one space.

    Attributes:
        arrangement: of all points of the set, in its order; those off every path have NaN.
        traced: the paths, in the order of training.
        target: number of the target's point.
        space: where they were measured.
        probes: how many inputs all kernels stand over.
    """

    points: PointSet
    arrangement: Arrangement
    traced: tuple[Traced, ...]
    target: int
    space: Space
    probes: int

    @cached_property
    def between(self) -> np.ndarray:
        """Mean distances [n, n] between the paths where both have gone the same fraction of their length."""
        return path_distances(self.arrangement, [each.walk.numbers for each in self.traced])

    @property
    def noise(self) -> float:
        """The median standard error of a distance over all steps and distances to the target; NaN where unknown."""
        return median_error([each.errors for each in self.traced])

    def conditions(self) -> str:
        """Return what every number depends on, as a figure says it: probes, space, noise."""
        return conditions(self.probes, self.space, self.noise)


def survey(points: PointSet, walks: Sequence[Walk], target: int, space: Space) -> Survey:
    """Measure paths on their way to a target.

    Angles are left out where a side is within three standard errors of its length, or shorter than 0.05 rad.

    Raises:
        InputError: a point has no place in the space.
    """
    used = sorted({target, *(number for walk in walks for number in walk.everything)})
    found = points.only(used).arrangement(space)
    arrangement = _spread(found, used, len(points))
    kernels = [each.point for each in points.points]
    traced = []
    for walk in walks:
        errors = errors_of([kernels[number] for number in walk.numbers], kernels[target], space)
        floor = _floor(walk, target, errors, len(points))
        own = profile(arrangement, walk.numbers, target, floor=floor)
        chord = float(arrangement.distances[walk.numbers[0], walk.numbers[-1]])
        traced.append(Traced(walk, own, errors, chord))
    return Survey(points, arrangement, tuple(traced), target, space, len(points.ids))


def conditions(probes: int, space: Space, noise: float) -> str:
    """Return what every number depends on, as a figure says it: probes, space, and the noise of distances if known."""
    words = f"a distance's standard error over probes: {noise:.3f} (median)" if noise == noise else ""
    return " · ".join(part for part in (f"m = {probes:,} probes", spoken(space), words) if part)


def spoken(space: Any) -> str:
    """Return a space in words."""
    centring = getattr(space, "centring", None)
    return f"angular CKA, {centring}-centred" if centring else repr(space).removesuffix("()")


def _floor(walk: Walk, target: int, errors: Errors, count: int) -> np.ndarray:
    """Return the standard errors [all, all] of the distances that are known to have one, NaN of others."""
    floor = np.full((count, count), np.nan)
    numbers = np.array(walk.numbers)
    for one, other, values in ((numbers, target, errors.to_target), (numbers[:-1], numbers[1:], errors.step)):
        floor[one, other] = floor[other, one] = values
    return floor


def _spread(found: Arrangement, used: Sequence[int], count: int) -> Arrangement:
    """Return the arrangement under the numbers of the whole set."""
    pairs = np.ix_(used, used)

    def whole(part: np.ndarray | None) -> np.ndarray | None:
        if part is None:
            return None
        matrix = np.full((count, count), np.nan)
        matrix[pairs] = part
        return matrix

    return Arrangement(np.asarray(whole(found.distances)), whole(found.cosines))


def landmarks(traced: Traced) -> dict[str, int]:
    """Return the places on the path that every network has: inputs, the last hidden layer, each output."""
    walk = traced.walk
    hidden = walk.last("layer")
    found = {INPUTS: 0} | ({} if hidden is None else {HIDDEN: hidden})
    outputs = [place for place, kind in enumerate(walk.kinds) if kind == "output"]
    return found | {walk.labels[place].replace(" ", "_"): place for place in outputs}
