"""A sphere on paper: the azimuthal equidistant projection, and arcs of great circles to draw on it."""

import numpy as np

from losskernel.errors import require
from losskernel.geometry.maps.linear import axis_signs


def frame(vectors: np.ndarray) -> np.ndarray:
    """Return orthonormal rows [k, k]: the mean direction of unit vectors [P, k], then axes, the widest first.

    Points that cancel each other have no mean direction; the axis that carries most replaces it.

    Raises:
        InputError: vectors are not [P, k] with k >= 2.
    """
    shaped = vectors.ndim == 2 and vectors.shape[1] >= 2 and len(vectors) > 0
    require(shaped, f"vectors must be unit vectors [P, k >= 2], got shape {vectors.shape}; pass those of spherical_mds")
    mean = vectors.mean(axis=0)
    length = np.linalg.norm(mean)
    centre = mean / length if length > 1e-9 else np.linalg.eigh(vectors.T @ vectors)[1][:, -1]
    # The centre's own direction gets a weight that no other can have, so that it sorts first.
    across = vectors - np.outer(vectors @ centre, centre)
    axes = np.linalg.eigh(across.T @ across + 2 * len(vectors) * np.outer(centre, centre))[1][:, ::-1].T
    axes[0] = centre
    axes[1:] *= axis_signs(vectors @ axes.T)[1:, None]
    return axes


def azimuthal(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Project unit vectors [..., k] to paper [..., k - 1]: true in direction and distance from the centre, in radians.

    Other distances are stretched, increasingly with distance from the centre; the centre's antipode, a circle of
    radius π, becomes a point on the first axis.

    Args:
        vectors: such as the coordinates of `spherical_mds`.
        axes: orthonormal rows [k, k], the centre first (`frame`).

    Source: Snyder 1987.
    """
    turned = vectors @ axes.T
    across = np.linalg.norm(turned[..., 1:], axis=-1, keepdims=True)
    radius = np.arctan2(across, turned[..., :1])
    direction = np.zeros_like(turned[..., 1:])
    direction[..., 0] = 1.0  # of the antipode, where any would do
    np.divide(turned[..., 1:], across, out=direction, where=across > 0)
    return radius * direction


def arc(a: np.ndarray, b: np.ndarray, count: int = 50) -> np.ndarray:
    """Return `count` unit vectors [count, k] along the shorter great circle from unit vectors a [k] to b [k].

    Raises:
        InputError: a and b are antipodes, which have no unique shortest arc.
    """
    chord, reach = np.linalg.norm(a - b), np.linalg.norm(a + b)
    require(bool(reach > 1e-9), "antipodes have no unique arc between them; draw two arcs through a third point")
    angle = 2 * np.arctan2(chord, reach)
    fraction = np.linspace(0, 1, count)[:, None]
    if angle < 1e-9:
        return (1 - fraction) * a + fraction * b
    return (np.sin((1 - fraction) * angle) * a + np.sin(fraction * angle) * b) / np.sin(angle)
