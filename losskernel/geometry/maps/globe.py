"""A sphere on paper: the azimuthal equidistant projection, and arcs of great circles to draw on it."""

import numpy as np

from losskernel.errors import require


def frame(places: np.ndarray) -> np.ndarray:
    """Return orthonormal rows [k, k]: the mean direction of unit vectors [P, k], then axes, the widest first.

    Where the points cancel each other, so that no direction is the mean, the axis that carries most takes its place.

    Raises:
        InputError: places are not [P, k] with k >= 2.
    """
    shaped = places.ndim == 2 and places.shape[1] >= 2 and len(places) > 0
    require(shaped, f"places must be unit vectors [P, k >= 2], got shape {places.shape}; pass those of spherical_mds")
    mean = places.mean(axis=0)
    length = np.linalg.norm(mean)
    centre = mean / length if length > 1e-9 else np.linalg.eigh(places.T @ places)[1][:, -1]
    # The centre's own direction comes first: it gets a weight that no other can have.
    across = places - np.outer(places @ centre, centre)
    axes = np.linalg.eigh(across.T @ across + 2 * len(places) * np.outer(centre, centre))[1][:, ::-1].T
    axes[0] = centre
    shown = places @ axes.T
    axes[1:] *= np.where(shown[np.abs(shown).argmax(0), np.arange(len(axes))] < 0, -1.0, 1.0)[1:, None]
    return axes


def azimuthal(places: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return unit vectors [..., k] on paper [..., k - 1]: true in direction and distance from the centre, in radians.

    Distances elsewhere are stretched, the more the farther out; the centre's antipode, a circle of radius π, is put
    onto its first axis.

    Args:
        places: unit vectors, such as those of `spherical_mds`.
        axes: orthonormal rows [k, k], the centre first (`frame`).

    Source: Snyder 1987.
    """
    turned = places @ axes.T
    across = np.linalg.norm(turned[..., 1:], axis=-1, keepdims=True)
    radius = np.arctan2(across, turned[..., :1])
    first = np.zeros_like(turned[..., 1:])
    first[..., 0] = 1.0
    direction = np.divide(turned[..., 1:], across, out=first, where=across > 0)
    return radius * direction


def arc(a: np.ndarray, b: np.ndarray, count: int = 50) -> np.ndarray:
    """Return `count` unit vectors [count, k] along the shorter great circle from unit vectors a [k] to b [k].

    Raises:
        InputError: a and b are antipodes, which have no one shortest arc.
    """
    chord, reach = np.linalg.norm(a - b), np.linalg.norm(a + b)
    require(bool(reach > 1e-9), "antipodes have no one arc between them; draw two arcs through a third point")
    angle = 2 * np.arctan2(chord, reach)
    fraction = np.linspace(0, 1, count)[:, None]
    if angle < 1e-9:
        return (1 - fraction) * a + fraction * b
    return (np.sin((1 - fraction) * angle) * a + np.sin(fraction * angle) * b) / np.sin(angle)
