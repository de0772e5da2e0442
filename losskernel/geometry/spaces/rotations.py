"""Arrays up to rotation of their columns: factors of kernels, of which only X Xᵀ is known."""

from collections.abc import Sequence

import numpy as np

from losskernel.errors import require
from losskernel.geometry.spaces.manifold import Manifold, between
from losskernel.geometry.spaces.sphere import Sphere

# Squared distances below this share of the squared norms are taken from aligned factors, which lose no digits.
_CLOSE = 1e-5
# Singular values below this share leave an alignment free.
_FREE = 1e-12


class UpToRotation(Manifold):
    """Factors [N, d] of any width on a sphere or in flat space; X and X R are one point for orthogonal R.

    A factor narrower than another has zero columns added. Tangents belong to one factor of their point. `log` gives
    horizontal ones, Xᵀ v symmetric, the shortest that lead to a kernel; the part X A with skew A turns the factor and
    leaves the point where it is. Parallel transport is that of the factors: it keeps lengths and inner products, but
    a horizontal tangent may gain a part that only turns.

    Source: Williams et al. 2021, arXiv 2110.14739 (the metrics); Bhatia et al. 2019 (the same from kernels).
    """

    def __init__(self, factors: Manifold) -> None:
        self.factors = factors

    def length(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the distance after the best rotation, from the sum of singular values of Xᵀ Y."""
        squares = float(np.square(x).sum() + np.square(y).sum())
        overlap = float(np.linalg.svd(x.T @ y, compute_uv=False).sum())
        between = squares - 2 * overlap
        if between < _CLOSE * squares:
            return self.factors.length(*aligned(x, y)[:2])
        chord = float(np.sqrt(between))
        return 2 * float(np.arctan2(chord, np.sqrt(squares + 2 * overlap))) if self._round else chord

    def log(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the horizontal tangent at x to the nearest turn of y."""
        return self.factors.log(*aligned(x, y)[:2])

    def exp(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return the geodesic of the horizontal part of a tangent, turned by the rest."""
        from scipy.linalg import expm

        wide, tangent = _widened([x, tangent])
        skew = turning(wide, tangent)
        return self.factors.exp(wide, tangent - wide @ skew) @ expm(skew)

    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return Σ v_ij w_ij."""
        return self.factors.inner(x, *_widened([first, second]))

    def angle(self, a: np.ndarray, vertex: np.ndarray, b: np.ndarray) -> float:
        """Return the angle in radians between the shortest of the geodesics from a vertex to a and to b.

        What turns columns of zeros at the vertex moves no point: of all such turns of b the one nearest to a counts.

        Raises:
            InputError: one of the two is the vertex.
        """
        wide, first, second = _widened([vertex, self.log(vertex, a), self.log(vertex, b)])
        values, axes = np.linalg.eigh(wide.T @ wide)
        free = axes[:, values <= _FREE * values[-1]]
        left, _, right = np.linalg.svd((first @ free).T @ (second @ free))
        turned = right.T @ left.T - np.eye(free.shape[1])
        return between(self, wide, first, second + second @ free @ turned @ free.T)

    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return the tangent moved to the nearest turn of y, and turned back with it."""
        width = max(x.shape[1], y.shape[1], tangent.shape[1])
        start, end, rotation = aligned(x, y, width)
        return self.factors.transport(start, end, _wide(tangent, width)) @ rotation.T

    def along(self, x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
        """Return the point on the geodesic between aligned factors."""
        start, end, _ = aligned(x, y)
        return self.factors.along(start, end, fraction)

    def check(self, x: np.ndarray, tangent: np.ndarray) -> None:
        """Raise InputError unless `tangent` has a row for each input."""
        rows = tangent.ndim == 2 and len(tangent) == len(x)
        require(rows, f"tangent must be [{len(x)}, d], got shape {tangent.shape}; take it from log at the same point")
        self.factors.check(*_widened([x, tangent]))

    def stacked(self, tangents: Sequence[np.ndarray]) -> np.ndarray:
        """Return tangents [T, N, d] at one point, narrow ones with zero columns."""
        return np.stack(_widened(tangents))

    def mean(self, points: Sequence[np.ndarray], steps: int = 1000) -> np.ndarray:
        """Return the Fréchet mean of factors."""
        return super().mean(_widened(points), steps)

    @property
    def _round(self) -> bool:
        return isinstance(self.factors, Sphere)


def aligned(x: np.ndarray, y: np.ndarray, width: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return X, Y R and the orthogonal R that minimises |X - Y R|, all as wide as the wider one.

    With Xᵀ Y = A S Bᵀ it is R = B Aᵀ; what singular values of zero leave free turns as little as it can.
    """
    width = max(width, x.shape[1], y.shape[1])
    x, y = _wide(x, width), _wide(y, width)
    left, values, right = np.linalg.svd(x.T @ y)
    free = values <= _FREE * np.linalg.norm(x) * np.linalg.norm(y)
    rotation = right[~free].T @ left[:, ~free].T
    if free.any():
        a, b = left[:, free], right[free].T
        u, _, w = np.linalg.svd(b.T @ a)
        rotation += b @ u @ w @ a.T
    return x, y @ rotation, rotation


def turning(x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Return the skew A with Xᵀ (v - X A) symmetric: the turn within a tangent.

    It solves (XᵀX) A + A (XᵀX) = Xᵀv - vᵀX, here in the axes of XᵀX, so that columns of zeros do no harm.
    """
    values, axes = np.linalg.eigh(x.T @ x)
    product = x.T @ tangent
    skew = axes.T @ (product - product.T) @ axes
    sums = values[:, None] + values
    scaled = np.divide(skew, sums, out=np.zeros_like(skew), where=sums > _FREE * values[-1])
    return axes @ scaled @ axes.T


def _wide(x: np.ndarray, width: int) -> np.ndarray:
    return x if x.shape[1] == width else np.pad(x, ((0, 0), (0, width - x.shape[1])))


def _widened(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    width = max(each.shape[1] for each in arrays)
    return [_wide(each, width) for each in arrays]
