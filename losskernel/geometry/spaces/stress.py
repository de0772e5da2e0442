"""Stress: the difference of two representations in the distances between inputs."""

from dataclasses import dataclass, replace

import numpy as np

from losskernel.errors import require
from losskernel.geometry.point import Point, pairwise_distances
from losskernel.geometry.spaces.manifold import Flat
from losskernel.geometry.spaces.space import Space

_RESCALED = "rescaled"  # `centring` of a point whose distances were divided by their median
_ROUNDING = 1e-10  # negative distances that rounding may leave, relative to the longest


@dataclass(frozen=True)
class Stress(Space):
    """The root mean square difference between two sets of distances sqrt(K_ii + K_jj - 2 K_ij) over pairs of inputs.

    A flat space. A point on a geodesic has the kernel -½ D² of its distances D; doubly centred it is that of classical
    scaling, and need not be positive semi-definite.

    Attributes:
        rescale: divide distances by their median first, for invariance under scale. Geodesics are then those of the
            flat space around such points, whose medians are near 1.
    """

    rescale: bool = True

    manifold = Flat()
    curvature = "zero"
    invariances = frozenset({"translation", "rotation"})

    def __post_init__(self) -> None:
        require(isinstance(self.rescale, bool), f"rescale must be true or false, got {self.rescale!r}")
        if self.rescale:
            object.__setattr__(self, "invariances", self.invariances | {"scale"})

    def _read(self, point: Point, name: str) -> np.ndarray:
        apart = _distances(point)[np.triu_indices(point.inputs, 1)]
        if self.rescale and point.centring != _RESCALED:
            median = float(np.median(apart))
            require(median > 0, f"{name} has median distance 0: half of the pairs are equal; take rescale=False")
            apart = apart / median
        return apart / np.sqrt(len(apart))  # so that the norm is the root mean square

    def _point(self, values: np.ndarray, ids: np.ndarray) -> Point:
        inside = values.min() >= -_ROUNDING * values.max()
        require(bool(inside), "the tangent leads to negative distances; take a shorter one")
        apart = np.zeros((len(ids), len(ids)))
        apart[np.triu_indices(len(ids), 1)] = np.maximum(values, 0.0) * np.sqrt(len(values))
        point = Point.from_gram(-((apart + apart.T) ** 2) / 2, ids)
        return replace(point, centring=_RESCALED) if self.rescale else point


def _distances(point: Point) -> np.ndarray:
    """Return the distances [N, N] between inputs."""
    if point.factor is None:
        return pairwise_distances(point.gram())
    features = point.factor.astype(np.float64, copy=False)
    features = features - features.mean(axis=0)  # a common offset would cost digits
    return pairwise_distances(features @ features.T)
