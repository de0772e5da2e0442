"""Distances between whole paths, of networks that need not have the same number of layers."""

from collections.abc import Callable, Sequence

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.paths.combinations import apart, between

Numbers = Sequence[int] | np.ndarray
# At how many equal fractions of their lengths two paths are compared.
_FRACTIONS = 101


def travelled(arrangement: Arrangement, path: Numbers, fraction: np.ndarray) -> np.ndarray:
    """Return the places [F, all] at a fraction [F] of a path's length, on its geodesics, as weights of the points."""
    numbers = np.asarray(path)
    require(len(numbers) >= 1, "a path needs >= 1 point, got 0; name a layer")
    if len(numbers) == 1:
        numbers = np.repeat(numbers, 2)
    steps = arrangement.distances[numbers[:-1], numbers[1:]]
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.asarray(fraction) * reached[-1]
    piece = np.clip(np.searchsorted(reached, at, side="right") - 1, 0, len(steps) - 1)
    gone = np.divide(at - reached[piece], steps[piece], out=np.zeros_like(at), where=steps[piece] > 0)
    return between(arrangement, numbers[piece], numbers[piece + 1], np.clip(gone, 0.0, 1.0))


def distance_at_fractions(
    arrangement: Arrangement, first: Numbers, second: Numbers, fraction: np.ndarray
) -> np.ndarray:
    """Return the distances [F] between two paths where each has gone the same fraction [F] of its length.

    Exact on spheres and in flat spaces; elsewhere as if the space were flat.

    Raises:
        InputError: a path has no point, or a step between antipodes.
    """
    used, number = np.unique(np.concatenate([first, second]), return_inverse=True)
    near = arrangement.of(used)
    split = len(np.asarray(first))
    places = [travelled(near, part, fraction) for part in (number[:split], number[split:])]
    return apart(near, *places)


def mean_distance(arrangement: Arrangement, first: Numbers, second: Numbers) -> float:
    """Return the mean distance between two paths over equal fractions of their lengths.

    Zero between curves that are the same, however many layers sample them, and a metric on curves travelled at
    constant speed: layers inserted on the geodesics do not change it, a curve walked backwards is another one.

    Raises:
        InputError: as for `distance_at_fractions`.
    """
    fraction = (np.arange(_FRACTIONS) + 0.5) / _FRACTIONS
    return float(distance_at_fractions(arrangement, first, second, fraction).mean())


def frechet_distance(arrangement: Arrangement, first: Numbers, second: Numbers) -> float:
    """Return the discrete Fréchet distance: the longest leash needed when both paths are walked, point by point.

    The layers alone count, not the geodesics between them; how fast they are passed does not, so that a point
    repeated changes nothing. A metric on sequences without repetitions, unlike dynamic time warping.

    Raises:
        InputError: a path has no point.

    Source: Eiter & Mannila 1994.
    """
    require(min(len(first), len(second)) >= 1, "a path needs >= 1 point, got 0; name a layer")
    rows = arrangement.distances[np.ix_(np.asarray(first), np.asarray(second))].tolist()
    leash: list[float] = []
    for row in rows:
        reached: list[float] = []
        for place, distance in enumerate(row):
            before = [*leash[max(place - 1, 0) : place + 1], *reached[-1:]]
            reached.append(max(distance, min(before, default=0.0)))
        leash = reached
    return leash[-1]


# How two paths of an arrangement are compared.
Compared = Callable[[Arrangement, Numbers, Numbers], float]


def path_distances(arrangement: Arrangement, paths: Sequence[Numbers], by: Compared = mean_distance) -> np.ndarray:
    """Return the distances [n, n] between n paths, in the space's units.

    Args:
        arrangement: how all points stand to each other.
        paths: numbers of the points of each path, in order.
        by: `mean_distance` or `frechet_distance`.

    Raises:
        InputError: as for `by`.
    """
    found = np.zeros((len(paths), len(paths)))
    for a, first in enumerate(paths):
        for b, second in enumerate(paths[:a]):
            found[a, b] = found[b, a] = by(arrangement, first, second)
    return found
