"""Distances between points of a space, and weighted sums of the points: all that their geometry needs.

Kernels may be large; once their distances are known, places on geodesics and means are weights over the points, and
every further distance follows from those of the points alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from losskernel.errors import require

# Distance on a sphere from which rounding alone would choose the geodesic between two points.
_ANTIPODES = np.pi - 1e-6
# |Σ P_i|² / P² of points that cancel each other.
_CANCELLED = 1e-12
# Of the search for a mean: steps, the speed in radians at which it stops, and that which rounding may leave.
_ITERATIONS, _STOPPED, _CONVERGED = 2000, 1e-13, 1e-7


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Distances between points and, where the space is a sphere, their cosines.

    On a sphere every angle, projection and length follows from the cosines in closed form; elsewhere from the
    distances, by Euclidean triangles with the same sides ("comparison triangles": exact in a flat space).

    Attributes:
        distances: [P, P], in the space's units.
        cosines: [P, P] inner products of the points on a unit sphere; None where the space is no sphere.
    """

    distances: np.ndarray
    cosines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.distances)

    def of(self, chosen: Sequence[int] | np.ndarray) -> "Arrangement":
        """Return the arrangement of some of the points, in the order given."""
        numbers = np.asarray(chosen)
        pairs = numbers[:, None], numbers
        return Arrangement(self.distances[pairs], None if self.cosines is None else self.cosines[pairs])


def inner_products(arrangement: Arrangement, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the inner products [F, G] of weighted sums [F, P] and [G, P] of the points.

    As (Σ w) (Σ v) - wᵀ Q v with Q = 1 - cos, taken from the distances: near points keep their digits. In spaces that
    are no sphere Q = d² / 2, which holds for weights that sum to zero, as those of differences do.
    """
    shared = 0.0 if arrangement.cosines is None else np.outer(left.sum(axis=-1), right.sum(axis=-1))
    return shared - left @ _halved_squares(arrangement) @ right.T


def distances_between(arrangement: Arrangement, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the distances [F] between weighted sums [F, P] of the points, one by one."""
    difference = left - right
    squares = -np.einsum("fp,fp->f", difference @ _halved_squares(arrangement), difference)
    if arrangement.cosines is None:
        return np.sqrt(np.maximum(squares, 0.0))
    # Squared chords, to which weights that do not sum to zero add.
    squares = np.clip(squares + difference.sum(axis=-1) ** 2, 0.0, 4.0)
    return 2 * np.arctan2(np.sqrt(squares), np.sqrt(4 - squares))


def geodesic_weights(arrangement: Arrangement, a: np.ndarray, b: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Return the weights [F, P] of the points at a fraction [F] of the geodesics from points a [F] to b [F].

    Raises:
        InputError: a and b are antipodes on a sphere, which have no unique geodesic.
    """
    angle = arrangement.distances[a, b]
    first, second = 1 - fraction, np.asarray(fraction, dtype=np.float64)
    if arrangement.cosines is not None:
        apart = bool((angle < _ANTIPODES).all())
        require(apart, "antipodes have no unique geodesic between them; drop one of the points")
        moved = angle > 0
        sine = np.where(moved, np.sin(angle), 1.0)
        first = np.where(moved, np.sin(first * angle) / sine, first)
        second = np.where(moved, np.sin(second * angle) / sine, second)
    weights, row = np.zeros((len(angle), len(arrangement))), np.arange(len(angle))
    weights[row, a] += first
    weights[row, b] += second
    return weights


def mean_weights(arrangement: Arrangement) -> np.ndarray:
    """Return the weights [P] of the Fréchet mean of all points, the point with the least sum of squared distances.

    On a sphere the fixed point of μ -> exp_μ(mean of log_μ P_i); elsewhere the centre of mass, exact in flat spaces.

    Raises:
        InputError: the points are spread over the whole sphere, so that no mean is found.
    """
    count = len(arrangement)
    weights = np.full(count, 1 / count)
    if arrangement.cosines is None:
        return weights
    length = float(inner_products(arrangement, weights[None], weights[None])[0, 0])
    require(length > _CANCELLED, "the points have no mean: they cancel each other on the sphere; leave some out")
    weights /= np.sqrt(length)
    speed = np.inf
    for _ in range(_ITERATIONS):
        velocity = log_weights(arrangement, weights).mean(axis=0)
        speed = float(np.sqrt(max(inner_products(arrangement, velocity[None], velocity[None])[0, 0], 0.0)))
        if speed < _STOPPED:
            return weights
        weights = np.cos(speed) * weights + np.sin(speed) / speed * velocity
        # Back onto the sphere, which rounding leaves.
        weights /= np.sqrt(inner_products(arrangement, weights[None], weights[None])[0, 0])
    require(speed < _CONVERGED, f"the points have no mean: the search still moves by {speed:.2g} rad; leave some out")
    return weights


def log_weights(arrangement: Arrangement, centre: np.ndarray) -> np.ndarray:
    """Return the tangents [P, P] at a weighted sum [P] that lead to every point, as weights of the points."""
    points = np.eye(len(arrangement))
    if arrangement.cosines is None:
        return points - centre
    angle = distances_between(arrangement, points, np.broadcast_to(centre, points.shape))  # [P]
    sine = np.sin(angle)
    stretch = np.divide(angle, sine, out=np.ones_like(angle), where=sine > 0)
    return stretch[:, None] * (points - np.cos(angle)[:, None] * centre)


def _halved_squares(arrangement: Arrangement) -> np.ndarray:
    """Return half the squared chords [P, P]: 1 - cos on a sphere, d² / 2 elsewhere."""
    if arrangement.cosines is None:
        return arrangement.distances**2 / 2
    return 2 * np.sin(arrangement.distances / 2) ** 2
