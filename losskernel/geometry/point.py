"""A point of every space: one kernel over an ordered set of inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from losskernel.errors import require

FORMS = ("covariance", "correlation")
# From so many inputs on kernels are computed and stored in single precision: sums over them are exact to about 3e-6.
SINGLE_PRECISION_INPUTS = 4096
_ROWS = 256  # rows of a triangle that are unpacked at once


@dataclass(frozen=True, eq=False, repr=False)
class Point:
    """A symmetric kernel [N, N] over N inputs, held whole as its upper triangle or as a factor X with K = X Xᵀ.

    Build one with `from_features`, `from_gram` or `from_draws`, which validate it once.

    Attributes:
        ids: [N] names of the inputs, in order; only kernels over the same inputs can be compared.
        triangle: [N (N + 1) / 2] entries on and above the diagonal, row by row; None where there is a factor.
        factor: [N, d]; None where there is a triangle.
        chains: number of the factor's columns that are draws of each chain, in order; empty for kernels not sampled.
        centring: centring already applied to the kernel, so that it is not centred again.
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
        """Build the point of a representation [N, ...], all axes but the first flattened, columns centred.

        Args:
            features: one row per input.
            ids: [N] names of the inputs; their numbers by default.
            kernel: [N, d] -> [N, N]; None for the linear one, x · y.

        Raises:
            InputError: no rows and columns, a number that is not finite, or ids do not match.
        """
        values = _real("features", features)
        shaped = values.ndim >= 2 and values.size > 0
        require(shaped, f"features must be [N, d], got shape {values.shape}; give one row per input")
        values = values.reshape(len(values), -1)
        finite = bool(np.isfinite(values).all())
        require(finite, "features hold non-finite numbers; find the layer or the input that made them")
        names = _names(ids, len(values))
        if kernel is not None:
            return cls.from_gram(kernel(values), names)
        # The same point in every space; products of uncentred features would lose its digits.
        values = values - values.mean(axis=0, dtype=np.float64).astype(values.dtype)
        if 2 * values.shape[1] <= len(values):
            return cls(names, factor=values)  # not larger than the triangle
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

        Draws are features, centred within each chain: K = L Lᵀ / (C T - C). The chain of each column is kept, so that
        halves of the chains can estimate the noise.

        Args:
            draws: one array [N, T] per chain.
            ids: [N] names of the inputs; their numbers by default.
            form: "covariance", or "correlation" K_ij / sqrt(K_ii K_jj), where an input without variance has zeros.

        Raises:
            InputError: chains do not match, hold fewer than two draws, or a number that is not finite.

        Source: arXiv 2509.26537, Eq. 2.
        """
        require(form in FORMS, f"form must be one of {FORMS}, got {form!r}")
        chains = [np.asarray(chain, dtype=np.float64) for chain in draws]
        shapes = [chain.shape for chain in chains]
        alike = len(chains) > 0 and all(chain.ndim == 2 and len(chain) == len(chains[0]) for chain in chains)
        require(alike, f"draws must be [N, T] of the same N inputs for every chain, got shapes {shapes}")
        require(min(chain.shape[1] for chain in chains) >= 2, f"draws must be >= 2 per chain, got shapes {shapes}")
        require(all(np.isfinite(chain).all() for chain in chains), "draws hold non-finite losses; sample again")
        factor = np.concatenate([chain - chain.mean(axis=1, keepdims=True) for chain in chains], axis=1)  # [N, C T]
        factor /= np.sqrt(factor.shape[1] - len(chains))
        point = cls(_names(ids, len(factor)), factor=factor, chains=tuple(chain.shape[1] for chain in chains))
        return point.correlation() if form == "correlation" else point

    @property
    def inputs(self) -> int:
        """N."""
        return len(self.ids)

    def over(self, numbers: Sequence[int] | np.ndarray) -> "Point":
        """Return the kernel over some of the inputs, by their indices, in the order given; read row by row."""
        chosen = np.asarray(numbers)
        if np.array_equal(chosen, np.arange(self.inputs)):
            return self
        if self.factor is not None:
            return replace(self, ids=self.ids[chosen], factor=self.factor[chosen])
        order = np.argsort(chosen)
        ascending = chosen[order]
        # `rows` gives row i from its diagonal on, so inputs are taken in ascending order and put back afterwards.
        rows = [self.rows(row, row + 1)[0, ascending[index:] - row] for index, row in enumerate(ascending.tolist())]
        part = Point(self.ids[ascending], triangle=np.concatenate(rows))
        if np.array_equal(ascending, chosen):
            return part
        back = np.argsort(order)
        return Point.from_gram(part.gram()[np.ix_(back, back)], self.ids[chosen])

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

        With all rows before them these hold every pair of inputs, those within the rows twice.
        """
        if self.factor is not None:
            return self.factor[start:stop] @ self.factor[start:].T
        if self.triangle is None:
            raise TypeError("a Point holds a triangle or a factor; build it with Point.from_gram or from_features")
        stop, count = min(stop, self.inputs), self.inputs
        entries = self.triangle[first_entry(start, count) : first_entry(stop, count)]
        return unpacked_rows(entries, start, stop, count)

    def diagonal(self) -> np.ndarray:
        """Return the kernel's diagonal [N], float64."""
        if self.factor is not None:
            return np.einsum("nd,nd->n", self.factor, self.factor, dtype=np.float64)
        return np.asarray(self.triangle)[first_entry(np.arange(self.inputs), self.inputs)].astype(np.float64)

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
            rows = self.rows(start, stop)  # [stop - start, N - start]
            total[start:stop] += rows.sum(axis=1, dtype=np.float64)
            # Entries right of the block stand for their mirror images in later rows, too.
            total[stop:] += rows[:, stop - start :].sum(axis=0, dtype=np.float64)
        return total


def first_entry(row: Any, inputs: int) -> Any:
    """Return the index at which a row, or each of several, begins in a triangle [N (N + 1) / 2]."""
    # The rows before it have N, N - 1, ... entries.
    return row * inputs - row * (row - 1) // 2


def upper_triangle(rows: np.ndarray) -> np.ndarray:
    """Return the entries of rows [R, N] of a kernel, from the first row's diagonal on, on and above the diagonal."""
    return np.concatenate([row[index:] for index, row in enumerate(rows)]) if len(rows) else rows.ravel()


def unpacked_rows(entries: np.ndarray, start: int, stop: int, inputs: int) -> np.ndarray:
    """Return rows start to stop from column start on, [stop - start, N - start], from their triangle entries."""
    rows = np.zeros((stop - start, inputs - start), dtype=entries.dtype)
    begin = first_entry(start, inputs)
    for row in range(start, stop):
        first = first_entry(row, inputs) - begin
        rows[row - start, row - start :] = entries[first : first + inputs - row]
    square = rows[:, : stop - start]
    square += np.triu(square, 1).T  # entries below the diagonal
    return rows


def pairwise_distances(gram: np.ndarray) -> np.ndarray:
    """Return sqrt(K_ii + K_jj - 2 K_ij) of a kernel [N, N]; 0 where rounding or the kernel make it negative."""
    diagonal = gram.diagonal()
    return np.sqrt(np.maximum(diagonal[:, None] + diagonal - 2 * gram, 0.0))


def evenly(count: int, most: int) -> np.ndarray:
    """Return the indices of at most `most` of `count` inputs, evenly spaced."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(int)


def require_same_inputs(points: Sequence[Point]) -> None:
    """Raise InputError unless there is a point, and all are over the same inputs in the same order."""
    require(len(points) > 0, "no points were given; give at least one")
    for number, point in enumerate(points):
        kind, known = type(point).__name__, isinstance(point, Point)
        require(known, f"points must be losskernel.geometry.Point, got {kind}; build them with Point.from_features(x)")
        first = points[0].ids
        alike = point.ids is first or np.array_equal(point.ids, first)
        how = f"{len(first)} and {len(point.ids)} of them"
        if not alike and len(point.ids) == len(first):
            how = f"whose ids differ from number {int(np.argmax(point.ids != first))} on"
        require(alike, f"points 0 and {number} are over different inputs, {how}; compare kernels of the same inputs")


def _real(what: str, values: Any) -> np.ndarray:
    """Return an array, or a tensor on any device, as an array of its own precision, or float64 if it has none."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    try:
        array = np.asarray(detached)
    except TypeError:  # NumPy has no bfloat16
        array = np.asarray(detached.float())
    real = not np.iscomplexobj(array)
    require(real, f"{what} must be real numbers, got {array.dtype}; take their real and imaginary parts")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _names(ids: Sequence[Any] | np.ndarray | None, count: int) -> np.ndarray:
    names = np.arange(count) if ids is None else np.asarray(ids)
    require(len(names) == count, f"ids has {len(names)} entries for {count} inputs; give one per input")
    return names
