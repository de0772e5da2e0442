"""Linear maps of points: classical scaling of their distances, and principal axes about their Fréchet mean."""

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist, squareform

from losskernel.errors import require, require_integer
from losskernel.geometry.arrangement import Arrangement, inner_products, log_weights, mean_weights


class Layout(NamedTuple):
    """Points on a map, flat or on a sphere."""

    # Flat: [P, d], centred. On a sphere: unit vectors [P, d + 1]. The first axis carries the most.
    coordinates: np.ndarray
    stress: float  # share of the distances that the map gets wrong: Kruskal's sqrt(Σ (d - d̂)² / Σ d²) over pairs
    raw: float = 0.0  # Σ (d - d̂)² over pairs, in squared units of the distances
    converged: bool = True  # False where a search ran out of steps before the stress was stationary


class TangentLayout(NamedTuple):
    """Points in the tangent space at their mean: azimuthal equidistant, true in direction and distance from it."""

    coordinates: np.ndarray  # [P, d], the first axis carries the most; in the space's units
    explained: np.ndarray  # [d], share of the squared distances from the mean that each axis carries
    stress: float  # as of Layout
    raw: float  # as of Layout


def classical_scaling(distances: np.ndarray, dimensions: int = 2) -> Layout:
    """Map P points into a flat space so that their distances [P, P] are kept as well as a linear map can.

    The leading eigenvectors of -½ H D² H, each with its largest entry positive.

    Raises:
        InputError: distances are not square, symmetric and finite, or dimensions are not >= 1.

    Source: Torgerson 1952; Kruskal 1964 (stress).
    """
    matrix = require_distances(distances)
    require_integer("dimensions", dimensions, at_least=1)
    squares = matrix**2
    centred = -(squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()) / 2
    coordinates = principal_coordinates(centred, dimensions)
    return Layout(coordinates, *stress_of(matrix, _flat_distances(coordinates)))


def tangent_pca(arrangement: Arrangement, dimensions: int = 2) -> TangentLayout:
    """Map P points by the principal axes of log_μ at their Fréchet mean μ, from their arrangement alone.

    On a sphere the stress is that of the coordinates mapped back onto it, exp_μ of the kept axes, which makes it
    comparable with `spherical_mds`: points of one geodesic have none in one dimension. In flat spaces this is classical
    scaling.

    Raises:
        InputError: the points have no mean, or dimensions are not >= 1.

    Source: Fletcher et al. 2004 (principal geodesic analysis).
    """
    require_integer("dimensions", dimensions, at_least=1)
    tangents = log_weights(arrangement, mean_weights(arrangement))
    gram = inner_products(arrangement, tangents, tangents)
    coordinates = principal_coordinates((gram + gram.T) / 2, dimensions)
    apart = bool((arrangement.distances > 0).any())  # else the trace is rounding
    explained = (coordinates**2).sum(0) / np.trace(gram) if apart else np.zeros(dimensions)
    if arrangement.cosines is None:
        shown = _flat_distances(coordinates)
    else:
        radius = np.linalg.norm(coordinates, axis=1, keepdims=True)
        shown = squareform(angles(np.hstack([np.cos(radius), coordinates * np.sinc(radius / np.pi)])))
    return TangentLayout(coordinates, explained, *stress_of(arrangement.distances, shown))


def principal_coordinates(gram: np.ndarray, dimensions: int) -> np.ndarray:
    """Return coordinates [P, dimensions] whose inner products come nearest to `gram` [P, P], along its principal axes.

    A gram of lower rank leaves the last axes 0.
    """
    values, vectors = np.linalg.eigh(gram)
    leading = np.argsort(values)[::-1][:dimensions]
    coordinates = np.zeros((len(gram), dimensions))
    coordinates[:, : len(leading)] = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0.0))
    return coordinates * axis_signs(coordinates)


def axis_signs(coordinates: np.ndarray) -> np.ndarray:
    """Return ±1 for every axis [d] that make its largest entry positive, so that a map has one orientation."""
    largest = coordinates[np.abs(coordinates).argmax(0), np.arange(coordinates.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def stress_of(distances: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    """Return Kruskal's stress of the distances [P, P] shown on a map, and the raw sum of squares over pairs."""
    raw, total = float(((distances - shown) ** 2).sum() / 2), float((distances**2).sum() / 2)
    return float(np.sqrt(raw / total)) if total > 0 else 0.0, raw


def require_distances(distances: Any) -> np.ndarray:
    """Return distances as a float64 matrix [P, P].

    Raises:
        InputError: they are not square, symmetric and finite.
    """
    matrix = np.asarray(distances, dtype=np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and len(matrix) > 0
    require(square, f"distances must be [P, P], got shape {matrix.shape}; pass all pairs")
    symmetric = bool(np.isfinite(matrix).all()) and np.allclose(matrix, matrix.T)
    require(symmetric, "distances must be finite and symmetric; drop the points that have none")
    return matrix


def angles(vectors: np.ndarray) -> np.ndarray:
    """Return the angles between all pairs of unit vectors [P, k], [P (P - 1) / 2] in radians; near ones keep digits."""
    chord = np.minimum(pdist(vectors), 2.0)
    return 2 * np.arctan2(chord, np.sqrt(4 - chord**2))


def _flat_distances(coordinates: np.ndarray) -> np.ndarray:
    return np.linalg.norm(coordinates[:, None] - coordinates, axis=-1)
