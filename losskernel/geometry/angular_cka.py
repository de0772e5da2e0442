"""Angular CKA: the angle between two centred kernels, a true metric on representations of the same inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from losskernel.errors import require
from losskernel.geometry.point import Point, upper_triangle

CENTRINGS = ("u", "double", "masked")
# Rounding leaves about this much of a kernel that centring should remove whole.
_NOTHING = 1e-10


@dataclass(frozen=True)
class AngularCKA:
    """The sphere of centred kernels of unit norm: length(p, q) = arccos <C(K), C(L)> / (|C(K)| |C(L)|).

    A great-circle distance, therefore symmetric, zero between kernels that differ by scale only, and bound by the
    triangle inequality. It does not change when features are rotated, shifted or scaled, nor when the inputs are
    permuted jointly. In radians; the cosine is the CKA.

    centring "double" is H K H with H = I - 11ᵀ/N, the usual CKA, biased upwards for many features and few inputs;
    "masked" sets its diagonal to zero afterwards; "u" is U-centring, for which <U(K), U(L)> / (N (N - 3)) equals
    the unbiased estimate of HSIC, so that unrelated representations stand at π/2 whatever their width.

    Sources: Lange et al. 2022, arXiv 2206.10999 (the metric); Székely & Rizzo 2014, Song et al. 2012 (U-centring).

    Attributes:
        centring: "u", "double" or "masked".
    """

    centring: str = "u"

    def __post_init__(self) -> None:
        require(self.centring in CENTRINGS, f"centring must be one of {CENTRINGS}, got {self.centring!r}")

    def length(self, p: Point, q: Point) -> float:
        """Return the distance between two points, in radians.

        Raises:
            InputError: the points stand over different inputs, or centring leaves nothing of one.
        """
        return float(self.distances([p, q])[0, 1])

    def gram(self, points: Sequence[Point]) -> np.ndarray:
        """Return the cosines [P, P] between centred kernels: the CKA of every pair.

        Raises:
            InputError: as for `length`.
        """
        rows = self.coordinates(points)
        return np.clip(rows @ rows.T, -1.0, 1.0)

    def distances(self, points: Sequence[Point]) -> np.ndarray:
        """Return the distances [P, P] in radians.

        By 2 atan2(|p - q|, |p + q|): arccos would lose all distances below 1e-8 to rounding.

        Raises:
            InputError: as for `length`.
        """
        rows = self.coordinates(points)
        result = np.zeros((len(rows), len(rows)))
        for i, own in enumerate(rows):
            for j in range(i):
                chord, across = np.linalg.norm(own - rows[j]), np.linalg.norm(own + rows[j])
                result[i, j] = result[j, i] = 2 * np.arctan2(chord, across)
        return result

    def coordinates(self, points: Sequence[Point]) -> np.ndarray:
        """Return unit vectors [P, N (N + 1) / 2] whose inner products are those of the centred kernels.

        Raises:
            InputError: as for `length`.
        """
        require(len(points) > 0, "coordinates() got no points; give at least one")
        first = points[0]
        for place, point in enumerate(points):
            same = np.array_equal(point.ids, first.ids)
            require(same, f"points 0 and {place} stand over different inputs; compare kernels of the same inputs")
        least = 4 if self.centring == "u" else 2
        require(
            first.inputs >= least, f"{self.centring}-centring needs >= {least} inputs, got {first.inputs}; add more"
        )
        # Off the diagonal each entry stands for two.
        weight = upper_triangle(np.where(np.eye(first.inputs, dtype=bool), 1.0, np.sqrt(2.0)))
        rows = np.empty((len(points), first.triangle.size))
        for place, point in enumerate(points):
            centred = upper_triangle(self._centred(point.gram())) * weight
            norm, before = np.linalg.norm(centred), np.linalg.norm(point.triangle * weight)
            require(
                bool(norm > _NOTHING * before),
                f"point {place} is white: {self.centring}-centring leaves nothing of its kernel; it has no direction",
            )
            rows[place] = centred / norm
        return rows

    def _centred(self, kernel: np.ndarray) -> np.ndarray:
        count = len(kernel)
        own = np.eye(count, dtype=bool)
        if self.centring == "u":
            kernel = np.where(own, 0.0, kernel)
            means, mean = kernel.sum(0) / (count - 2), kernel.sum() / ((count - 1) * (count - 2))
        else:
            means, mean = kernel.mean(0), kernel.mean()
        centred = kernel - means[:, None] - means + mean
        return centred if self.centring == "double" else np.where(own, 0.0, centred)
