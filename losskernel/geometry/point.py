"""A point of every space here: one kernel over an ordered set of inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from losskernel.errors import InputError, require

FORMS = ("covariance", "correlation")


@dataclass(frozen=True, eq=False, repr=False)
class Point:
    """A symmetric kernel [N, N] over N inputs, held whole as its upper triangle or as a factor X with K = X Xᵀ.

    Build one with `from_features`, `from_gram` or `from_draws`; what is wrong with it is found there, once.

    Attributes:
        ids: [N] names of the inputs, in order; kernels over other inputs cannot be compared with this one.
        triangle: [N (N + 1) / 2] entries on and above the diagonal, row by row; None where there is a factor.
        factor: [N, d]; None where there is a triangle.
        chains: how many columns of the factor are draws of each chain, in order; empty for what was not sampled.
        centring: the centring that the kernel has been through already, so that it is not centred again.
    """

    ids: np.ndarray
    triangle: np.ndarray | None = None
    factor: np.ndarray | None = None
    chains: tuple[int, ...] = ()
    centring: str | None = None

    @classmethod
    def from_features(
        cls, features: Any, ids: Sequence[Any] | np.ndarray | None = None, kernel: Callable[..., Any] | None = None
    ) -> "Point":
        """Build the point of a representation [N, ...], all axes but the first flattened, their means taken away.

        Args:
            features: one row an input.
            ids: [N] names of the inputs; their numbers by default.
            kernel: [N, d] -> [N, N]; None for the linear one, x · y.

        Raises:
            InputError: no rows and columns, a number that is not finite, or ids do not match.
        """
        values = _real("features", features)
        shaped = values.ndim >= 2 and values.size > 0
        require(shaped, f"features must be [N, d], got shape {values.shape}; give one row an input")
        values = values.reshape(len(values), -1)
        finite = bool(np.isfinite(values).all())
        require(finite, "features hold non-finite numbers; find the layer or the input that made them")
        names = _names(ids, len(values))
        if kernel is not None:
            return cls.from_gram(kernel(values), names)
        # The same point in every space; products of uncentred features would lose its digits.
        values = values - values.mean(axis=0, dtype=np.float64).astype(values.dtype)
        # A factor is smaller than a triangle up to here.
        if 2 * values.shape[1] <= len(values):
            return cls(names, factor=values)
        return cls(names, triangle=upper_triangle(values @ values.T))

    @classmethod
    def from_gram(cls, gram: Any, ids: Sequence[Any] | np.ndarray | None = None) -> "Point":
        """Build the point of a kernel [N, N].

        Raises:
            InputError: it is not square and symmetric, holds a number that is not finite, or ids do not match.
        """
        matrix = _real("gram", gram)
        square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
        require(square, f"gram must be [N, N], got shape {matrix.shape}; pass a kernel over all pairs of inputs")
        require(bool(np.isfinite(matrix).all()), "gram holds non-finite numbers; drop the inputs that made them")
        skew = float(np.abs(matrix - matrix.T).max(initial=0.0))
        largest = float(np.abs(matrix).max(initial=0.0))
        tolerance = 1e-8 if matrix.dtype == np.float64 else 1e-5
        require(skew <= tolerance * largest, f"gram must be symmetric, but differs from its transpose by {skew:.3g}")
        return cls(_names(ids, len(matrix)), triangle=upper_triangle(matrix))

    @classmethod
    def from_draws(
        cls, draws: Sequence[Any], ids: Sequence[Any] | np.ndarray | None = None, form: str = "covariance"
    ) -> "Point":
        """Build the point of a loss kernel from each chain's draws [N, T] of the inputs' losses.

        Draws are features, centred over each chain's own: K = L Lᵀ / (C T - C). Who made which column is kept, so
        that halves of the chains tell the noise.

        Args:
            draws: one array [N, T] a chain.
            ids: [N] names of the inputs; their numbers by default.
            form: "covariance", or "correlation" K_ij / sqrt(K_ii K_jj), where an input without variance has zeros.

        Raises:
            InputError: chains do not match, hold fewer than two draws, or a number that is not finite.

        Source: arXiv 2509.26537, Eq. 2.
        """
        require(form in FORMS, f"form must be one of {FORMS}, got {form!r}")
        chains = [np.asarray(each, dtype=np.float64) for each in draws]
        shapes = [each.shape for each in chains]
        alike = len(chains) > 0 and all(each.ndim == 2 and len(each) == len(chains[0]) for each in chains)
        require(alike, f"draws must be [N, T] of the same N inputs for every chain, got shapes {shapes}")
        require(min(each.shape[1] for each in chains) >= 2, f"draws must be >= 2 a chain, got shapes {shapes}")
        require(all(np.isfinite(each).all() for each in chains), "draws hold non-finite losses; sample again")
        factor = np.concatenate([each - each.mean(axis=1, keepdims=True) for each in chains], axis=1)
        factor /= np.sqrt(factor.shape[1] - len(chains))
        point = cls(_names(ids, len(factor)), factor=factor, chains=tuple(each.shape[1] for each in chains))
        return point.correlation() if form == "correlation" else point

    @property
    def inputs(self) -> int:
        """N."""
        return len(self.ids)

    def over(self, numbers: Sequence[int] | np.ndarray) -> "Point":
        """Return the kernel over some of the inputs, by their numbers, in the order given; read row by row."""
        chosen = np.asarray(numbers)
        if np.array_equal(chosen, np.arange(self.inputs)):
            return self
        if self.factor is not None:
            return replace(self, ids=self.ids[chosen], factor=self.factor[chosen])
        order = np.argsort(chosen)
        rising = chosen[order]
        # Row i is there from its diagonal on.
        rows = [self.rows(row, row + 1)[0, rising[place:] - row] for place, row in enumerate(rising.tolist())]
        found = Point(self.ids[rising], triangle=np.concatenate(rows))
        if np.array_equal(rising, chosen):
            return found
        back = np.argsort(order)
        return Point.from_gram(found.gram()[np.ix_(back, back)], self.ids[chosen])

    def correlation(self) -> "Point":
        """Return the point of K_ij / sqrt(K_ii K_jj), which counts every input alike; 0 where a K_ii is 0."""
        scale = np.sqrt(np.maximum(self.diagonal(), 0.0))
        scale = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        if self.factor is not None:
            return replace(self, factor=self.factor * scale[:, None])
        return Point(self.ids, triangle=upper_triangle(self.gram() * scale[:, None] * scale))

    def __repr__(self) -> str:
        held = "a kernel" if self.factor is None else f"features of {self.factor.shape[1]}"
        return f"{type(self).__name__}({self.inputs} inputs, {held})"

    def gram(self) -> np.ndarray:
        """Return the kernel [N, N], float64."""
        return self.rows(0, self.inputs).astype(np.float64, copy=False)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows start to stop of the kernel from the column `start` on, [stop - start, N - start].

        Row after row these hold every pair of inputs, those within the rows twice.
        """
        if self.factor is not None:
            return self.factor[start:stop] @ self.factor[start:].T
        triangle, count = self.triangle, self.inputs
        if triangle is None:
            raise TypeError("a Point holds a triangle or a factor; build it with Point.from_gram or from_features")
        found = np.zeros((stop - start, count - start), dtype=triangle.dtype)
        for row in range(start, stop):
            first = row * count - row * (row - 1) // 2
            found[row - start, row - start :] = triangle[first : first + count - row]
        own = found[:, : stop - start]
        own += np.triu(own, 1).T
        return found

    def diagonal(self) -> np.ndarray:
        """Return the kernel's diagonal [N], float64."""
        if self.factor is not None:
            return np.einsum("nd,nd->n", self.factor, self.factor, dtype=np.float64)
        # Row i begins where those before it, of N, N - 1, ... entries, end.
        place = np.arange(self.inputs)
        return np.asarray(self.triangle)[place * self.inputs - place * (place - 1) // 2].astype(np.float64)

    def sums(self) -> np.ndarray:
        """Return the sum of each of the kernel's rows [N], float64."""
        return self._sums

    @cached_property
    def _sums(self) -> np.ndarray:
        if self.factor is not None:
            factor = self.factor.astype(np.float64, copy=False)
            return factor @ factor.sum(axis=0)
        total = np.zeros(self.inputs)
        for start in range(0, self.inputs, _ROWS):
            stop = min(start + _ROWS, self.inputs)
            rows = self.rows(start, stop)
            total[start:stop] += rows.sum(axis=1, dtype=np.float64)
            total[stop:] += rows[:, stop - start :].sum(axis=0, dtype=np.float64)
        return total


# Rows of a triangle that are unpacked at once.
_ROWS = 256


def upper_triangle(matrix: np.ndarray) -> np.ndarray:
    """Return the entries [N (N + 1) / 2] of a matrix [N, N] on and above its diagonal, row by row."""
    return np.concatenate([row[place:] for place, row in enumerate(matrix)]) if len(matrix) else matrix.ravel()


def evenly(count: int, most: int) -> np.ndarray:
    """Return the numbers of at most `most` of so many inputs, evenly spaced."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(int)


def require_same_inputs(points: Sequence[Point]) -> None:
    """Raise InputError unless there is a point, and all stand over the same inputs in the same order."""
    require(len(points) > 0, "no points were given; give at least one")
    for place, point in enumerate(points):
        kind = type(point).__name__
        known = isinstance(point, Point)
        require(known, f"points must be losskernel.geometry.Point, got {kind}; build them with Point.from_features(x)")
        first = points[0].ids
        if point.ids is first or np.array_equal(point.ids, first):
            continue
        alike = len(point.ids) == len(first)
        how = f"whose ids differ from number {int(np.argmax(point.ids != first))} on" if alike else ""
        how = how or f"{len(first)} and {len(point.ids)} of them"
        raise InputError(f"points 0 and {place} stand over different inputs, {how}; compare kernels of the same inputs")


def _real(what: str, values: Any) -> np.ndarray:
    """Return numbers as an array, in the precision in which they come; also of a tensor anywhere."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    array = np.asarray(detached)
    complex_ = np.iscomplexobj(array)
    require(not complex_, f"{what} must be real numbers, got {array.dtype}; take their real and imaginary parts")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _names(ids: Sequence[Any] | np.ndarray | None, count: int) -> np.ndarray:
    names = np.arange(count) if ids is None else np.asarray(ids)
    require(len(names) == count, f"ids has {len(names)} entries for {count} inputs; give one each")
    return names
