"""How many dimensions a map of points needs: its stress by their number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.maps.linear import Layout, TangentLayout, classical_scaling, tangent_pca
from losskernel.geometry.maps.spherical_mds import spherical_mds

METHODS = ("spherical", "tangent", "classical")
_RESTARTS = 1  # of spherical maps, which are not drawn here


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
    map_in = _Maps(arrangement, method)
    most = max(len(arrangement) - 1, 1)
    chosen = sorted({min(count, most) for count in dimensions})
    stress, raw = np.array([map_in(count) for count in chosen]).reshape(-1, 2).T
    return StressCurve(np.array(chosen), stress, raw)


def dimensions_needed(arrangement: Arrangement, method: str = "spherical", recovered: float = 0.95) -> int:
    """Return the fewest dimensions that recover a share of the fall in raw stress from one dimension to all, P - 1.

    By bisection: the stress of spherical maps never rises with the dimension, that of linear ones hardly ever.

    Raises:
        InputError: `method` is unknown, or `recovered` does not lie in 0 to 1.

    Source: repsim 0.8, its authors' rule; 0.99 in their main script.
    """
    require(0 <= recovered <= 1, f"recovered must lie between 0 and 1, got {recovered!r}; e.g. recovered=0.95")
    map_in = _Maps(arrangement, method)
    enough, too_few = max(len(arrangement) - 1, 1), 0
    first, last = map_in(1)[1], map_in(enough)[1]
    allowed = first - recovered * (first - last)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if map_in(middle)[1] <= allowed:
            enough = middle
        else:
            too_few = middle
    return enough


class _Maps:
    """Maps by their dimension, each made once; spherical ones are searched from the last one of fewer dimensions."""

    def __init__(self, arrangement: Arrangement, method: str) -> None:
        require(method in METHODS, f"method must be one of {METHODS}, got {method!r}")
        self._arrangement, self._method = arrangement, method
        self._made: dict[int, Layout | TangentLayout] = {}

    def __call__(self, dimensions: int) -> tuple[float, float]:
        """Return the share and the raw stress."""
        if dimensions not in self._made:
            self._made[dimensions] = self._map(dimensions)
        layout = self._made[dimensions]
        return layout.stress, layout.raw

    def _map(self, dimensions: int) -> Layout | TangentLayout:
        if self._method == "tangent":
            return tangent_pca(self._arrangement, dimensions)
        if self._method == "classical":
            return classical_scaling(self._arrangement.distances, dimensions)
        fewer = max((made for made in self._made if made < dimensions), default=None)
        start = None if fewer is None else self._made[fewer].coordinates
        return spherical_mds(self._arrangement.distances, dimensions, _RESTARTS, start)
