"""All paths of a study in one space: how their points stand to each other and to the target, with what errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from losskernel.analyses.paths.jackknife_errors import Errors, errors_of, median_error
from losskernel.analyses.paths.network_paths import Walk
from losskernel.geometry import Arrangement, Space
from losskernel.geometry.paths.profiles import Profile, profile
from losskernel.geometry.paths.whole_paths import path_distances
from losskernel.representations.points import PointSet


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
    kernels = [each.point for each in points.placed]
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
