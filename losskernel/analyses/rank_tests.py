"""Does a similarity follow a distance? Rank correlations and their permutation tests; arrays in, numbers out.

Everywhere a positive correlation means agreement: the more alike, the nearer.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import kendalltau, rankdata

# Beyond this many pairs Kendall's tau is that of a seeded sample: its error is then about 0.003.
KENDALL_PAIRS = 50_000
# Relabellings that give the same matrix give the same correlation up to rounding.
_ROUNDING = 1e-9


class Permuted(NamedTuple):
    """A correlation with its permutation test.

    Attributes:
        correlation: as observed; NaN where it is undefined.
        p: one-sided, (1 + count) / (1 + permutations).
        low: 5 % quantile of the permuted correlations.
        high: 95 % quantile of the permuted correlations.
    """

    correlation: float
    p: float
    low: float
    high: float


_UNDEFINED = Permuted(*[float("nan")] * 4)


def spearman(similarity: np.ndarray, distance: np.ndarray) -> float:
    """Return Spearman's rank correlation of -similarity [P] and distance [P]; NaN where either is constant."""
    return float(_standard(-np.asarray(similarity)) @ _standard(distance))


def kendall(similarity: np.ndarray, distance: np.ndarray, seed: int = 0) -> float:
    """Return Kendall's tau-b of -similarity [P] and distance [P]; NaN where either is constant.

    Of more than KENDALL_PAIRS entries a sample is taken.
    """
    similarity, distance = np.asarray(similarity), np.asarray(distance)
    if len(similarity) > KENDALL_PAIRS:
        chosen = np.random.default_rng(seed).choice(len(similarity), KENDALL_PAIRS, replace=False)
        similarity, distance = similarity[chosen], distance[chosen]
    if np.ptp(similarity) == 0 or np.ptp(distance) == 0:
        return float("nan")
    result: Any = kendalltau(-similarity, distance)
    return float(result.statistic)


def partial(similarity: np.ndarray, distance: np.ndarray, given: np.ndarray) -> float:
    """Return the partial rank correlation of -similarity [P] and distance [P], given a further quantity [P].

    NaN where it is undefined: one is constant, or the given one ranks the pairs as one of the others does.
    """
    kernel, known, third = (_standard(values) for values in (-np.asarray(similarity), distance, given))
    return float(_partial(kernel @ known, third @ known, float(kernel @ third), 1.0))


def mantel(similarity: np.ndarray, distance: np.ndarray, permutations: int = 999, seed: int = 0) -> Permuted:
    """Test the rank correlation of a similarity [G, G] with a distance [G, G] over pairs of classes.

    Pairs share classes, so that they are no independent observations; the classes are permuted instead. The
    diagonals are left out.

    Source: Mantel 1967, with ranks for values.
    """
    first, second = _standard(-upper(similarity)), _standard(upper(distance))
    observed = float(first @ second)
    if not np.isfinite(observed):
        return _UNDEFINED
    null = _permuted(second, np.stack([first]), permutations, seed)[:, 0]
    return _tested(observed, null)


def partial_mantel(
    similarity: np.ndarray, distance: np.ndarray, given: np.ndarray, permutations: int = 999, seed: int = 0
) -> Permuted:
    """Test the partial rank correlation of a similarity with a distance given a third matrix, all [G, G].

    What the third matrix leaves unexplained of the distance is permuted over the classes: the residuals of the
    null model, which keep the level of the test where permuted raw values need not.

    Source: Smouse, Long and Sokal 1986; Legendre 2000, method 2.
    """
    kernel, known, third = (_standard(values) for values in (-upper(similarity), upper(distance), upper(given)))
    # The residual is permuted, not the ranks: see the reference.
    residual = known - (known @ third) * third  # [P]
    size, shared = float(residual @ residual), float(kernel @ third)
    observed = float(_partial(kernel @ residual, 0.0, shared, size))
    if not np.isfinite(observed):
        return _UNDEFINED
    null = _permuted(residual, np.stack([kernel, third]), permutations, seed)
    return _tested(observed, _partial(null[:, 0], null[:, 1], shared, size))


def upper(matrix: np.ndarray) -> np.ndarray:
    """Return the entries [G (G - 1) / 2] of a matrix [G, G] above its diagonal, row by row."""
    return np.asarray(matrix)[np.triu_indices(len(matrix), 1)]


def full_length(halves: float, growth: float = 2.0) -> float:
    """Return the reliability of the whole from the correlation of its parts, `growth` times shorter.

    Source: Spearman 1910; Brown 1910.
    """
    return growth * halves / (1 + (growth - 1) * halves)


def ceiling(correlation: float, reliability: float) -> float:
    """Return what a correlation would be were the similarity free of noise; NaN where it is nothing but noise.

    Source: Spearman 1904 (attenuation).
    """
    if reliability <= 0:
        return float("nan")
    return float(np.clip(correlation / np.sqrt(reliability), -1.0, 1.0))


def doubling(reliability: float) -> float:
    """Return how many times more draws double a correlation with a quantity that is known exactly.

    The variance of the noise is taken to fall as 1 / draws. With k times the draws the reliability r becomes
    k r / (1 + (k - 1) r), and the correlation grows as its square root: it doubles at k = 4 (1 - r) / (1 - 4 r),
    and never where r >= 1/4, for the ceiling is then nearer than twice its value (infinity is returned).

    Source: Spearman 1904 and 1910; Brown 1910.
    """
    r = max(reliability, 0.0)
    return 4 * (1 - r) / (1 - 4 * r) if r < 0.25 else float("inf")


def _standard(values: np.ndarray) -> np.ndarray:
    """Return ranks [P], centred, of unit length; NaN where all are tied, as is then every number computed from them."""
    ranks = rankdata(values)  # ties at their mean rank
    ranks -= ranks.mean()
    length = np.linalg.norm(ranks)
    return ranks / (length if length > 0 else np.nan)


def _square(values: np.ndarray) -> np.ndarray:
    """Return the symmetric matrix [G, G] with zero diagonal of the entries above it."""
    size = round((1 + np.sqrt(1 + 8 * len(values))) / 2)
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size, 1)] = values
    return matrix + matrix.T


def _permuted(moved: np.ndarray, fixed: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Return the products [permutations, M] of M matrices with one whose classes are permuted, all as pairs [P]."""
    matrix, others = _square(moved), np.stack([_square(values).ravel() for values in fixed])
    rng = np.random.default_rng(seed)
    products = np.empty((permutations, len(fixed)))
    for number in range(permutations):
        order = rng.permutation(len(matrix))  # of classes: rows and columns alike
        # Half, for a symmetric matrix holds every pair twice.
        products[number] = others @ matrix.take(order, axis=0).take(order, axis=1).ravel() / 2
    return products


def _partial(with_known: np.ndarray, third_known: np.ndarray | float, shared: float, size: float) -> np.ndarray:
    """Partial correlation from products with something of squared length `size`, given a third of unit length."""
    left = (size - np.square(third_known)) * (1 - shared**2)  # what the third leaves of both, squared
    top = with_known - third_known * shared
    defined = left > _ROUNDING
    return np.where(defined, top / np.sqrt(np.where(defined, left, 1.0)), np.nan)


def _tested(observed: float, null: np.ndarray) -> Permuted:
    """Return a correlation with its one-sided p-value, itself counted among the permuted ones."""
    p = (1 + np.count_nonzero(null >= observed - _ROUNDING)) / (1 + len(null))
    low, high = np.quantile(null, [0.05, 0.95])
    return Permuted(observed, float(p), float(low), float(high))
