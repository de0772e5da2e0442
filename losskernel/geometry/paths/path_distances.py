"""Distances between paths, whose numbers of points may differ."""

from collections.abc import Callable, Sequence

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement, distances_between, geodesic_weights

# Indices of a path's points in an arrangement, in order.
Numbers = Sequence[int] | np.ndarray
# Number of equal fractions of their lengths at which two paths are compared.
_FRACTIONS = 101
# A distance between two paths of an arrangement.
PathDistance = Callable[[Arrangement, Numbers, Numbers], float]


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
