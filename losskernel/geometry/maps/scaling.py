"""A flat map of distances: classical multidimensional scaling."""

from typing import Any, NamedTuple

import numpy as np

from losskernel.errors import require, require_integer


class Layout(NamedTuple):
    """Points on a map, flat or on a sphere."""

    # Flat: [P, d], centred. On a sphere: unit vectors [P, d + 1]. The first axis carries the most.
    places: np.ndarray
    stress: float  # share of the distances that the map gets wrong: Kruskal's sqrt(Σ (d - d̂)² / Σ d²) over pairs
    raw: float = 0.0  # Σ (d - d̂)² over pairs, in squared units of the distances
    settled: bool = True  # False where a search ran out of steps before the stress stood still


def classical_scaling(distances: np.ndarray, dimensions: int = 2) -> Layout:
    """Place P things in the plane so that their distances [P, P] are kept as well as a linear map can.

    The leading eigenvectors of -½ H D² H, each with its largest entry positive.

    Raises:
        InputError: distances are not square, symmetric and finite, or dimensions are not >= 1.

    Source: Torgerson 1952; Kruskal 1964 (stress).
    """
    matrix = require_distances(distances)
    require_integer("dimensions", dimensions, at_least=1)
    squares = matrix**2
    places = principal(-(squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()) / 2, dimensions)
    return Layout(places, *stress_of(matrix, np.linalg.norm(places[:, None] - places, axis=-1)))


def principal(gram: np.ndarray, dimensions: int) -> np.ndarray:
    """Return places [P, dimensions] whose inner products come nearest to `gram` [P, P], along its principal axes."""
    values, vectors = np.linalg.eigh(gram)
    leading = np.argsort(values)[::-1][:dimensions]
    places = np.zeros((len(gram), dimensions))
    places[:, : len(leading)] = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0.0))
    return places * signs(places)


def signs(places: np.ndarray) -> np.ndarray:
    """Return ±1 for every axis [d] that make its largest entry positive, so that a map is drawn one way round."""
    return np.where(places[np.abs(places).argmax(0), np.arange(places.shape[1])] < 0, -1.0, 1.0)


def stress_of(distances: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    """Return Kruskal's stress of shown distances [P, P], and the raw sum of squares over pairs."""
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
