"""How some points of a space stand to each other: all that their geometry needs, however large the kernels are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Distances between points, and where the space is a sphere their cosines.

    On a sphere every angle, projection and length follows from the cosines in closed form; elsewhere from the
    distances, by Euclidean triangles with the same sides ("comparison triangles": exact in a flat space).

    Attributes:
        distances: [P, P], in the space's units.
        cosines: [P, P] inner products of the points on a unit sphere; None where the space is none.
    """

    distances: np.ndarray
    cosines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.distances)

    def of(self, chosen: Sequence[int] | np.ndarray) -> "Arrangement":
        """Return the arrangement of some of the points, in the order given."""
        numbers = np.asarray(chosen)
        pairs = numbers[:, None], numbers
        return Arrangement(self.distances[pairs], None if self.cosines is None else self.cosines[pairs])
