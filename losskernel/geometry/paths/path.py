"""A path through representation space: layer after layer, how far, how straight, and where it passes."""

from collections.abc import Sequence

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.paths.triangles import Projection, project, turning, vertex_angle
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.space import Space


class Path:
    """Points in order, joined by geodesics; everything follows from how they stand to each other.

    The length is a lower bound on that of the true path: more layers sampled make it longer, never shorter.

    Attributes:
        arrangement: of the P points, in the order of the path.

    Source: Lange et al. 2022, arXiv 2206.10999.
    """

    arrangement: Arrangement

    def __init__(self, points: Sequence[Point], space: Space) -> None:
        """Join points of a space.

        Raises:
            InputError: fewer than two points, or the space has no distance between some.
        """
        self._points, self._space = tuple(points), space
        self._place(space.arrangement(self._points))

    @classmethod
    def from_arrangement(cls, arrangement: Arrangement, numbers: Sequence[int] | np.ndarray | None = None) -> "Path":
        """Join points of a known arrangement by their numbers, in the order given; all of them by default.

        Raises:
            InputError: fewer than two points.
        """
        path = cls.__new__(cls)
        path._points, path._space = (), None
        path._place(arrangement if numbers is None else arrangement.of(numbers))
        return path

    def _place(self, arrangement: Arrangement) -> None:
        require(len(arrangement) >= 2, f"a path needs >= 2 points, got {len(arrangement)}; name more layers")
        self.arrangement = arrangement

    def __len__(self) -> int:
        return len(self.arrangement)

    @property
    def steps(self) -> np.ndarray:
        """Distances from each point to the next, [P - 1]."""
        return np.diagonal(self.arrangement.distances, offset=1).copy()

    @property
    def length(self) -> float:
        """Sum of the steps."""
        return float(self.steps.sum())

    @property
    def straightness(self) -> float:
        """Distance between the ends as a share of the length: 1 along one geodesic, NaN for a path that stays."""
        return float(self.arrangement.distances[0, -1] / self.length) if self.length > 0 else float("nan")

    def angles(self) -> np.ndarray:
        """Return the vertex angles at the inner points [P - 2], in radians: π straight on, 0 back."""
        return vertex_angle(self.arrangement, *self._corners())

    def turning(self) -> np.ndarray:
        """Return by how much the path turns at the inner points [P - 2], in radians: 0 straight on, π back."""
        return turning(self.arrangement, *self._corners())

    def to(self, target: Point | int) -> np.ndarray:
        """Return the distances [P] to a point, or to a point of the path by its number.

        Raises:
            InputError: `target` is a Point, and the path was made from an arrangement.
        """
        arrangement, (number,) = self._with(target)
        return arrangement.distances[: len(self), number]

    def project(self, onto: tuple[Point | int, Point | int]) -> Projection:
        """Return how far along a geodesic every point is [P], and how far off it [P].

        Args:
            onto: the ends of the geodesic, Points or numbers of points of the path; (0, -1) for its own ends.

        Raises:
            InputError: an end is a Point, and the path was made from an arrangement.
        """
        arrangement, (start, end) = self._with(*onto)
        return project(arrangement, np.arange(len(self)), start, end)

    def _corners(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inner = np.arange(1, len(self) - 1)
        return inner - 1, inner, inner + 1

    def _with(self, *others: Point | int) -> tuple[Arrangement, list[int]]:
        """Return the arrangement of the path's points and the new ones behind them, and the numbers of `others`."""
        new = [each for each in others if isinstance(each, Point)]
        own = [each for each in others if not isinstance(each, Point)]
        inside = all(-len(self) <= each < len(self) for each in own)
        require(inside, f"a path of {len(self)} points has none with number {own}; count from 0")
        behind = iter(range(len(self), len(self) + len(new)))
        numbers = [next(behind) if isinstance(each, Point) else each % len(self) for each in others]
        if not new:
            return self.arrangement, numbers
        if self._space is None:
            raise InputError("the path was made from an arrangement; put the point into it and give its number")
        return self._space.arrangement([*self._points, *new], known=self.arrangement), numbers
