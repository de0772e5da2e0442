"""Shapes of representations: distances after the best rotation of features, from features or kernels alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from losskernel.errors import require
from losskernel.geometry.centring import centred
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.manifold import Flat, Manifold, Sphere, tangent_angle
from losskernel.geometry.spaces.space import Space

# Squared distances below this share of the squared norms are computed from aligned factors, which lose no digits.
_CLOSE = 1e-5
# Relative size below which singular values do not determine an alignment.
_FREE = 1e-12
# Relative size below which centred features are rounding: they do not vary over the inputs.
_ROUNDING = 1e-10


class UpToRotation(Manifold):
    """Factors [N, d] of any width on a sphere or in flat space; X and X R are one point for orthogonal R.

    A factor narrower than another is padded with zero columns. Tangents belong to one factor of their point. `log`
    gives horizontal ones, Xᵀ v symmetric, the shortest that lead to a kernel; the vertical part X A with skew A
    rotates the factor and moves no point. Parallel transport is that of the factors: it keeps lengths and inner
    products, but a horizontal tangent may gain a vertical part.

    Source: Williams et al. 2021, arXiv 2110.14739 (the metrics); Bhatia et al. 2019 (the same from kernels).
    """

    def __init__(self, factors: Manifold) -> None:
        self.factors = factors

    def length(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the distance after the best rotation, from the sum of singular values of Xᵀ Y."""
        squares = float(np.square(x).sum() + np.square(y).sum())
        overlap = float(np.linalg.svd(x.T @ y, compute_uv=False).sum())
        difference = squares - 2 * overlap  # |X - Y R|²
        if difference < _CLOSE * squares:
            return self.factors.length(*aligned(x, y)[:2])
        chord = float(np.sqrt(difference))
        return 2 * float(np.arctan2(chord, np.sqrt(squares + 2 * overlap))) if self._round else chord

    def log(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the horizontal tangent at x to the nearest rotation of y."""
        return self.factors.log(*aligned(x, y)[:2])

    def exp(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return the end of the geodesic along the horizontal part of a tangent, rotated by the vertical part."""
        from scipy.linalg import expm

        wide, tangent = _padded_alike([x, tangent])
        skew = vertical(wide, tangent)
        return self.factors.exp(wide, tangent - wide @ skew) @ expm(skew)

    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return Σ v_ij w_ij."""
        return self.factors.inner(x, *_padded_alike([first, second]))

    def angle(self, a: np.ndarray, vertex: np.ndarray, b: np.ndarray) -> float:
        """Return the angle in radians between the shortest of the geodesics from a vertex to a and to b.

        Rotating columns of zeros at the vertex moves no point: of all such rotations of b the one nearest to a counts.

        Raises:
            InputError: one of the two is the vertex.
        """
        wide, first, second = _padded_alike([vertex, self.log(vertex, a), self.log(vertex, b)])
        values, axes = np.linalg.eigh(wide.T @ wide)
        free = axes[:, values <= _FREE * values[-1]]
        left, _, right = np.linalg.svd((first @ free).T @ (second @ free))
        turned = right.T @ left.T - np.eye(free.shape[1])
        return tangent_angle(self, wide, first, second + second @ free @ turned @ free.T)

    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return the tangent transported to the nearest rotation of y, and rotated back with it."""
        width = max(x.shape[1], y.shape[1], tangent.shape[1])
        start, end, rotation = aligned(x, y, width)
        return self.factors.transport(start, end, _padded(tangent, width)) @ rotation.T

    def along(self, x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
        """Return the point on the geodesic between aligned factors."""
        start, end, _ = aligned(x, y)
        return self.factors.along(start, end, fraction)

    def check(self, x: np.ndarray, tangent: np.ndarray) -> None:
        """Raise InputError unless `tangent` has a row for each input."""
        rows = tangent.ndim == 2 and len(tangent) == len(x)
        require(rows, f"tangent must be [{len(x)}, d], got shape {tangent.shape}; take it from log at the same point")
        self.factors.check(*_padded_alike([x, tangent]))

    def stacked(self, tangents: Sequence[np.ndarray]) -> np.ndarray:
        """Return tangents [T, N, d] at one point, narrow ones with zero columns."""
        return np.stack(_padded_alike(tangents))

    def mean(self, points: Sequence[np.ndarray], steps: int = 1000) -> np.ndarray:
        """Return the Fréchet mean of factors."""
        return super().mean(_padded_alike(points), steps)

    @property
    def _round(self) -> bool:
        return isinstance(self.factors, Sphere)


def aligned(x: np.ndarray, y: np.ndarray, width: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return X, Y R and the orthogonal R that minimises |X - Y R|, padded to the wider one.

    With Xᵀ Y = A S Bᵀ it is R = B Aᵀ; where singular values of zero leave it free, it rotates as little as possible.
    """
    width = max(width, x.shape[1], y.shape[1])
    x, y = _padded(x, width), _padded(y, width)
    left, values, right = np.linalg.svd(x.T @ y)
    free = values <= _FREE * np.linalg.norm(x) * np.linalg.norm(y)
    rotation = right[~free].T @ left[:, ~free].T
    if free.any():
        a, b = left[:, free], right[free].T
        u, _, w = np.linalg.svd(b.T @ a)
        rotation += b @ u @ w @ a.T
    return x, y @ rotation, rotation


def vertical(x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Return the skew A with Xᵀ (v - X A) symmetric: the rotation within a tangent.

    It solves (XᵀX) A + A (XᵀX) = Xᵀv - vᵀX, here in the axes of XᵀX, where columns of zeros cause no division by zero.
    """
    values, axes = np.linalg.eigh(x.T @ x)
    product = x.T @ tangent
    skew = axes.T @ (product - product.T) @ axes
    sums = values[:, None] + values
    scaled = np.divide(skew, sums, out=np.zeros_like(skew), where=sums > _FREE * values[-1])
    return axes @ scaled @ axes.T


def _padded(x: np.ndarray, width: int) -> np.ndarray:
    return x if x.shape[1] == width else np.pad(x, ((0, 0), (0, width - x.shape[1])))


def _padded_alike(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    width = max(array.shape[1] for array in arrays)
    return [_padded(array, width) for array in arrays]


class _Shapes(Space):
    """Centred factors up to rotation."""

    curvature = "positive"

    def _read(self, point: Point, name: str) -> np.ndarray:
        return factor(point, name)

    def _point(self, values: np.ndarray, ids: np.ndarray) -> Point:
        # A kernel would keep only half of the digits of small singular values.
        return Point(ids, factor=values)


@dataclass(frozen=True)
class Shape(_Shapes):
    """The Euclidean shape metric: length(p, q) = min over rotations R of |X - Y R|, columns centred.

    From kernels alone sqrt(tr K + tr L - 2 tr (K^½ L K^½)^½), both doubly centred (Bures and Wasserstein). In the
    units of the features, which it does not scale. Widths need not match. Kernels must be positive semi-definite.

    Sources: Williams et al. 2021, arXiv 2110.14739; Bhatia et al. 2019.
    """

    manifold = UpToRotation(Flat())
    invariances = frozenset({"translation", "rotation"})


@dataclass(frozen=True)
class Bures(_Shapes):
    """The angle between shapes: cos length(p, q) = tr (K^½ L K^½)^½ / sqrt(tr K tr L), K and L doubly centred.

    From features the sum of singular values of Xᵀ Y over |X| |Y|: the angular Procrustes distance. In radians, 0 to
    π/2. Kernels must be positive semi-definite.

    Sources: Williams et al. 2021, arXiv 2110.14739; Bhatia et al. 2019.
    """

    manifold = UpToRotation(Sphere())
    invariances = frozenset({"translation", "rotation", "scale"})
    unit = "rad"

    def _read(self, point: Point, name: str) -> np.ndarray:
        values = factor(point, name)
        size = np.linalg.norm(values)
        require(bool(size > 0), f"{name} is constant: nothing is left of its kernel when centred; it has no direction")
        return values / size


def factor(point: Point, name: str = "the point") -> np.ndarray:
    """Return X [N, d] with X Xᵀ the doubly centred kernel of a point; one column of zeros for a constant kernel.

    Raises:
        InputError: the kernel is not positive semi-definite.
    """
    if point.factor is not None:
        values = point.factor.astype(np.float64, copy=False)
        middle = values - values.mean(axis=0)
        constant = np.linalg.norm(middle) <= _ROUNDING * np.linalg.norm(values)
        return np.zeros((point.inputs, 1)) if constant else middle
    gram = point.gram()
    values, axes = np.linalg.eigh(centred(gram, "double"))
    single = point.triangle is not None and point.triangle.dtype == np.float32
    largest = point.inputs * float(np.abs(gram).max())
    positive = float(values[0]) >= -(1e-5 if single else 1e-9) * max(largest, 0.0)
    why = f"eigenvalues from {values[0]:.3g} to {values[-1]:.3g}; shapes need kernels of features"
    require(positive, f"{name} is not positive semi-definite: {why}; take double-centred ones or another space")
    kept = values > 10 * np.finfo(np.float32 if single else np.float64).eps * largest
    return axes[:, kept] * np.sqrt(values[kept]) if kept.any() else np.zeros((point.inputs, 1))
