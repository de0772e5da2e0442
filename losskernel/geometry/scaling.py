"""A flat map of distances: classical multidimensional scaling."""

from typing import NamedTuple

import numpy as np

from losskernel.errors import require


class Layout(NamedTuple):
    """Points on a flat map."""

    places: np.ndarray  # [P, d], centred; the first axis carries the most
    stress: float  # share of the distances that the map gets wrong, 0 to 1


def classical_scaling(distances: np.ndarray, dimensions: int = 2) -> Layout:
    """Place P things in the plane so that their distances [P, P] are kept as well as a linear map can.

    The leading eigenvectors of -½ H D² H, each with its largest entry positive. stress is Kruskal's
    sqrt(Σ (d - d̂)² / Σ d²) over pairs.

    Raises:
        InputError: distances are not square, symmetric and finite.

    Source: Torgerson 1952; Kruskal 1964 (stress).
    """
    matrix = np.asarray(distances, dtype=np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and len(matrix) > 0
    require(square, f"distances must be [P, P], got shape {matrix.shape}; pass all pairs")
    symmetric = bool(np.isfinite(matrix).all()) and np.allclose(matrix, matrix.T)
    require(symmetric, "distances must be finite and symmetric; drop the points that have none")
    squares = matrix**2
    inner = -(squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()) / 2
    values, vectors = np.linalg.eigh(inner)
    leading = np.argsort(values)[::-1][:dimensions]
    axes = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0.0))
    axes *= np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    places = np.zeros((len(matrix), dimensions))
    places[:, : axes.shape[1]] = axes
    shown = np.linalg.norm(places[:, None] - places, axis=-1)
    total = squares.sum()
    return Layout(places, float(np.sqrt(((matrix - shown) ** 2).sum() / total)) if total > 0 else 0.0)
