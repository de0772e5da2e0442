"""Manifolds of arrays: what the geometry of a space does once its kernels are read into numbers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry.paths.triangles import Projection

# Lengths of the last step of a mean, against the spread of the points and the size of one.
_SETTLED, _ROUNDING = 1e-10, 1e-12
# Places on a geodesic among which the nearest is looked for first.
_PLACES = 11


class Manifold(ABC):
    """Points and tangents are arrays; tangents at one point are added and scaled as arrays are."""

    @abstractmethod
    def length(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the distance between two points."""

    @abstractmethod
    def log(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the tangent at x that leads to y: its direction is the geodesic's, its norm the distance."""

    @abstractmethod
    def exp(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return where the geodesic that leaves x along a tangent is after the tangent's norm."""

    @abstractmethod
    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return the inner product of two tangents at x."""

    @abstractmethod
    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return the tangent at y that is parallel to one at x, along the geodesic from x to y."""

    def along(self, x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
        """Return the point at a fraction of the geodesic from x to y."""
        return self.exp(x, fraction * self.log(x, y))

    def check(self, x: np.ndarray, tangent: np.ndarray) -> None:
        """Raise InputError unless `tangent` is one at x."""
        fits = tangent.shape == x.shape
        require(fits, f"tangent must have shape {x.shape}, got {tangent.shape}; take it from log at the same point")
        require(bool(np.isfinite(tangent).all()), "tangent holds non-finite numbers; take it from log")

    def stacked(self, tangents: Sequence[np.ndarray]) -> np.ndarray:
        """Return tangents at one point as one array [T, ...]."""
        return np.stack(list(tangents))

    def norm(self, x: np.ndarray, tangent: np.ndarray) -> float:
        """Return the length of a tangent at x."""
        return float(np.sqrt(max(self.inner(x, tangent, tangent), 0.0)))

    def angle(self, a: np.ndarray, vertex: np.ndarray, b: np.ndarray) -> float:
        """Return the angle in radians between the geodesics from a vertex to a and to b.

        Raises:
            InputError: one of the two is the vertex.
        """
        return between(self, vertex, *self.stacked([self.log(vertex, a), self.log(vertex, b)]))

    def project(self, point: np.ndarray, a: np.ndarray, b: np.ndarray) -> Projection:
        """Return where the geodesic segment from a to b comes nearest to a point.

        The best of a few places first, then the root of the distance's slope around it.
        """
        from scipy.optimize import brentq

        def approach(fraction: float) -> float:
            place = self.along(a, b, fraction)
            # The farther end tells the direction better.
            onward = self.log(place, b) if fraction < 0.5 else -self.log(place, a)
            pulled, onward = self.stacked([self.log(place, point), onward])
            return self.inner(place, pulled, onward)

        places = np.linspace(0.0, 1.0, _PLACES)
        apart = [self.length(point, self.along(a, b, float(place))) for place in places]
        best = int(np.argmin(apart))
        low, high = float(places[max(best - 1, 0)]), float(places[min(best + 1, _PLACES - 1)])
        if not (approach(low) > 0 > approach(high)):
            return _projection(float(places[best]), apart[best])
        fraction = float(brentq(approach, low, high, xtol=1e-15))  # pyright: ignore[reportArgumentType]
        return _projection(fraction, self.length(point, self.along(a, b, fraction)))

    def mean(self, points: Sequence[np.ndarray], steps: int = 1000) -> np.ndarray:
        """Return the Fréchet mean: where the tangents to all points sum to zero.

        Steps mu <- exp_mu(rate * mean of log_mu), the rate halved whenever the mean tangent grows.

        Raises:
            InputError: it does not settle in so many steps.
        """
        middle, rate, before = points[0], 1.0, np.inf
        for _ in range(steps):
            tangents = self.stacked([self.log(middle, each) for each in points])
            step = tangents.mean(axis=0)
            size, spread = self.norm(middle, step), max(self.norm(middle, each) for each in tangents)
            if size <= _SETTLED * spread + _ROUNDING * self.norm(middle, middle):
                return middle
            rate, before = rate if size < before else rate / 2, size
            middle = self.exp(middle, rate * step)
        raise InputError(f"the mean did not settle in {steps} steps; leave out far points")


def between(manifold: Manifold, vertex: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Return the angle in radians between two tangents at a vertex.

    Raises:
        InputError: one of them has no direction.
    """
    sides = manifold.norm(vertex, first), manifold.norm(vertex, second)
    moved = min(sides) > _ROUNDING * manifold.norm(vertex, vertex)
    require(moved, "an angle needs points apart from its vertex; leave out the repeated one")
    first, second = first / sides[0], second / sides[1]
    # arccos would lose angles within 1e-8 of 0 and π.
    return 2 * float(np.arctan2(manifold.norm(vertex, first - second), manifold.norm(vertex, first + second)))


class Flat(Manifold):
    """Arrays with the Euclidean distance."""

    def length(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return |x - y|."""
        return float(np.linalg.norm(x - y))

    def log(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return y - x."""
        return y - x

    def exp(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return x + v."""
        return x + tangent

    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return v · w."""
        return float(np.vdot(first, second))

    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return v: it is parallel to itself everywhere."""
        return tangent.copy()

    def project(self, point: np.ndarray, a: np.ndarray, b: np.ndarray) -> Projection:
        """Return the foot of the perpendicular, or the nearer end."""
        whole = float(np.vdot(b - a, b - a))
        fraction = float(np.clip(np.vdot(point - a, b - a) / whole, 0.0, 1.0)) if whole > 0 else 0.0
        return _projection(fraction, self.length(point, a + fraction * (b - a)))


def _projection(fraction: float, distance: float) -> Projection:
    return Projection(np.asarray(fraction), np.asarray(distance))
