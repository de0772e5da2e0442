"""The unit sphere, in closed form."""

from collections.abc import Sequence

import numpy as np

from losskernel.errors import require
from losskernel.geometry.paths.triangles import Projection
from losskernel.geometry.spaces.manifold import Manifold

# Nearer to π than this no direction leads to a point more than any other.
_OPPOSITE = 1e-6
# Below this angle sin(t w) / sin w is t to all digits.
_NEAR = 1e-6
# Part of a tangent along its point that rounding may leave.
_UPRIGHT = 1e-6


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

    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return v · w."""
        return float(np.vdot(first, second))

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
            place = (1 - fraction) * x + fraction * y
            return place / np.linalg.norm(place)
        return (np.sin((1 - fraction) * angle) * x + np.sin(fraction * angle) * y) / np.sin(angle)

    def check(self, x: np.ndarray, tangent: np.ndarray) -> None:
        """Raise InputError unless `tangent` has the shape of x and is at a right angle to it."""
        super().check(x, tangent)
        along = abs(float(np.vdot(x, tangent)))
        upright = along <= _UPRIGHT * max(1.0, float(np.linalg.norm(tangent)))
        require(upright, f"tangent must be at a right angle to its point, but has {along:.3g} along it; transport it")

    def project(self, point: np.ndarray, a: np.ndarray, b: np.ndarray) -> Projection:
        """Return the foot on the great circle, or the nearer end where the foot lies beyond the ends."""
        whole = self._angle(a, b)
        if whole == 0:
            return Projection(np.asarray(0.0), np.asarray(self.length(point, a)))
        onward = self.log(a, b) / whole
        place = float(np.arctan2(np.vdot(point, onward), np.vdot(point, a)))
        if not 0 <= place <= whole:
            place = 0.0 if self.length(point, a) <= self.length(point, b) else whole
        foot = np.cos(place) * a + np.sin(place) * onward
        return Projection(np.asarray(place / whole), np.asarray(self.length(point, foot)))

    def mean(self, points: Sequence[np.ndarray], steps: int = 1000) -> np.ndarray:
        """Return the Fréchet mean of points within one hemisphere.

        Raises:
            InputError: it does not settle, or is not the only one.
        """
        middle = super().mean(points, steps)
        farthest = max(self.length(middle, each) for each in points)
        within = farthest < np.pi / 2
        require(
            within, f"points lie up to {farthest:.3g} rad from their mean, so it is not the only one; leave some out"
        )
        return middle

    def _angle(self, x: np.ndarray, y: np.ndarray) -> float:
        angle = self.length(x, y)
        apart = np.pi - angle > _OPPOSITE
        require(bool(apart), "two points are opposite: every direction leads from one to the other; compare others")
        return angle
