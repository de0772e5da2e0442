"""Estimators on kernel matrices: correlation, coupling, nearest neighbours, standard errors by batch means."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

# Enough pieces for a stable standard error, few enough that each is longer than a chain's autocorrelation time.
PIECES = 20


class Neighbours(NamedTuple):
    """Nearest neighbours of every probe, nearest first, without the probe itself."""

    indices: np.ndarray  # [N, k] int64
    distances: np.ndarray  # [N, k] float64


class Interval(NamedTuple):
    """Confidence bounds of every entry of a matrix."""

    low: np.ndarray  # [n, N] float64
    high: np.ndarray  # [n, N] float64


def inverse(values: np.ndarray) -> np.ndarray:
    """1 / values, with 0 where the value is 0."""
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def correlation_of(covariance: np.ndarray) -> np.ndarray:
    """Return R of K [N, N]: unit diagonal, 0 off it where a variance is 0."""
    scale = inverse(np.sqrt(np.diagonal(covariance)))
    result = np.clip(covariance * scale[:, None] * scale, -1.0, 1.0)
    np.fill_diagonal(result, 1.0)
    return result


def coupling_of(correlations: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean of R_a ∘ R_b over pairs a ≠ b of chains, from each chain's R [n, N]."""
    # Σ_{a≠b} R_a R_b = (Σ R_a)² - Σ R_a²: one pass, without holding the chains' matrices together.
    total, squares, count = np.float64(0.0), np.float64(0.0), 0
    for correlation in correlations:
        total, squares, count = total + correlation, squares + correlation * correlation, count + 1
    return (np.square(total) - squares) / (count * (count - 1))


def nearest(distances: np.ndarray, probes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (indices [n, k], distances [n, k]) of the nearest in each row, without the row's own probe.

    Args:
        distances: [n, N]; the entry of each row's own probe is overwritten.
        probes: [n], the column of each row's own probe.
        k: how many.
    """
    distances[np.arange(len(probes)), probes] = np.inf
    candidates = np.argpartition(distances, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(distances, candidates, axis=1)
    order = np.lexsort((candidates, values), axis=1)  # ties go to the lower index
    return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(values, order, axis=1)


def fisher_interval(correlation: np.ndarray, reach: np.ndarray) -> Interval:
    """Return the interval of R [n, N] whose half-width in R is `reach` to first order, symmetric in artanh R.

    The error of artanh R (Fisher's z) hardly depends on R, and its bounds stay within (-1, 1).
    """
    inside = np.clip(correlation, -1 + 1e-12, 1 - 1e-12)
    stretched = reach / (1 - np.square(inside))  # d artanh R / dR = 1 / (1 - R²)
    bounds = (np.tanh(np.arctanh(inside) + sign * stretched) for sign in (-1, 1))
    return Interval(*(np.where(np.abs(correlation) < 1, bound, correlation) for bound in bounds))


def t_quantile(freedom: float, level: float = 0.9) -> float:
    """Half-width of a two-sided confidence interval in standard errors, by Student's t."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))


def pieces(chains: int, draws: int) -> int:
    """Return into how many stretches of consecutive draws each chain is cut, about twenty in all, two draws each."""
    return max(1, min(-(-PIECES // chains), draws // 2))


def batch_means_error(
    chains: np.ndarray, per_chain: int, chosen: Any, correlation: np.ndarray | None = None
) -> np.ndarray:
    """Standard error [n, N] of the mean products of centred quantities [C, D, N], rows `chosen`, by batch means.

    Each chain is cut into `per_chain` batches of consecutive draws. With `correlation` [n, N] the quantities are
    standardised losses u, and the error is that of R by the delta method: of u_i u_j - R (u_i² + u_j²) / 2.
    """
    total, squares = np.float64(0.0), np.float64(0.0)
    for chain in chains:
        for batch in np.array_split(chain, per_chain):
            mean = batch[:, chosen].T @ batch / len(batch)
            if correlation is not None:
                power = np.mean(batch * batch, axis=0)
                mean -= correlation * (power[chosen, None] + power) / 2
            total, squares = total + mean, squares + mean * mean
    count = len(chains) * per_chain
    # Cancellation may leave a tiny negative variance.
    spread = np.maximum(squares - np.square(total) / count, 0.0) / (count - 1)
    return np.sqrt(spread / count)
