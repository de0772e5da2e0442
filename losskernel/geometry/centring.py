"""Centring of kernels, and inner products of centred kernels in bounded memory."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from losskernel.geometry.point import SINGLE_PRECISION_INPUTS, Point, unpacked_rows

CENTRINGS = ("u", "double", "masked")
# Numbers in a block of all points' rows, so that it stays in the caches; and the least number of rows.
_NUMBERS, _ROWS = 2**20, 32
# Share of |K|² that sums of products, each exact to 1e-16, give to four digits.
_CANCELLED = 1e-12


class Products(NamedTuple):
    """Inner products of centred kernels, from one on against all."""

    centred: np.ndarray  # [P - first, P], <C(K), C(L)>
    raw: np.ndarray  # [P], |K|² before centring


def centred(kernel: np.ndarray, centring: str) -> np.ndarray:
    """Return C(K) of a kernel [N, N].

    "double": H K H with H = I - 11ᵀ/N. "masked": its diagonal set to zero afterwards. "u": the diagonal set to zero
    first, then K_ij - r_i - r_j + s off it with r_i = Σ_l K_il / (N - 2) and s = Σ K / ((N - 1)(N - 2)), so that rows
    sum to zero.

    Source: Székely & Rizzo 2014 (u).
    """
    shift, level = _means(kernel.diagonal(), kernel.sum(axis=0), centring)
    result = kernel - shift[:, None] - shift + level
    if centring != "double":
        np.fill_diagonal(result, 0.0)
    return result


def products(points: Sequence[Point], centring: str, first: int = 0, device: Any = None) -> Products:
    """Return the inner products of centred kernels, of the points from `first` on with all.

    Kernels of few features never become matrices [N, N]: with X and Y centred over inputs <HKH, HLH> = |Xᵀ Y|², and
    the other centrings correct for the diagonal. Others are read some rows at a time, all points side by side.

    Args:
        points: kernels over the same inputs.
        centring: "u", "double" or "masked".
        first: index of the first point whose products are not known yet.
        device: torch device for the products; None for numpy on the CPU.
    """
    if device is None and _features_pay(points):
        result = _from_features(points, centring, first)
        # Where centring removes nearly all of a kernel, rounding of what was subtracted dominates the rest.
        if bool((np.diagonal(result.centred, offset=first) > _CANCELLED * result.raw[first:]).all()):
            return result
    return _from_rows(points, centring, first, device)


def chords(points: Sequence[Point], centring: str, pairs: Sequence[tuple[int, int]], lengths: np.ndarray) -> np.ndarray:
    """Return |P - Q|² and |P + Q|² of pairs of normalised centred kernels, [pairs, 2]: exact where they nearly agree.

    Args:
        points: kernels over the same inputs.
        centring: "u", "double" or "masked".
        pairs: indices of points.
        lengths: |C(K)| of every point, [P].
    """
    squares = np.zeros((len(pairs), 2))
    used = sorted({number for pair in pairs for number in pair})
    where = {number: row for row, number in enumerate(used)}
    for block in _blocks([points[number] for number in used], centring, None):
        unit = block / lengths[used][:, None]
        for row, (p, q) in enumerate(pairs):
            for side, sign in enumerate((-1, 1)):
                squares[row, side] += np.square(unit[where[p]] + sign * unit[where[q]]).sum()
    return squares


def flattened(kernel: np.ndarray) -> np.ndarray:
    """Return [N (N + 1) / 2] numbers whose inner products are those of symmetric matrices [N, N]."""
    # Off the diagonal each entry stands for two.
    weight = np.sqrt(2.0)
    return np.concatenate(
        [np.concatenate([row[index : index + 1], weight * row[index + 1 :]]) for index, row in enumerate(kernel)]
    )


def unflattened(values: np.ndarray, inputs: int) -> np.ndarray:
    """Return the matrix [N, N] that `flattened` made into numbers [N (N + 1) / 2]."""
    matrix = unpacked_rows(values, 0, inputs, inputs)
    matrix[~np.eye(inputs, dtype=bool)] /= np.sqrt(2.0)
    return matrix


def _means(diagonal: np.ndarray, sums: np.ndarray, centring: str) -> tuple[np.ndarray, float]:
    """Return what centring subtracts from every row and column, [N], and what it adds back."""
    count = len(sums)
    if centring == "u":
        sums = sums - diagonal
        return sums / (count - 2), float(sums.sum() / ((count - 1) * (count - 2)))
    return sums / count, float(sums.sum() / count**2)


def _features_pay(points: Sequence[Point]) -> bool:
    """Whether products of features cost less than those of kernels, which need products of features themselves."""
    widths = [point.factor.shape[1] if point.factor is not None else 0 for point in points]
    if 0 in widths or any(point.centring for point in points):
        return False
    total = sum(widths)
    return total**2 < points[0].inputs * (total + len(points) ** 2) / 2


def _from_features(points: Sequence[Point], centring: str, first: int) -> Products:
    factors = [np.asarray(point.factor, dtype=np.float64) for point in points]
    count = points[0].inputs
    raw = np.array([np.square(x.T @ x).sum() for x in factors])
    factors = [x - x.mean(axis=0) for x in factors]
    squares = np.array([np.einsum("nd,nd->n", x, x) for x in factors])  # [P, N], the kernels' diagonals
    # <HKH, HLH> = |Xᵀ Y|², for double centring; the others subtract what the diagonals contribute.
    inner = np.array([[np.square(x.T @ y).sum() for y in factors] for x in factors[first:]])  # [P - first, P]
    if centring == "masked":
        inner -= squares[first:] @ squares.T
    if centring == "u":
        # Rows of HKH sum to zero: without the diagonal k they sum to -k.
        sums = squares.sum(axis=1)
        shared = np.outer(sums[first:], sums) / ((count - 1) * (count - 2))
        inner += shared - squares[first:] @ squares.T * (1 + 2 / (count - 2))
    return Products(inner, raw)


def _from_rows(points: Sequence[Point], centring: str, first: int, device: Any) -> Products:
    total = np.zeros((len(points) - first, len(points)))
    for block in _blocks(points, centring, device):
        product = block[first:] @ block.T
        total += product if device is None else product.cpu().numpy()
    return Products(total, np.array([_squared_length(point) for point in points]))


def _squared_length(point: Point) -> float:
    """Return |K|²."""
    if point.factor is not None and 2 * point.factor.shape[1] <= point.inputs:
        return float(np.square(point.factor.T @ point.factor).sum())
    if point.triangle is not None:
        squares = float(np.square(point.triangle, dtype=np.float64).sum())
        return 2 * squares - float(np.square(point.diagonal()).sum())
    total = 0.0
    for start in range(0, point.inputs, 256):
        rows = np.square(point.rows(start, start + 256), dtype=np.float64)
        # Entries right of the block count twice, those within it are there twice already.
        total += 2 * float(rows.sum()) - float(rows[:, : len(rows)].sum())
    return total


def _blocks(points: Sequence[Point], centring: str, device: Any) -> Iterator[Any]:
    """Yield the centred kernels some rows at a time, [P, numbers]: summed products are the inner products."""
    count = points[0].inputs
    dtype = np.float64 if count < SINGLE_PRECISION_INPUTS else np.float32
    means = [
        (np.zeros(count), 0.0) if point.centring == centring else _means(point.diagonal(), point.sums(), centring)
        for point in points
    ]
    # factors are moved to the device once, kernels row by row
    factors = [None if point.factor is None else _put(point.factor, dtype, device) for point in points]
    shifts, levels = [_put(shift, dtype, device) for shift, _ in means], [level for _, level in means]
    step = min(count, max(_ROWS, _NUMBERS // (len(points) * count)))
    for start in range(0, count, step):
        stop = min(start + step, count)
        diagonal = np.arange(stop - start)
        block = _put(np.empty((len(points), stop - start, count - start), dtype=dtype), dtype, device)
        for row, point, factor, shift, level in zip(block, points, factors, shifts, levels, strict=True):
            read = factor is None
            row[...] = _put(point.rows(start, stop), dtype, device) if read else factor[start:stop] @ factor[start:].T
            row -= shift[start:stop, None] - level
            row -= shift[start:]
            if centring != "double":
                row[diagonal, diagonal] = 0.0
        # Pairs within the block occur twice; those with later inputs once, and stand for two.
        block[:, :, stop - start :] *= float(np.sqrt(2.0))
        yield block.reshape(len(points), -1)


def _put(array: np.ndarray, dtype: Any, device: Any) -> Any:
    """Return an array in a precision, as a tensor where there is a device."""
    if device is None:
        return array.astype(dtype, copy=False)
    import torch

    return torch.as_tensor(array.astype(dtype, copy=False), device=device)
