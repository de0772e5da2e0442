"""Weighted sums of points, such as places on geodesics and means: their distances, from those of the points alone."""

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement

# Shortest way round a sphere from which a geodesic between two points is no longer told from others.
_ANTIPODES = np.pi - 1e-6


def inner(arrangement: Arrangement, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the inner products [F, G] of weighted sums [F, P] and [G, P] of the points.

    As (Σ w) (Σ v) - wᵀ Q v with Q = 1 - cos, taken from the distances: near points keep their digits. In spaces that
    are no sphere Q = d² / 2, which holds for weights that sum to zero: differences of places.
    """
    shared = 0.0 if arrangement.cosines is None else np.outer(left.sum(axis=-1), right.sum(axis=-1))
    return shared - left @ _halved_squares(arrangement) @ right.T


def apart(arrangement: Arrangement, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the distances [F] between places that are weighted sums [F, P] of the points, one by one."""
    difference = left - right
    squares = -np.einsum("fp,fp->f", difference @ _halved_squares(arrangement), difference)
    if arrangement.cosines is None:
        return np.sqrt(np.maximum(squares, 0.0))
    squares = np.clip(squares + difference.sum(axis=-1) ** 2, 0.0, 4.0)
    return 2 * np.arctan2(np.sqrt(squares), np.sqrt(4 - squares))


def between(arrangement: Arrangement, a: np.ndarray, b: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Return the weights [F, P] of places on the geodesics from points a [F] to b [F], at a fraction [F] of the way.

    Raises:
        InputError: a and b are antipodes on a sphere, which have no one geodesic.
    """
    angle = arrangement.distances[a, b]
    first, second = 1 - fraction, np.asarray(fraction, dtype=np.float64)
    if arrangement.cosines is not None:
        require(bool((angle < _ANTIPODES).all()), "antipodes have no one geodesic between them; drop one of the points")
        moved = angle > 0
        sine = np.where(moved, np.sin(angle), 1.0)
        first = np.where(moved, np.sin(first * angle) / sine, first)
        second = np.where(moved, np.sin(second * angle) / sine, second)
    weights, row = np.zeros((len(angle), len(arrangement))), np.arange(len(angle))
    weights[row, a] += first
    weights[row, b] += second
    return weights


def mean_weights(arrangement: Arrangement) -> np.ndarray:
    """Return the weights [P] of the Fréchet mean of all points, from which their squared distances sum to the least.

    On a sphere the fixed point of μ -> exp_μ(mean of log_μ P_i); elsewhere the centre of mass, exact in flat spaces.

    Raises:
        InputError: the points are spread over the whole sphere, so that no mean is found.
    """
    count = len(arrangement)
    weights = np.full(count, 1 / count)
    if arrangement.cosines is None:
        return weights
    length = float(inner(arrangement, weights[None], weights[None])[0, 0])
    require(length > _NOWHERE, "the points have no mean: they cancel each other on the sphere; leave some out")
    weights /= np.sqrt(length)
    speed = np.inf
    for _ in range(_ITERATIONS):
        velocity = logarithms(arrangement, weights).mean(axis=0)
        speed = float(np.sqrt(max(inner(arrangement, velocity[None], velocity[None])[0, 0], 0.0)))
        if speed < _STILL:
            return weights
        weights = np.cos(speed) * weights + np.sin(speed) / speed * velocity
        weights /= np.sqrt(inner(arrangement, weights[None], weights[None])[0, 0])
    require(speed < _SETTLED, f"the points have no mean: the search still moves by {speed:.2g} rad; leave some out")
    return weights


def logarithms(arrangement: Arrangement, centre: np.ndarray) -> np.ndarray:
    """Return tangent vectors [P, P], as weights of the points, from a place of weights [P] to every point."""
    own = np.eye(len(arrangement))
    if arrangement.cosines is None:
        return own - centre
    angle = apart(arrangement, own, np.broadcast_to(centre, own.shape))  # [P]
    sine = np.sin(angle)
    stretch = np.divide(angle, sine, out=np.ones_like(angle), where=sine > 0)
    return stretch[:, None] * (own - np.cos(angle)[:, None] * centre)


# |Σ P_i|² / P² of points that cancel each other.
_NOWHERE = 1e-12
# Of the search for a mean: steps, the speed in radians at which it stands, and that which rounding may leave.
_ITERATIONS = 2000
_STILL = 1e-13
_SETTLED = 1e-7


def _halved_squares(arrangement: Arrangement) -> np.ndarray:
    if arrangement.cosines is None:
        return arrangement.distances**2 / 2
    return 2 * np.sin(arrangement.distances / 2) ** 2
