"""Triangles of points: angles, projections onto geodesics, midpoints and curvature, all from three distances."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement

# cos(ac / 2) of points so far apart that rounding alone chooses the geodesic between them.
_ANTIPODES = 1e-8
# Indices of points of an arrangement; arrays are broadcast against each other.
Numbers = int | Sequence[int] | np.ndarray


class Projection(NamedTuple):
    """Where points come nearest to a geodesic from a to b."""

    fraction: np.ndarray  # of the way from a to b, 0 to 1 on the segment
    distance: np.ndarray  # from the point to its nearest point there, in the space's units


def vertex_angle(arrangement: Arrangement, a: Numbers, b: Numbers, c: Numbers) -> np.ndarray:
    """Return the angle at b of triangles a, b, c, in radians: π where b lies between a and c, 0 where c turns back.

    By half angles, tan² (β / 2) = sin(s - ab) sin(s - bc) / (sin s sin(s - ac)) with s half the sum of the sides, which
    keep their digits for near points; in spaces that are no sphere the sine of a side is the side itself (Heron). NaN
    where a or c is b, for there is no direction.
    """
    ab, bc, ac = _sides(arrangement, a, b, c)
    # of a side: its sine on spheres, the side itself elsewhere
    size, half = np.asarray if arrangement.cosines is None else np.sin, (ab + bc + ac) / 2
    opened = size(half - ab) * size(half - bc)
    closed = size(half) * size(half - ac)
    angle = 2 * np.arctan2(np.sqrt(np.maximum(opened, 0.0)), np.sqrt(np.maximum(closed, 0.0)))
    return np.where((ab > 0) & (bc > 0), angle, np.nan)


def turning(arrangement: Arrangement, a: Numbers, b: Numbers, c: Numbers) -> np.ndarray:
    """Return by how much a path a, b, c turns at b, in radians: 0 straight on, π back."""
    return np.pi - vertex_angle(arrangement, a, b, c)


def project(arrangement: Arrangement, point: Numbers, a: Numbers, b: Numbers, segment: bool = True) -> Projection:
    """Return where points come nearest to the geodesic from a to b.

    Exact on spheres and in flat spaces; elsewhere that of the flat triangle with the same sides.

    Args:
        arrangement: of all points.
        point: indices of the points to project.
        a: where the geodesic starts, fraction 0.
        b: where it ends, fraction 1.
        segment: stay within the piece from a to b; False for the whole great circle or line.
    """
    to_a, along, to_b = _sides(arrangement, point, a, b)
    angle = np.where((to_a > 0) & (along > 0), vertex_angle(arrangement, point, a, b), 0.0)
    if arrangement.cosines is None:
        foot, off = to_a * np.cos(angle), to_a * np.sin(angle)
    else:
        # The right triangle of a, the point and the foot, by Napier's rules; arctan2 keeps small sides exact.
        ahead = np.sin(to_a) * np.cos(angle)
        foot = np.arctan2(ahead, np.cos(to_a))
        off = np.arctan2(np.sin(to_a) * np.sin(angle), np.hypot(np.cos(to_a), ahead))
    fraction = np.divide(foot, along, out=np.zeros_like(foot), where=along > 0)
    off = np.where(along > 0, off, to_a)
    if segment:
        beyond = (fraction < 0) | (fraction > 1)
        fraction = np.where(beyond, np.where(to_a <= to_b, 0.0, 1.0), fraction)
        off = np.where(beyond, np.minimum(to_a, to_b), off)
    return Projection(fraction, off)


def midpoint_distance(arrangement: Arrangement, a: Numbers, b: Numbers, c: Numbers) -> np.ndarray:
    """Return the distance from b to the middle of the geodesic from a to c; NaN where a and c are antipodes.

    arccos((cos ab + cos bc) / (2 cos(ac / 2))) on spheres, as haversines; sqrt(ab² / 2 + bc² / 2 - ac² / 4) elsewhere.
    """
    ab, bc, ac = _sides(arrangement, a, b, c)
    if arrangement.cosines is None:
        return _flat_median(ab, bc, ac)
    half, middle = (ab + bc + ac) / 2, np.cos(ac / 2)
    apart = np.sin(half - ab) * np.sin(half - ac)
    level = np.divide(apart, 2 * middle, out=np.full_like(ac, np.nan), where=middle > _ANTIPODES)
    haversine = np.clip(np.sin((ab - ac / 2) / 2) ** 2 + level, 0.0, 1.0)
    return 2 * np.arctan2(np.sqrt(haversine), np.sqrt(1 - haversine))


def alexandrov_curvature(
    arrangement: Arrangement, a: Numbers, b: Numbers, c: Numbers, middle: Numbers | None = None
) -> np.ndarray:
    """Return how much longer the way from b to the middle of a and c is than in the flat triangle with the same sides.

    Above 0 where the space curves as a sphere, 0 where it is flat. In the space's units.

    Args:
        arrangement: of all points.
        a: one end.
        b: the point opposite.
        c: the other end.
        middle: index of the midpoint of a and c; not needed on spheres.

    Raises:
        InputError: the space is no sphere and `middle` is not given.
    """
    known = middle is not None or arrangement.cosines is not None
    require(known, "the midpoint of a and c is known on spheres only; give its index as middle=...")
    median = midpoint_distance(arrangement, a, b, c) if middle is None else arrangement.distances[b, middle]
    return median - _flat_median(*_sides(arrangement, a, b, c))


def _sides(arrangement: Arrangement, a: Numbers, b: Numbers, c: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ab, bc and ac."""
    first, second, third = np.broadcast_arrays(a, b, c)
    matrix = arrangement.distances
    return matrix[first, second], matrix[second, third], matrix[first, third]


def _flat_median(ab: np.ndarray, bc: np.ndarray, ac: np.ndarray) -> np.ndarray:
    """Return the distance from b to the middle of ac in a flat triangle."""
    return np.sqrt(np.maximum(ab**2 / 2 + bc**2 / 2 - ac**2 / 4, 0.0))
