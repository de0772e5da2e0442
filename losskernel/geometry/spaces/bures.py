"""Shapes of representations: distances after the best rotation of features, from features or kernels alone."""

from dataclasses import dataclass

import numpy as np

from losskernel.errors import require
from losskernel.geometry.centring import centred
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.manifold import Flat
from losskernel.geometry.spaces.rotations import UpToRotation
from losskernel.geometry.spaces.space import Space
from losskernel.geometry.spaces.sphere import Sphere

# Rounding leaves about this much of features that do not vary over the inputs.
_NOTHING = 1e-10


class _Shapes(Space):
    """Centred factors up to rotation."""

    curvature = "positive"

    def _read(self, point: Point, name: str) -> np.ndarray:
        return factor(point, name)

    def _point(self, values: np.ndarray, ids: np.ndarray) -> Point:
        # A kernel would keep but half of the digits of small singular values.
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
    """Return X [N, d] with X Xᵀ the doubly centred kernel of a point; no columns where nothing is left.

    Raises:
        InputError: the kernel is not positive semi-definite.
    """
    if point.factor is not None:
        values = point.factor.astype(np.float64, copy=False)
        middle = values - values.mean(axis=0)
        nothing = np.linalg.norm(middle) <= _NOTHING * np.linalg.norm(values)
        return np.zeros((point.inputs, 1)) if nothing else middle
    gram = point.gram()
    values, axes = np.linalg.eigh(centred(gram, "double"))
    single = point.triangle is not None and point.triangle.dtype == np.float32
    largest = point.inputs * float(np.abs(gram).max())
    least = float(values[0])
    require(
        least >= -(1e-5 if single else 1e-9) * max(largest, 0.0),
        f"{name} is not positive semi-definite: eigenvalues from {least:.3g} to {values[-1]:.3g}; shapes have kernels "
        "of features only, take double-centred ones or another space",
    )
    kept = values > 10 * np.finfo(np.float32 if single else np.float64).eps * largest
    return axes[:, kept] * np.sqrt(values[kept]) if kept.any() else np.zeros((point.inputs, 1))
