"""Space: lengths, geodesics, tangents, projections and means of kernels over the same inputs."""

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

    A subclass maps kernels to points of a manifold (`_read`) and back (`_point`). Tangents are arrays that `log` and
    `transport` return; those at one point may be scaled, and added where their shapes agree.

    Attributes:
        manifold: of the arrays that kernels are mapped to.
        curvature: sign of the sectional curvatures, "positive", "zero" or "negative", the bound included; None where
            it varies.
        invariances: which of "translation", "rotation", "scale" (isotropic) and "affine" of features change no point.
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
            InputError: the points are over different inputs, or a kernel is not in the space's domain.
        """
        return float(self.distances([p, q])[0, 1])

    def distances(self, points: Sequence[Point], device: Any = None) -> np.ndarray:
        """Return the distances [P, P].

        Raises:
            InputError: as for `length`.
        """
        return self.arrangement(points, device=device).distances

    def arrangement(self, points: Sequence[Point], known: Arrangement | None = None, device: Any = None) -> Arrangement:
        """Return the arrangement of points; pairs of the first ones that are known are not computed again.

        Args:
            points: P kernels over the same inputs, each read once and held.
            known: arrangement of the first points, in this order.
            device: torch device, for spaces that are products of kernels; others compute on the CPU.

        Raises:
            InputError: as for `length`.
        """
        arrays = self._read_all(points)
        first = 0 if known is None else len(known)
        distances = np.zeros((len(points), len(points)))
        if known is not None:
            distances[:first, :first] = known.distances
        for p in range(first, len(points)):
            for q in range(p):
                distances[p, q] = distances[q, p] = self.manifold.length(arrays[p], arrays[q])
        return Arrangement(distances)

    def geodesic(self, p: Point, q: Point, t: float) -> Point:
        """Return the point at fraction t of the shortest path from p to q.

        Raises:
            InputError: t is not from 0 to 1 (`exp` extrapolates), there is no shortest path, or as for `length`.
        """
        require(0 <= t <= 1, f"t must be from 0 to 1, got {t}; extrapolate by exp(p, t * log(p, q))")
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
            InputError: the tangent is not one at p, or leads out of the space.
        """
        (start,) = self._read_all([p])
        return self._point(self.manifold.exp(start, self._tangent(start, tangent)), p.ids)

    def inner(self, p: Point, first: np.ndarray, second: np.ndarray) -> float:
        """Return the inner product of two tangents at p.

        Raises:
            InputError: one is not a tangent at p.
        """
        (start,) = self._read_all([p])
        return self.manifold.inner(start, self._tangent(start, first), self._tangent(start, second))

    def transport(self, p: Point, q: Point, tangent: np.ndarray) -> np.ndarray:
        """Return the tangent at q that is parallel to one at p along their geodesic.

        Raises:
            InputError: the tangent is not one at p, or as for `geodesic`.
        """
        start, end = self._read_all([p, q])
        return self.manifold.transport(start, end, self._tangent(start, tangent))

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
            InputError: the search does not converge, or as for `geodesic`.
        """
        return self._point(self.manifold.mean(self._read_all(points)), points[0].ids)

    def _read_all(self, points: Sequence[Point]) -> list[np.ndarray]:
        self._require_comparable(points)
        return [self._read(point, f"point {number}") for number, point in enumerate(points)]

    def _tangent(self, start: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        array = np.asarray(tangent, dtype=np.float64)
        self.manifold.check(start, array)
        return array

    def _require_comparable(self, points: Sequence[Point]) -> None:
        require_same_inputs(points)
        require(points[0].inputs >= 2, f"a kernel needs >= 2 inputs, got {points[0].inputs}; add more")

    @abstractmethod
    def _read(self, point: Point, name: str) -> np.ndarray:
        """Return the manifold's point for a kernel; `name` is for messages."""

    @abstractmethod
    def _point(self, values: np.ndarray, ids: np.ndarray) -> Point:
        """Return the kernel for a point of the manifold, such that reading it gives that point again."""
