"""A map on a sphere: unit vectors whose angles keep given distances as well as a sphere of that dimension can."""

from collections.abc import Iterator

import numpy as np

from losskernel.errors import require, require_integer
from losskernel.geometry.maps.scaling import Layout, classical_scaling, require_distances, signs, stress_of

# Where the search is pushed to after it has settled: noise of this length, in turn, about the best places so far.
_PUSHES = (0.3, 1.0)
# The search stands where the stress falls by a smaller share than this; the last one goes as far as rounding lets it.
_ROUGH, _FINE = 1e-10, 1e-15
# Derivative of the stress, as a share of Σ d², below which it stands still.
_STILL = 1e-6
_ITERATIONS = 5000
# A map without stress needs no other.
_EXACT = 1e-18


def spherical_mds(
    distances: np.ndarray, dimensions: int = 2, pushes: int = 4, start: np.ndarray | None = None
) -> Layout:
    """Place P things on the unit sphere S^d so that their angles come nearest to distances [P, P] in radians.

    Minimises Σ (d_ij - angle(z_i, z_j))² over pairs, by L-BFGS from two starts: the leading eigenvectors of cos(d), and
    the flat map rolled onto the sphere. The better one is pushed away and settles again, `pushes` times; the same
    numbers every time. The first axis of the places carries the most, as of the sphere's pole.

    Args:
        distances: in radians, 0 to π.
        dimensions: d of the sphere; 2 for the globe.
        pushes: further searches; they lower the stress by up to one per cent.
        start: places [P, <= d + 1] known from before; the stress is never above theirs.

    Raises:
        InputError: distances are not square, symmetric and finite, exceed π, dimensions are not >= 1, or the start
            does not match.

    Source: Lange et al. 2022, arXiv 2206.10999 (the objective).
    """
    matrix = require_distances(distances)
    greatest = float(matrix.max())
    require(greatest < np.pi + 1e-9, f"distances on a sphere are at most π, got {greatest:.4g}; use classical_scaling")
    require_integer("dimensions", dimensions, at_least=1)
    require_integer("pushes", pushes, at_least=0)
    upper = np.triu_indices(len(matrix), 1)
    sought, scale = matrix[upper], float((matrix[upper] ** 2).sum())
    if scale == 0:
        return Layout(np.eye(1, dimensions + 1).repeat(len(matrix), axis=0), 0.0)
    noise = np.random.default_rng(0)
    best, least = np.empty(0), np.inf
    for places in _starts(matrix, dimensions, noise, start):
        places, stress = _settle(sought, scale, places, _ROUGH)
        if stress < least:
            best, least = places, stress
    if start is not None:
        known = _padded(start, len(matrix), dimensions)
        stress = _stress(known.ravel(), sought, scale, known.shape)[0]
        if stress < least:
            best, least = known, stress
    for push in range(pushes if least > _EXACT else 0):
        moved = best + _PUSHES[push % len(_PUSHES)] * noise.normal(size=best.shape)
        places, stress = _settle(sought, scale, moved, _ROUGH)
        if stress < least:
            best, least = places, stress
    best, _ = _settle(sought, scale, best, _FINE)
    slope = _stress(best.ravel(), sought, scale, best.shape)[1]
    best = best @ np.linalg.eigh(best.T @ best)[1][:, ::-1]
    best *= signs(best)
    return Layout(best, *stress_of(matrix, angles(best)), settled=bool(np.abs(slope).max() < _STILL))


def angles(places: np.ndarray) -> np.ndarray:
    """Return the angles [P, P] between unit vectors [P, k], in radians; near ones keep their digits."""
    from scipy.spatial.distance import squareform

    return squareform(_angles(places))


def _starts(
    matrix: np.ndarray, dimensions: int, noise: np.random.Generator, start: np.ndarray | None
) -> Iterator[np.ndarray]:
    values, vectors = np.linalg.eigh(np.cos(matrix))
    leading = slice(None, -dimensions - 2, -1)
    spectral = np.zeros((len(matrix), dimensions + 1))
    found = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0.0))
    spectral[:, : found.shape[1]] = found
    lost = np.linalg.norm(spectral, axis=1) < 1e-6  # points that the leading axes do not see
    spectral[lost] = noise.normal(size=(int(lost.sum()), dimensions + 1))
    yield spectral
    flat = classical_scaling(matrix, dimensions).places
    radius = np.linalg.norm(flat, axis=1, keepdims=True)
    yield np.hstack([np.cos(radius), flat * np.sinc(radius / np.pi)])
    if start is not None:
        known = _padded(start, len(matrix), dimensions)
        # A new axis is a saddle until the places leave it.
        yield known + 0.05 * noise.normal(size=known.shape)


def _padded(start: np.ndarray, count: int, dimensions: int) -> np.ndarray:
    most = dimensions + 1
    fits = start.ndim == 2 and len(start) == count and 1 <= start.shape[1] <= most
    require(fits, f"start must be [{count}, <= {most}], got shape {start.shape}; drop it")
    return np.pad(start, ((0, 0), (0, most - start.shape[1])))


def _settle(sought: np.ndarray, scale: float, start: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """Return the unit vectors that a search from `start` ends in, and their stress as a share of Σ d²."""
    from scipy.optimize import minimize

    options = {"ftol": tolerance, "gtol": 1e-12, "maxcor": 20, "maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS}
    arguments = sought, scale, start.shape
    found = minimize(_stress, start.ravel(), arguments, jac=True, method="L-BFGS-B", options=options)
    places = found.x.reshape(start.shape)
    return places / np.linalg.norm(places, axis=1, keepdims=True), float(found.fun)


def _stress(flat: np.ndarray, sought: np.ndarray, scale: float, shape: tuple[int, int]) -> tuple[float, np.ndarray]:
    """Return Σ (d - angle)² / Σ d² of the directions of vectors [P, k], and its derivative [P k] by them."""
    from scipy.spatial.distance import squareform

    vectors = flat.reshape(shape)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    places = vectors / length
    angle = _angles(places)
    wrong, sine = angle - sought, np.sin(angle)
    # d angle(z, y) / dz = -y / sin(angle) along the sphere.
    pull = squareform(2 * wrong / np.maximum(sine, 1e-12)) @ places
    slope = (pull * places).sum(1, keepdims=True) * places - pull
    return float(wrong @ wrong) / scale, (slope / (length * scale)).ravel()


def _angles(places: np.ndarray) -> np.ndarray:
    """Return the angles of all pairs, [P (P - 1) / 2]."""
    from scipy.spatial.distance import pdist

    chord = np.minimum(pdist(places), 2.0)
    return 2 * np.arctan2(chord, np.sqrt(4 - chord**2))
