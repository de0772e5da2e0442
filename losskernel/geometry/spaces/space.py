"""What every space of kernels offers: lengths, geodesics, tangents, projections and means of points."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.paths.triangles import Projection
from losskernel.geometry.point import Point, require_same_inputs
from losskernel.geometry.spaces.manifold import Manifold


class Space(ABC):
    """A metric on kernels over the same inputs, with the mathematical facts that its tests read.

    A subclass says how a point is read into the numbers of a manifold and made from them again. Tangents are arrays
    that `log` and `transport` give; those at one point may be scaled, and added where their shapes agree.

    Attributes:
        manifold: where points are once they are read.
        curvature: sign of the sectional curvatures, "positive", "zero" or "negative", the bound included; None where
            it varies.
        invariances: which of "translation", "rotation", "scale" (isotropic) and "affine" of features move no point.
        riemannian: whether tangents have an inner product.
        unit: of lengths; "" for those of the features or none.
    """

    manifold: Manifold
    curvature: str | None
    invariances: frozenset[str]
    riemannian: bool = True
    unit: str = ""

    @property
    def label(self) -> str:
        """Name in tables and figures, with every setting that changes a length."""
        return repr(self)

    def length(self, p: Point, q: Point) -> float:
        """Return the distance between two points, in the space's unit.

        Raises:
            InputError: the points stand over different inputs, or are none of this space.
        """
        return float(self.distances([p, q])[0, 1])

    def distances(self, points: Sequence[Point], device: Any = None) -> np.ndarray:
        """Return the distances [P, P].

        Raises:
            InputError: as for `length`.
        """
        return self.arrangement(points, device=device).distances

    def arrangement(self, points: Sequence[Point], known: Arrangement | None = None, device: Any = None) -> Arrangement:
        """Return how points stand to each other; of the first ones it may be known, then only new pairs are computed.

        Args:
            points: P kernels over the same inputs, each read once and held.
            known: of the first points, in this order.
            device: torch device, for spaces that are products of kernels; others compute on the CPU.

        Raises:
            InputError: as for `length`.
        """
        read = self._read_all(points)
        first = 0 if known is None else len(known)
        distances = np.zeros((len(points), len(points)))
        if known is not None:
            distances[:first, :first] = known.distances
        for p in range(first, len(points)):
            for q in range(p):
                distances[p, q] = distances[q, p] = self.manifold.length(read[p], read[q])
        return Arrangement(distances)

    def geodesic(self, p: Point, q: Point, t: float) -> Point:
        """Return the point at fraction t of the shortest path from p to q.

        Raises:
            InputError: t is not from 0 to 1 (`exp` goes further), there is no shortest path, or as for `length`.
        """
        require(0 <= t <= 1, f"t must be from 0 to 1, got {t}; go further by exp(p, t * log(p, q))")
        start, end = self._read_all([p, q])
        return self._point(self.manifold.along(start, end, t), p.ids)

    def log(self, p: Point, q: Point) -> np.ndarray:
        """Return the tangent at p that leads to q; its norm is their distance.

        Raises:
            InputError: as for `geodesic`.
        """
        return self.manifold.log(*self._read_all([p, q]))

    def exp(self, p: Point, tangent: np.ndarray) -> Point:
        """Return the point to which a tangent at p leads.

        Raises:
            InputError: the tangent is none at p, or leads out of the space.
        """
        (start,), moved = self._read_all([p]), np.asarray(tangent, dtype=np.float64)
        self.manifold.check(start, moved)
        return self._point(self.manifold.exp(start, moved), p.ids)

    def inner(self, p: Point, first: np.ndarray, second: np.ndarray) -> float:
        """Return the inner product of two tangents at p.

        Raises:
            InputError: one is no tangent at p.
        """
        (start,), pair = self._read_all([p]), [np.asarray(each, dtype=np.float64) for each in (first, second)]
        for each in pair:
            self.manifold.check(start, each)
        return self.manifold.inner(start, *pair)

    def transport(self, p: Point, q: Point, tangent: np.ndarray) -> np.ndarray:
        """Return the tangent at q that is parallel to one at p along their geodesic.

        Raises:
            InputError: the tangent is none at p, or as for `geodesic`.
        """
        (start, end), moved = self._read_all([p, q]), np.asarray(tangent, dtype=np.float64)
        self.manifold.check(start, moved)
        return self.manifold.transport(start, end, moved)

    def project(self, point: Point, a: Point, b: Point) -> Projection:
        """Return where the geodesic segment from a to b comes nearest to a point.

        Raises:
            InputError: as for `geodesic`.
        """
        return self.manifold.project(*self._read_all([point, a, b]))

    def angle(self, a: Point, b: Point, c: Point) -> float:
        """Return the angle at b between the geodesics to a and to c, in radians; π where b lies between them.

        Raises:
            InputError: a or c is b, or as for `geodesic`.
        """
        return self.manifold.angle(*self._read_all([a, b, c]))

    def mean(self, points: Sequence[Point]) -> Point:
        """Return the Fréchet mean, the point with the least sum of squared distances.

        Raises:
            InputError: the search does not settle, or as for `geodesic`.
        """
        return self._point(self.manifold.mean(self._read_all(points)), points[0].ids)

    def _read_all(self, points: Sequence[Point]) -> list[np.ndarray]:
        self._require_comparable(points)
        return [self._read(point, f"point {place}") for place, point in enumerate(points)]

    def _require_comparable(self, points: Sequence[Point]) -> None:
        require_same_inputs(points)
        require(points[0].inputs >= 2, f"a kernel needs >= 2 inputs, got {points[0].inputs}; add more")

    @abstractmethod
    def _read(self, point: Point, name: str) -> np.ndarray:
        """Return a point of the manifold; `name` is for messages."""

    @abstractmethod
    def _point(self, values: np.ndarray, ids: np.ndarray) -> Point:
        """Return the kernel of a point of the manifold, such that reading it gives that point again."""
