"""Cosines without each of the probes, for errors of whatever follows from cosines."""

import numpy as np

from losskernel.analyses.joint.kernels import SPACE
from losskernel.geometry.statistics.significance import products_without
from losskernel.representations.points import PointSet

# 90 % of a normal law lie within so many standard errors.
NORMAL = 1.6449


class LeftOut:
    """Cosines of some points with each probe left out in turn; every kernel is centred once.

    Source: Efron & Stein 1981 (jackknife).
    """

    def __init__(self, points: PointSet) -> None:
        self._points = points
        self._centred: dict[int, np.ndarray] = {}
        self._products: dict[tuple[int, int], np.ndarray] = {}

    def cosines(self, a: int, b: int) -> np.ndarray:
        """Return the cosines [N] between two points, each probe left out in turn."""
        return self._product(a, b) / np.sqrt(self._product(a, a) * self._product(b, b))

    def angles(self, a: int, b: int) -> np.ndarray:
        """Return the angles [N], as `cosines`."""
        return np.arccos(np.clip(self.cosines(a, b), -1.0, 1.0))

    def _product(self, a: int, b: int) -> np.ndarray:
        pair = (min(a, b), max(a, b))
        if pair not in self._products:
            self._products[pair] = products_without(self._kernel(a), self._kernel(b), SPACE.centring)
        return self._products[pair]

    def _kernel(self, number: int) -> np.ndarray:
        if number not in self._centred:
            kernel = SPACE.centred(self._points.placed[number].point)
            self._centred[number] = kernel / np.linalg.norm(kernel)
        return self._centred[number]
