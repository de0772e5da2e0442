"""Angular CKA: the angle between two centred kernels, a true metric on representations of the same inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement, mean_weights
from losskernel.geometry.centring import CENTRINGS, centred, chords, flattened, products, unflattened
from losskernel.geometry.point import Point, require_same_inputs
from losskernel.geometry.spaces.manifold import Sphere
from losskernel.geometry.spaces.space import Space

# Relative size below which a centred kernel is rounding: centring removed all of it.
_ROUNDING = 1e-10
# Cosines nearer to ±1 than this lose digits of the angle, which chords keep.
_CLOSE = 1e-5


@dataclass(frozen=True)
class AngularCKA(Space):
    """The sphere of centred kernels of unit norm: length(p, q) = arccos <C(K), C(L)> / (|C(K)| |C(L)|).

    A great-circle distance, therefore symmetric, zero between kernels that differ by scale only, and bound by the
    triangle inequality; by 2 atan2(|p - q|, |p + q|), since arccos would lose distances below 1e-8 to rounding. It is
    invariant under rotation, translation and scaling of features and under joint permutation of the inputs. In
    radians; the cosine is the CKA.

    centring "double" is H K H with H = I - 11ᵀ/N, the usual CKA, biased upwards for many features and few inputs;
    "masked" sets its diagonal to zero afterwards; "u" is U-centring, for which <U(K), U(L)> / (N (N - 3)) equals
    the unbiased estimate of HSIC, so that unrelated representations are π/2 apart whatever their width.

    Sources: Lange et al. 2022, arXiv 2206.10999 (the metric); Székely & Rizzo 2014, Song et al. 2012 (U-centring).

    Attributes:
        centring: "u", "double" or "masked".
    """

    centring: str = "u"

    manifold = Sphere()
    curvature = "positive"
    invariances = frozenset({"translation", "rotation", "scale"})
    unit = "rad"

    def __post_init__(self) -> None:
        require(self.centring in CENTRINGS, f"centring must be one of {CENTRINGS}, got {self.centring!r}")

    def gram(self, points: Sequence[Point], device: Any = None) -> np.ndarray:
        """Return the cosines [P, P] between centred kernels: the CKA of every pair.

        Raises:
            InputError: as for `length`.
        """
        cosines = self.arrangement(points, device=device).cosines
        return np.empty((0, 0)) if cosines is None else cosines

    def arrangement(self, points: Sequence[Point], known: Arrangement | None = None, device: Any = None) -> Arrangement:
        """Return the arrangement of points; pairs of the first ones that are known are not computed again.

        Features are multiplied directly, kernels are read some rows at a time: memory stays bounded for any N.

        Args:
            points: P kernels over the same inputs.
            known: arrangement of the first points, in this order.
            device: torch device for the products; None for the CPU.

        Raises:
            InputError: as for `length`.
        """
        self._require_comparable(points)
        if known is not None and len(known) == len(points):
            return known
        first = 0 if known is None else len(known)
        computed = products(points, self.centring, first, device)
        lengths = self._lengths(points, computed.centred, first, computed.raw)
        fresh = np.clip(computed.centred / lengths[first:, None] / lengths, -1.0, 1.0)  # [P - first, P]
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
                chord = np.sqrt(chords(points, self.centring, [pairs[pair] for pair in close], lengths))
                angle[close] = 2 * np.arctan2(chord[:, 0], chord[:, 1])
            cosines[left, right] = cosines[right, left] = cosine
            distances[left, right] = distances[right, left] = angle
        return Arrangement(distances, cosines)

    def mean(self, points: Sequence[Point]) -> Point:
        """Return the Fréchet mean, a weighted sum of the centred kernels; no more than one is held at a time.

        Raises:
            InputError: the points have no mean, or as for `length`.
        """
        weights = mean_weights(self.arrangement(points))
        total = np.zeros(points[0].inputs * (points[0].inputs + 1) // 2)
        for number, (weight, point) in enumerate(zip(weights, points, strict=True)):
            total += weight * self._read(point, f"point {number}")
        return self._point(total / np.linalg.norm(total), points[0].ids)

    def coordinates(self, points: Sequence[Point]) -> np.ndarray:
        """Return unit vectors [P, N (N + 1) / 2] whose inner products are those of the centred kernels.

        Raises:
            InputError: as for `length`.
        """
        return np.stack(self._read_all(points))

    def centred(self, point: Point) -> np.ndarray:
        """Return the centred kernel [N, N] of a point."""
        return self._centred(point.gram(), point.centring)

    def _centred(self, kernel: np.ndarray, already: str | None) -> np.ndarray:
        return kernel if already == self.centring else centred(kernel, self.centring)

    def _require_comparable(self, points: Sequence[Point]) -> None:
        require_same_inputs(points)
        # U-centring leaves nothing of three inputs
        least, inputs = 4 if self.centring == "u" else 2, points[0].inputs
        require(inputs >= least, f"{self.centring}-centring needs >= {least} inputs, got {inputs}; add more")

    def _read(self, point: Point, name: str) -> np.ndarray:
        kernel = point.gram()
        values = flattened(self._centred(kernel, point.centring))
        length = np.linalg.norm(values)
        _require_direction(bool(length > _ROUNDING * np.linalg.norm(kernel)), name, self.centring)
        return values / length

    def _point(self, values: np.ndarray, ids: np.ndarray) -> Point:
        # Marked as centred: masking, which is no projection, would change it again.
        return replace(Point.from_gram(unflattened(values, len(ids)), ids), centring=self.centring)

    def _lengths(self, points: Sequence[Point], fresh: np.ndarray, first: int, raw: np.ndarray) -> np.ndarray:
        """Return |C(K)| of every point, [P]."""
        squares = np.diagonal(fresh, offset=first).copy()  # of the new points
        if first:
            old = [products([point], self.centring).centred[0, 0] for point in points[:first]]
            squares = np.concatenate([old, squares])
        lengths = np.sqrt(np.maximum(squares, 0.0))
        for number, (length, before) in enumerate(zip(lengths, np.sqrt(raw), strict=True)):
            _require_direction(bool(length > _ROUNDING * before), f"point {number}", self.centring)
        return lengths


def _require_direction(present: bool, name: str, centring: str) -> None:
    why = f"{centring}-centring leaves nothing of its kernel, for its features are constant or all alike"
    require(present, f"{name} is white: {why}; leave it out")
