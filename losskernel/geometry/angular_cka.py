"""Angular CKA: the angle between two centred kernels, a true metric on representations of the same inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.centring import (
    centred,
    chords,
    flattened,
    least_inputs,
    products,
    require_centring,
)
from losskernel.geometry.point import Point, require_same_inputs

# Rounding leaves about this much of a kernel that centring should remove whole.
_NOTHING = 1e-10
# Cosines nearer to ±1 than this lose digits of the angle, which the chord keeps.
_CLOSE = 1e-5


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
        require_centring(self.centring)

    def length(self, p: Point, q: Point) -> float:
        """Return the distance between two points, in radians.

        Raises:
            InputError: the points stand over different inputs, or centring leaves nothing of one.
        """
        return float(self.distances([p, q])[0, 1])

    def gram(self, points: Sequence[Point], device: Any = None) -> np.ndarray:
        """Return the cosines [P, P] between centred kernels: the CKA of every pair.

        Raises:
            InputError: as for `length`.
        """
        cosines = self.arrangement(points, device=device).cosines
        return np.empty((0, 0)) if cosines is None else cosines

    def distances(self, points: Sequence[Point], device: Any = None) -> np.ndarray:
        """Return the distances [P, P] in radians.

        By 2 atan2(|p - q|, |p + q|): arccos would lose all distances below 1e-8 to rounding.

        Raises:
            InputError: as for `length`.
        """
        return self.arrangement(points, device=device).distances

    def arrangement(self, points: Sequence[Point], known: Arrangement | None = None, device: Any = None) -> Arrangement:
        """Return how points stand to each other; of the first ones it may be known, then only new pairs are computed.

        Features are multiplied as they are, kernels read some rows at a time: memory stays bounded for any N.

        Args:
            points: P kernels over the same inputs.
            known: of the first points, in this order.
            device: torch device for the products; None for the CPU.

        Raises:
            InputError: as for `length`.
        """
        require_same_inputs(points)
        least, inputs = least_inputs(self.centring), points[0].inputs
        require(inputs >= least, f"{self.centring}-centring needs >= {least} inputs, got {inputs}; add more")
        first = 0 if known is None else len(known)
        found = products(points, self.centring, 0 if known is None else first, device)
        lengths = self._lengths(points, found.centred, first, found.raw)
        fresh = np.clip(found.centred / lengths[first:, None] / lengths, -1.0, 1.0)  # [P - first, P]
        cosines, distances = np.eye(len(points)), np.zeros((len(points), len(points)))
        if known is not None and known.cosines is not None:
            cosines[:first, :first], distances[:first, :first] = known.cosines, known.distances
        pairs = [(p, q) for p in range(first, len(points)) for q in range(p)]
        if pairs:
            left, right = np.array(pairs).T
            cosine = fresh[left - first, right]
            angle = 2 * np.arctan2(np.sqrt(1 - cosine), np.sqrt(1 + cosine))
            close = np.flatnonzero(np.abs(cosine) > 1 - _CLOSE)
            if len(close):
                chord = np.sqrt(chords(points, self.centring, [pairs[each] for each in close], lengths))
                angle[close] = 2 * np.arctan2(chord[:, 0], chord[:, 1])
            cosines[left, right] = cosines[right, left] = cosine
            distances[left, right] = distances[right, left] = angle
        return Arrangement(distances, cosines)

    def coordinates(self, points: Sequence[Point]) -> np.ndarray:
        """Return unit vectors [P, N (N + 1) / 2] whose inner products are those of the centred kernels.

        Raises:
            InputError: as for `length`.
        """
        self.arrangement(points)
        rows = np.stack([flattened(self.centred(point)) for point in points])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def centred(self, point: Point) -> np.ndarray:
        """Return the centred kernel [N, N] of a point."""
        return point.gram() if point.centring == self.centring else centred(point.gram(), self.centring)

    def _lengths(self, points: Sequence[Point], fresh: np.ndarray, first: int, raw: np.ndarray) -> np.ndarray:
        """Return |C(K)| of every point, [P]."""
        squares = np.diagonal(fresh, offset=first).copy()  # of the new points
        if first:
            old = [products([each], self.centring).centred[0, 0] for each in points[:first]]
            squares = np.concatenate([old, squares])
        lengths = np.sqrt(np.maximum(squares, 0.0))
        for place, (length, before) in enumerate(zip(lengths, np.sqrt(raw), strict=True)):
            require(
                bool(length > _NOTHING * before),
                f"point {place} is white: {self.centring}-centring leaves nothing of its kernel; it has no direction",
            )
        return lengths
