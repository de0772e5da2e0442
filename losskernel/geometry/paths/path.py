"""Paths through representation space: how far, how straight, where they pass a target, and how far from each other."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry.arrangement import Arrangement, distances_between, geodesic_weights
from losskernel.geometry.paths.triangles import Projection, project, vertex_angle
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.space import Space

# Indices of a path's points in an arrangement, in order.
Numbers = Sequence[int] | np.ndarray
# Number of equal fractions of their lengths at which two paths are compared.
_FRACTIONS = 101
# A distance between two paths of an arrangement.
PathDistance = Callable[[Arrangement, Numbers, Numbers], float]
# Sides shorter than this give no angle: in radians, or elsewhere as a share of the greatest distance in use.
LEAST_SIDE = 0.05
# Least length of a side in noise floors that gives an angle.
FLOORS = 3.0


class Path:
    """Points in order, joined by geodesics; everything follows from their arrangement.

    The length is a lower bound on that of the true path: more layers sampled make it longer, never shorter.

    Attributes:
        arrangement: of the P points, in the order of the path.

    Source: Lange et al. 2022, arXiv 2206.10999.
    """

    arrangement: Arrangement

    def __init__(self, points: Sequence[Point], space: Space) -> None:
        """Join points of a space.

        Raises:
            InputError: fewer than two points, or the space has no distance between some.
        """
        self._points, self._space = tuple(points), space
        self._join(space.arrangement(self._points))

    @classmethod
    def from_arrangement(cls, arrangement: Arrangement, numbers: Sequence[int] | np.ndarray | None = None) -> "Path":
        """Join points of a known arrangement by their indices, in the order given; all of them by default.

        Raises:
            InputError: fewer than two points.
        """
        path = cls.__new__(cls)
        path._points, path._space = (), None
        path._join(arrangement if numbers is None else arrangement.of(numbers))
        return path

    def _join(self, arrangement: Arrangement) -> None:
        require(len(arrangement) >= 2, f"a path needs >= 2 points, got {len(arrangement)}; name more layers")
        self.arrangement = arrangement

    def __len__(self) -> int:
        return len(self.arrangement)

    @property
    def steps(self) -> np.ndarray:
        """Distances from each point to the next, [P - 1]."""
        return np.diagonal(self.arrangement.distances, offset=1).copy()

    @property
    def length(self) -> float:
        """Sum of the steps."""
        return float(self.steps.sum())

    @property
    def straightness(self) -> float:
        """Distance between the ends as a share of the length: 1 along one geodesic, NaN for a path that stays."""
        return float(self.arrangement.distances[0, -1] / self.length) if self.length > 0 else float("nan")

    def angles(self) -> np.ndarray:
        """Return the vertex angles at the inner points [P - 2], in radians: π straight on, 0 back."""
        inner = np.arange(1, len(self) - 1)
        return vertex_angle(self.arrangement, inner - 1, inner, inner + 1)

    def turning(self) -> np.ndarray:
        """Return by how much the path turns at the inner points [P - 2], in radians: 0 straight on, π back."""
        return np.pi - self.angles()

    def to(self, target: Point | int) -> np.ndarray:
        """Return the distances [P] to a point, or to a point of the path by its index.

        Raises:
            InputError: `target` is a Point, and the path was made from an arrangement.
        """
        arrangement, (number,) = self._with(target)
        return arrangement.distances[: len(self), number]

    def project(self, onto: tuple[Point | int, Point | int]) -> Projection:
        """Return how far along a geodesic every point is [P], and how far off it [P].

        Args:
            onto: the ends of the geodesic, Points or indices of points of the path; (0, -1) for its ends.

        Raises:
            InputError: an end is a Point, and the path was made from an arrangement.
        """
        arrangement, (start, end) = self._with(*onto)
        return project(arrangement, np.arange(len(self)), start, end)

    def _with(self, *others: Point | int) -> tuple[Arrangement, list[int]]:
        """Return the arrangement of the path's points followed by new ones, and the indices of `others` in it."""
        new = [other for other in others if isinstance(other, Point)]
        listed = [other for other in others if not isinstance(other, Point)]
        inside = all(-len(self) <= number < len(self) for number in listed)
        require(inside, f"a path of {len(self)} points has none with number {listed}; count from 0")
        following = iter(range(len(self), len(self) + len(new)))
        numbers = [next(following) if isinstance(other, Point) else other % len(self) for other in others]
        if not new:
            return self.arrangement, numbers
        if self._space is None:
            raise InputError("the path was made from an arrangement; put the point into it and give its number")
        return self._space.arrangement([*self._points, *new], known=self.arrangement), numbers


class Profile(NamedTuple):
    """One path relative to a target. Distances in the space's units, angles in radians.

    An angle is NaN where one of the two sides at its vertex is shorter than `least` or than three noise floors, and so
    are fraction and off where start and target are that near; efficiency where the step is shorter than three
    floors. A target need not lie ahead: speak of progress only where `behind` says that the start is farther off.
    """

    to_target: np.ndarray  # [P]
    reached: np.ndarray  # [P], length of the path up to each point
    step: np.ndarray  # [P - 1], to the next point
    progress: np.ndarray  # [P - 1], by how much the step comes nearer to the target; |progress| <= step
    efficiency: np.ndarray  # [P - 1], progress / step, -1 to 1; NaN for a step within the noise
    heading: np.ndarray  # [P - 1], between the step and the geodesic to the target: 0 straight at it, π away from it
    turning: np.ndarray  # [P - 2], at the inner points: 0 straight on, π back
    fraction: np.ndarray  # [P], of the geodesic from start to target, at its point nearest to each point
    off: np.ndarray  # [P], distance to that nearest point
    behind: np.ndarray  # [P] bool, no farther from the target than the start is
    length: float
    straightness: float


def profile(
    arrangement: Arrangement,
    path: Sequence[int] | np.ndarray,
    target: int,
    start: int | None = None,
    floor: np.ndarray | None = None,
    least: float = LEAST_SIDE,
) -> Profile:
    """Return what every step of a path contributes, and where it passes the geodesic from a start to a target.

    Args:
        arrangement: of all points.
        path: indices of the P points, in order.
        target: index of the point to approach, such as the labels.
        start: index of the point where the geodesic to the target begins; the path's first by default.
        floor: distances [all, all] that noise alone gives (`noise_floor`), NaN where unknown; None for no noise.
        least: in radians on spheres, elsewhere a share of the greatest distance between the points in use.

    Raises:
        InputError: fewer than two points, or `floor` does not match.
    """
    numbers = np.asarray(path, dtype=int)
    joined = Path.from_arrangement(arrangement, numbers)
    start = int(numbers[0]) if start is None else start
    distances, here, there = arrangement.distances, numbers[:-1], numbers[1:]
    noise = np.zeros_like(distances) if floor is None else np.nan_to_num(floor)  # 0 where it is unknown
    fits = noise.shape == distances.shape
    require(fits, f"floor must be of all pairs, {list(distances.shape)}, got shape {noise.shape}")
    if arrangement.cosines is None:
        used = [*numbers, target, start]
        least = least * float(distances[np.ix_(used, used)].max())
    clear = distances >= np.maximum(least, FLOORS * noise)  # pairs far enough apart to give a direction
    step, to_target = joined.steps, distances[numbers, target]
    progress = to_target[:-1] - to_target[1:]
    significant = (step > 0) & (step >= FLOORS * noise[here, there])
    sides = clear[here, there]
    nearest = project(arrangement, numbers, start, target)
    return Profile(
        to_target,
        reached=np.concatenate([[0.0], np.cumsum(step)]),
        step=step,
        progress=progress,
        efficiency=np.divide(progress, step, out=np.full_like(step, np.nan), where=significant),
        heading=np.where(sides & clear[here, target], vertex_angle(arrangement, there, here, target), np.nan),
        turning=np.where(sides[:-1] & sides[1:], joined.turning(), np.nan),
        fraction=np.where(clear[start, target], nearest.fraction, np.nan),
        off=np.where(clear[start, target], nearest.distance, np.nan),
        behind=to_target <= distances[start, target],
        length=joined.length,
        straightness=joined.straightness,
    )


def weights_along(arrangement: Arrangement, path: Numbers, fraction: np.ndarray) -> np.ndarray:
    """Return the weights [F, all] of the points at a fraction [F] of a path's length, on its geodesics."""
    numbers = np.asarray(path)
    require(len(numbers) >= 1, "a path needs >= 1 point, got 0; name a layer")
    if len(numbers) == 1:
        numbers = np.repeat(numbers, 2)
    steps = arrangement.distances[numbers[:-1], numbers[1:]]
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    length = np.asarray(fraction) * reached[-1]  # [F], from the start
    piece = np.clip(np.searchsorted(reached, length, side="right") - 1, 0, len(steps) - 1)
    within = np.divide(length - reached[piece], steps[piece], out=np.zeros_like(length), where=steps[piece] > 0)
    return geodesic_weights(arrangement, numbers[piece], numbers[piece + 1], np.clip(within, 0.0, 1.0))


def distance_at_fractions(
    arrangement: Arrangement, first: Numbers, second: Numbers, fraction: np.ndarray
) -> np.ndarray:
    """Return the distances [F] between two paths, each at the same fraction [F] of its length.

    Exact on spheres and in flat spaces; elsewhere as if the space were flat.

    Raises:
        InputError: a path has no point, or a step between antipodes.
    """
    # Weights over the points of the two paths alone, of which an arrangement may hold many more.
    used, number = np.unique(np.concatenate([first, second]), return_inverse=True)
    few = arrangement.of(used)
    split = len(np.asarray(first))
    left, right = (weights_along(few, part, fraction) for part in (number[:split], number[split:]))
    return distances_between(few, left, right)


def mean_distance(arrangement: Arrangement, first: Numbers, second: Numbers) -> float:
    """Return the mean distance between two paths over equal fractions of their lengths.

    Zero between equal curves, however many layers sample them, and a metric on curves traversed at constant speed:
    layers inserted on the geodesics do not change it; a reversed curve is a different one.

    Raises:
        InputError: as for `distance_at_fractions`.
    """
    fraction = (np.arange(_FRACTIONS) + 0.5) / _FRACTIONS
    return float(distance_at_fractions(arrangement, first, second, fraction).mean())


def frechet_distance(arrangement: Arrangement, first: Numbers, second: Numbers) -> float:
    """Return the discrete Fréchet distance: the shortest leash with which both paths can be walked, point by point.

    Only the layers count, not the geodesics between them, and not the speed, so that a repeated point changes nothing.
    A metric on sequences without repetitions, unlike dynamic time warping.

    Raises:
        InputError: a path has no point.

    Source: Eiter & Mannila 1994.
    """
    require(min(len(first), len(second)) >= 1, "a path needs >= 1 point, got 0; name a layer")
    rows = arrangement.distances[np.ix_(np.asarray(first), np.asarray(second))].tolist()
    # leash[j]: of the walk to (i, j), which comes from (i - 1, j - 1), (i - 1, j) or (i, j - 1).
    leash: list[float] = []
    for row in rows:
        current: list[float] = []
        for index, distance in enumerate(row):
            before = [*leash[max(index - 1, 0) : index + 1], *current[-1:]]
            current.append(max(distance, min(before, default=0.0)))
        leash = current
    return leash[-1]


def path_distances(arrangement: Arrangement, paths: Sequence[Numbers], by: PathDistance = mean_distance) -> np.ndarray:
    """Return the distances [n, n] between n paths, in the space's units.

    Args:
        arrangement: of all points.
        paths: indices of the points of each path, in order.
        by: `mean_distance` or `frechet_distance`.

    Raises:
        InputError: as for `by`.
    """
    matrix = np.zeros((len(paths), len(paths)))
    for a, first in enumerate(paths):
        for b, second in enumerate(paths[:a]):
            matrix[a, b] = matrix[b, a] = by(arrangement, first, second)
    return matrix
