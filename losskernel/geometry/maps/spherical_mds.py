"""Maps on a sphere, whose angles keep given distances as well as they can, and how many dimensions a map needs."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.distance import squareform

from losskernel.errors import require, require_integer
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.maps.linear import (
    Layout,
    TangentLayout,
    angles,
    axis_signs,
    classical_scaling,
    require_distances,
    stress_of,
    tangent_pca,
)

METHODS = ("spherical", "tangent", "classical")
_RESTARTS = 1  # of spherical maps, which are not drawn here
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
        search.keep(known := _padded(start, len(matrix), dimensions), search.stress(known.ravel(), known.shape)[0])
    for restart in range(restarts if search.least > _EXACT else 0):
        moved = search.best + _NOISE[restart % len(_NOISE)] * noise.normal(size=search.best.shape)
        search.descend(moved, _ROUGH)
    best = search.minimum(search.best, _FINE)[0]  # as far as rounding lets it
    slope = search.stress(best.ravel(), best.shape)[1]
    best = best @ np.linalg.eigh(best.T @ best)[1][:, ::-1]  # onto principal axes, a rotation that keeps all angles
    best *= axis_signs(best)
    return Layout(best, *stress_of(matrix, squareform(angles(best))), converged=bool(np.abs(slope).max() < _STATIONARY))


class _Search:
    """Minimises the stress of unit vectors [P, k], and holds the best ones."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._target = matrix[np.triu_indices(len(matrix), 1)]  # [P (P - 1) / 2]
        self.scale = float((self._target**2).sum())
        self.best, self.least = np.empty(0), np.inf

    def descend(self, start: np.ndarray, tolerance: float) -> None:
        """Search from a start, and keep the result if it is the best."""
        self.keep(*self.minimum(start, tolerance))

    def keep(self, vectors: np.ndarray, stress: float) -> None:
        """Keep vectors of a known stress if they are the best."""
        if stress < self.least:
            self.best, self.least = vectors, stress

    def minimum(self, start: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
        """Return the vectors at which a search from a start ends, and their stress."""
        options = {"ftol": tolerance, "gtol": 1e-12, "maxcor": 20, "maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS}
        result = minimize(self.stress, start.ravel(), (start.shape,), jac=True, method="L-BFGS-B", options=options)
        vectors = result.x.reshape(start.shape)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), float(result.fun)

    def stress(self, flat: np.ndarray, shape: tuple[int, int]) -> tuple[float, np.ndarray]:
        """Return Σ (d - angle)² / Σ d² of the directions of vectors [P, k], and its derivative [P k] by them."""
        vectors = flat.reshape(shape)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / length
        angle = angles(unit)
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


class StressCurve(NamedTuple):
    """The stress of maps of the same points in several dimensions."""

    dimensions: np.ndarray  # [k], ascending
    stress: np.ndarray  # [k], share of the distances that each map gets wrong
    raw: np.ndarray  # [k], sums of squares over pairs


def stress_curve(
    arrangement: Arrangement, dimensions: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10), method: str = "spherical"
) -> StressCurve:
    """Return the stress of maps in several dimensions, at most P - 1.

    Spherical maps are searched from those of fewer dimensions too, so that their stress never rises.

    Raises:
        InputError: `method` is unknown, or a dimension is not >= 1.
    """
    stress_in = _maps(arrangement, method)
    most = max(len(arrangement) - 1, 1)
    chosen = sorted({min(count, most) for count in dimensions})
    stress, raw = np.array([stress_in(count) for count in chosen]).reshape(-1, 2).T
    return StressCurve(np.array(chosen), stress, raw)


def dimensions_needed(arrangement: Arrangement, method: str = "spherical", recovered: float = 0.95) -> int:
    """Return the fewest dimensions that recover a share of the fall in raw stress from one dimension to all, P - 1.

    By bisection: the stress of spherical maps never rises with the dimension, that of linear ones hardly ever.

    Raises:
        InputError: `method` is unknown, or `recovered` does not lie in 0 to 1.

    Source: repsim 0.8, its authors' rule; 0.99 in their main script.
    """
    require(0 <= recovered <= 1, f"recovered must lie between 0 and 1, got {recovered!r}; e.g. recovered=0.95")
    stress_in = _maps(arrangement, method)
    enough, too_few = max(len(arrangement) - 1, 1), 0
    first, last = stress_in(1)[1], stress_in(enough)[1]
    allowed = first - recovered * (first - last)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if stress_in(middle)[1] <= allowed:
            enough = middle
        else:
            too_few = middle
    return enough


def _maps(arrangement: Arrangement, method: str) -> Callable[[int], tuple[float, float]]:
    """Return a function of the dimensions that gives the share and the raw stress of a map, each made once."""
    require(method in METHODS, f"method must be one of {METHODS}, got {method!r}")
    made: dict[int, Layout | TangentLayout] = {}

    def mapped(dimensions: int) -> Layout | TangentLayout:
        if method == "tangent":
            return tangent_pca(arrangement, dimensions)
        if method == "classical":
            return classical_scaling(arrangement.distances, dimensions)
        # searched from the last map of fewer dimensions
        fewer = max((count for count in made if count < dimensions), default=None)
        start = None if fewer is None else made[fewer].coordinates
        return spherical_mds(arrangement.distances, dimensions, _RESTARTS, start)

    def stress_in(dimensions: int) -> tuple[float, float]:
        if dimensions not in made:
            made[dimensions] = mapped(dimensions)
        return made[dimensions].stress, made[dimensions].raw

    return stress_in
