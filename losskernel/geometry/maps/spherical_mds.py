"""A map on a sphere: unit vectors whose angles keep given distances as well as a sphere of that dimension can."""

from collections.abc import Iterator

import numpy as np

from losskernel.errors import require, require_integer
from losskernel.geometry.maps.linear import (
    Layout,
    angles,
    axis_signs,
    classical_scaling,
    pairwise_angles,
    require_distances,
    stress_of,
)

# Perturbations of the best map: noise of these lengths, in turn.
_NOISE = (0.3, 1.0)
# Relative fall of the stress at which a search stops; the last one goes as far as rounding lets it.
_ROUGH, _FINE = 1e-10, 1e-15
# Derivative of the stress, as a share of Σ d², below which it is stationary.
_STATIONARY = 1e-6
_ITERATIONS = 5000
# Stress below which no other map is searched for.
_EXACT = 1e-18


def spherical_mds(
    distances: np.ndarray, dimensions: int = 2, restarts: int = 4, start: np.ndarray | None = None
) -> Layout:
    """Map P points onto the unit sphere S^d so that their angles come nearest to distances [P, P] in radians.

    Minimises Σ (d_ij - angle(z_i, z_j))² over pairs, by L-BFGS from two starts: the leading eigenvectors of cos(d), and
    the flat map rolled onto the sphere. The better one is perturbed and optimised again; the result is deterministic.

    Args:
        distances: in radians, 0 to π.
        dimensions: d of the sphere; 2 for the globe.
        restarts: searches from perturbations; they lower the stress by up to one per cent.
        start: coordinates [P, <= d + 1] of a known map; the stress is never above theirs.

    Raises:
        InputError: distances are no distances on a sphere, dimensions are not >= 1, or the start does not match.

    Source: Lange et al. 2022, arXiv 2206.10999 (the objective).
    """
    matrix = require_distances(distances)
    greatest = float(matrix.max())
    require(greatest < np.pi + 1e-9, f"distances on a sphere are at most π, got {greatest:.4g}; use classical_scaling")
    require_integer("dimensions", dimensions, at_least=1)
    require_integer("restarts", restarts, at_least=0)
    search = _Search(matrix)
    if search.scale == 0:
        return Layout(np.eye(1, dimensions + 1).repeat(len(matrix), axis=0), 0.0)
    noise = np.random.default_rng(0)
    for guess in _starts(matrix, dimensions, noise, start):
        search.descend(guess, _ROUGH)
    if start is not None:
        search.keep(_padded(start, len(matrix), dimensions))
    for restart in range(restarts if search.least > _EXACT else 0):
        moved = search.best + _NOISE[restart % len(_NOISE)] * noise.normal(size=search.best.shape)
        search.descend(moved, _ROUGH)
    best = search.polished()
    slope = search.stress(best.ravel(), best.shape)[1]
    best = best @ np.linalg.eigh(best.T @ best)[1][:, ::-1]  # onto principal axes, a rotation that keeps all angles
    best *= axis_signs(best)
    return Layout(best, *stress_of(matrix, angles(best)), converged=bool(np.abs(slope).max() < _STATIONARY))


class _Search:
    """Minimises the stress of unit vectors [P, k], and holds the best ones."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._target = matrix[np.triu_indices(len(matrix), 1)]  # [P (P - 1) / 2]
        self.scale = float((self._target**2).sum())
        self.best, self.least = np.empty(0), np.inf

    def descend(self, start: np.ndarray, tolerance: float) -> None:
        """Search from a start, and keep the result if it is the best."""
        vectors, stress = self._minimum(start, tolerance)
        if stress < self.least:
            self.best, self.least = vectors, stress

    def keep(self, vectors: np.ndarray) -> None:
        """Keep vectors as they are if they are the best."""
        stress = self.stress(vectors.ravel(), vectors.shape)[0]
        if stress < self.least:
            self.best, self.least = vectors, stress

    def polished(self) -> np.ndarray:
        """Return the best vectors after a last search, as far as rounding lets it."""
        return self._minimum(self.best, _FINE)[0]

    def _minimum(self, start: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
        from scipy.optimize import minimize

        options = {"ftol": tolerance, "gtol": 1e-12, "maxcor": 20, "maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS}
        result = minimize(self.stress, start.ravel(), (start.shape,), jac=True, method="L-BFGS-B", options=options)
        vectors = result.x.reshape(start.shape)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), float(result.fun)

    def stress(self, flat: np.ndarray, shape: tuple[int, int]) -> tuple[float, np.ndarray]:
        """Return Σ (d - angle)² / Σ d² of the directions of vectors [P, k], and its derivative [P k] by them."""
        from scipy.spatial.distance import squareform

        vectors = flat.reshape(shape)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / length
        angle = pairwise_angles(unit)
        error, sine = angle - self._target, np.sin(angle)
        # d angle(z, y) / dz = -y / sin(angle) along the sphere.
        pull = squareform(2 * error / np.maximum(sine, 1e-12)) @ unit
        slope = (pull * unit).sum(1, keepdims=True) * unit - pull
        return float(error @ error) / self.scale, (slope / (length * self.scale)).ravel()


def _starts(
    matrix: np.ndarray, dimensions: int, noise: np.random.Generator, start: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Yield the vectors [P, d + 1] that searches start from."""
    values, vectors = np.linalg.eigh(np.cos(matrix))
    leading = slice(None, -dimensions - 2, -1)
    spectral = np.zeros((len(matrix), dimensions + 1))
    scaled = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0.0))
    spectral[:, : scaled.shape[1]] = scaled
    lost = np.linalg.norm(spectral, axis=1) < 1e-6  # points orthogonal to the leading axes have no direction
    spectral[lost] = noise.normal(size=(int(lost.sum()), dimensions + 1))
    yield spectral
    flat = classical_scaling(matrix, dimensions).coordinates
    radius = np.linalg.norm(flat, axis=1, keepdims=True)
    yield np.hstack([np.cos(radius), flat * np.sinc(radius / np.pi)])
    if start is not None:
        known = _padded(start, len(matrix), dimensions)
        # A new axis is a saddle until the points leave it.
        yield known + 0.05 * noise.normal(size=known.shape)


def _padded(start: np.ndarray, count: int, dimensions: int) -> np.ndarray:
    most = dimensions + 1
    fits = start.ndim == 2 and len(start) == count and 1 <= start.shape[1] <= most
    require(fits, f"start must be [{count}, <= {most}], got shape {start.shape}; drop it")
    return np.pad(start, ((0, 0), (0, most - start.shape[1])))
