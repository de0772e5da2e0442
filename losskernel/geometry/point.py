"""A point of every space here: one kernel over an ordered set of inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from losskernel.errors import require


@dataclass(frozen=True)
class Point:
    """A symmetric kernel [N, N] over N inputs, held as its upper triangle: half the memory.

    Attributes:
        triangle: [N (N + 1) / 2] float64, row by row, the diagonal included.
        ids: [N] names of the inputs, in order; kernels over other inputs cannot be compared with this one.
    """

    triangle: np.ndarray
    ids: np.ndarray

    @classmethod
    def from_gram(cls, gram: Any, ids: Sequence[Any] | np.ndarray | None = None) -> "Point":
        """Build the point of a kernel [N, N].

        Raises:
            InputError: it is not square and symmetric, holds a number that is not finite, or ids do not match.
        """
        matrix = np.asarray(gram, dtype=np.float64)
        square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
        require(square, f"gram must be [N, N], got shape {matrix.shape}; pass a kernel over all pairs of inputs")
        require(bool(np.isfinite(matrix).all()), "gram holds non-finite numbers; drop the inputs that made them")
        skew = float(np.abs(matrix - matrix.T).max(initial=0.0))
        largest = float(np.abs(matrix).max(initial=0.0))
        require(skew <= 1e-8 * largest, f"gram must be symmetric, but differs from its transpose by {skew:.3g}")
        names = np.arange(len(matrix)) if ids is None else np.asarray(ids)
        require(len(names) == len(matrix), f"ids has {len(names)} entries for {len(matrix)} inputs; give one each")
        return cls(upper_triangle(matrix), names)

    @property
    def inputs(self) -> int:
        """N."""
        return len(self.ids)

    def gram(self) -> np.ndarray:
        """Return the kernel [N, N]."""
        matrix = np.zeros((self.inputs, self.inputs))
        matrix[_upper(self.inputs)] = self.triangle
        return matrix + np.triu(matrix, 1).T


def upper_triangle(matrix: np.ndarray) -> np.ndarray:
    """Return the entries [N (N + 1) / 2] of a matrix [N, N] on and above its diagonal, row by row."""
    return matrix[_upper(len(matrix))]


@lru_cache(maxsize=2)  # the same for every kernel over as many inputs, and as large as one
def _upper(count: int) -> tuple[np.ndarray, ...]:
    return np.triu_indices(count)
