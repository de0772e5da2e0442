"""Manifolds of arrays: the interface, flat space and the unit sphere, both in closed form."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry.paths.triangles import Projection

# Length of a mean's last step, relative to the spread of the points and to the norm of one.
_CONVERGED, _ROUNDING = 1e-10, 1e-12
_GRID = 11  # points of a geodesic among which the nearest is searched first
_ANTIPODES = 1e-6  # distance from π below which rounding alone would choose the direction
_NEAR = 1e-6  # angle w below which sin(t w) / sin w is t to all digits
_ORTHOGONAL = 1e-6  # part of a tangent along its point that rounding may leave


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

    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return the inner product of two tangents at x, that of arrays by default."""
        return float(np.vdot(first, second))

    @abstractmethod
    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return the tangent at y that is parallel to one at x, along the geodesic from x to y."""

    def along(self, x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
        """Return the point at a fraction of the geodesic from x to y."""
        return self.exp(x, fraction * self.log(x, y))

    def check(self, x: np.ndarray, tangent: np.ndarray) -> None:
        """Raise InputError unless `tangent` is a tangent at x."""
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
        return tangent_angle(self, vertex, *self.stacked([self.log(vertex, a), self.log(vertex, b)]))

    def project(self, point: np.ndarray, a: np.ndarray, b: np.ndarray) -> Projection:
        """Return where the geodesic segment from a to b comes nearest to a point.

        The best of a few points first, then the root of the distance's slope around it.
        """
        from scipy.optimize import brentq

        def approach(fraction: float) -> float:
            here = self.along(a, b, fraction)
            # The direction of the geodesic, from its farther end, which is the better conditioned one.
            onward = self.log(here, b) if fraction < 0.5 else -self.log(here, a)
            toward, onward = self.stacked([self.log(here, point), onward])
            return self.inner(here, toward, onward)

        grid = np.linspace(0.0, 1.0, _GRID)
        apart = [self.length(point, self.along(a, b, float(fraction))) for fraction in grid]
        best = int(np.argmin(apart))
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
        if not (approach(low) > 0 > approach(high)):
            return _projection(float(grid[best]), apart[best])  # an end of the segment
        fraction = float(brentq(approach, low, high, xtol=1e-15))  # pyright: ignore[reportArgumentType]
        return _projection(fraction, self.length(point, self.along(a, b, fraction)))

    def mean(self, points: Sequence[np.ndarray], steps: int = 1000) -> np.ndarray:
        """Return the Fréchet mean: where the tangents to all points sum to zero.

        Steps mu <- exp_mu(rate * mean of log_mu), the rate halved whenever the mean tangent grows.

        Raises:
            InputError: it does not converge in so many steps.
        """
        middle, rate, before = points[0], 1.0, np.inf
        for _ in range(steps):
            tangents = self.stacked([self.log(middle, point) for point in points])
            step = tangents.mean(axis=0)
            size, spread = self.norm(middle, step), max(self.norm(middle, tangent) for tangent in tangents)
            if size <= _CONVERGED * spread + _ROUNDING * self.norm(middle, middle):
                return middle
            rate, before = rate if size < before else rate / 2, size
            middle = self.exp(middle, rate * step)
        raise InputError(f"the mean did not converge in {steps} steps; leave out far points")


def tangent_angle(manifold: Manifold, vertex: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
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


class Sphere(Manifold):
    """Arrays of norm 1, whatever their shape; the distance is the angle between them, in radians."""

    def length(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return 2 atan2(|x - y|, |x + y|), exact where arccos(x · y) is not."""
        return 2 * float(np.arctan2(np.linalg.norm(x - y), np.linalg.norm(x + y)))

    def log(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return w (y - <x, y> x) / |y - <x, y> x| at the angle w."""
        angle = self._angle(x, y)
        step = y - x
        across = step - np.vdot(x, step) * x
        size = np.linalg.norm(across)
        return across * (angle / size) if size > 0 else np.zeros_like(x)

    def exp(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return cos|v| x + sin|v| v / |v|."""
        size = np.linalg.norm(tangent)
        return np.cos(size) * x + np.sinc(size / np.pi) * tangent

    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return v - <v, u> u + <v, u> (cos w u - sin w x), with u the direction of y and w its angle."""
        toward = self.log(x, y)
        angle = np.linalg.norm(toward)
        if angle == 0:
            return tangent.copy()
        toward = toward / angle
        share = np.vdot(tangent, toward)
        return tangent - share * toward + share * (np.cos(angle) * toward - np.sin(angle) * x)

    def along(self, x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
        """Return [sin((1 - t) w) x + sin(t w) y] / sin w, or for close points their weighted mean, normalised."""
        angle = self._angle(x, y)
        if angle < _NEAR:
            chord = (1 - fraction) * x + fraction * y
            return chord / np.linalg.norm(chord)
        return (np.sin((1 - fraction) * angle) * x + np.sin(fraction * angle) * y) / np.sin(angle)

    def check(self, x: np.ndarray, tangent: np.ndarray) -> None:
        """Raise InputError unless `tangent` has the shape of x and is orthogonal to it."""
        super().check(x, tangent)
        along = abs(float(np.vdot(x, tangent)))
        orthogonal = along <= _ORTHOGONAL * max(1.0, float(np.linalg.norm(tangent)))
        require(orthogonal, f"tangent must be orthogonal to its point, but has {along:.3g} along it; transport it")

    def project(self, point: np.ndarray, a: np.ndarray, b: np.ndarray) -> Projection:
        """Return the foot on the great circle, or the nearer end where the foot lies beyond the ends."""
        whole = self._angle(a, b)
        if whole == 0:
            return _projection(0.0, self.length(point, a))
        onward = self.log(a, b) / whole
        angle = float(np.arctan2(np.vdot(point, onward), np.vdot(point, a)))  # of the foot, from a
        if not 0 <= angle <= whole:
            angle = 0.0 if self.length(point, a) <= self.length(point, b) else whole
        foot = np.cos(angle) * a + np.sin(angle) * onward
        return _projection(angle / whole, self.length(point, foot))

    def mean(self, points: Sequence[np.ndarray], steps: int = 1000) -> np.ndarray:
        """Return the Fréchet mean of points within one hemisphere.

        Raises:
            InputError: it does not converge, or is not the only one.
        """
        middle = super().mean(points, steps)
        farthest = max(self.length(middle, point) for point in points)
        words = f"points lie up to {farthest:.3g} rad from their mean, so it is not the only one; leave some out"
        require(farthest < np.pi / 2, words)
        return middle

    def _angle(self, x: np.ndarray, y: np.ndarray) -> float:
        angle = self.length(x, y)
        apart = np.pi - angle > _ANTIPODES
        require(bool(apart), "two points are antipodes: every direction leads from one to the other; compare others")
        return angle
