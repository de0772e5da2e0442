"""Error bars of any number computed from a kernel: bootstrap over pieces of its chains, batch means of series."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from losskernel.kernel.estimators import correlation_of, pieces
from losskernel.kernel.loss_kernel import LossKernel

# Of the intervals `x_low` to `x_high`.
LEVEL = 0.9


class Matrices(Protocol):
    """What a statistic may read: the matrices of a kernel, or of one resample of it."""

    @property
    def chains(self) -> int:
        """C."""
        ...

    def covariance(self) -> np.ndarray:
        """K [N, N]."""
        ...

    def correlation(self) -> np.ndarray:
        """R [N, N]."""
        ...

    def coupling(self) -> np.ndarray:
        """R² without floor [N, N]."""
        ...


Statistic = Callable[[Matrices], dict[str, float]]


class Resample(NamedTuple):
    """A kernel whose pieces of chains count more or less than once.

    Attributes:
        grams: A Aᵀ of every piece, [C, B, N, N], summing to K.
        weights: of the pieces, [C, B], mean 1.
        mean: the chains' mean R in the kernel itself, [N, N].
        linked: the kernel's own coupling, [N, N].
    """

    grams: np.ndarray
    weights: np.ndarray
    mean: np.ndarray | float = 0.0
    linked: np.ndarray | float = 0.0

    @property
    def chains(self) -> int:
        """C."""
        return len(self.grams)

    def covariance(self) -> np.ndarray:
        """Return K [N, N]."""
        return np.tensordot(self.weights, self.grams, 2)

    def correlation(self) -> np.ndarray:
        """Return R [N, N]."""
        return correlation_of(self.covariance())

    def coupling(self) -> np.ndarray:
        """Return R² without floor [N, N], to first order in what the resample moves.

        Products of different chains would hide part of the scatter between chains, for each would count with the
        others' weights alone; and the square of the chains' mean has a floor that moves with the weights.
        """
        return self.linked + 2 * self.mean * (self.mean_correlation() - self.mean)

    def mean_correlation(self) -> np.ndarray:
        """Return the mean [N, N] of the chains' own R, each as heavy as its pieces."""
        total = np.zeros(self.grams.shape[2:])
        for weights, grams in zip(self.weights, self.grams, strict=True):
            total += weights.sum() * correlation_of(np.tensordot(weights, grams, 1))
        return total / self.weights.sum()


def bootstrap(kernel: LossKernel, statistic: Statistic, *, replicates: int = 40, seed: int = 0) -> dict[str, float]:
    """Return the statistic's numbers, each `x` with its error `x_se` and 90 % interval `x_low` to `x_high`.

    Every chain is cut into stretches of consecutive draws, about twenty in all. Independent chains and, within
    a chain, long stretches are replicates of one experiment; a resample weights all of them at random
    (exponential weights: the Bayesian bootstrap, in which no chain ever vanishes). Only the scatter of the
    resamples is used, with Student's t: their mean is biased where a statistic has a Monte-Carlo floor, as
    the mean |R| has. There the error is an upper bound.

    The statistic sees matrices [N, N] only; pieces of them are held at once, so restrict N by `kernel.evenly`.

    Source: Rubin 1981 (Bayesian bootstrap); Künsch 1989 (blocks).
    """
    values = statistic(kernel)
    per_chain = pieces(kernel.chains, kernel.draws)
    count = kernel.chains * per_chain
    if count < 2:
        return values
    parts = np.array_split(kernel.features().reshape(kernel.probes, kernel.chains, -1), per_chain, axis=2)
    # Each is symmetric; in this order einsum leaves them contiguous, and every resample reads them all.
    grams = np.stack([np.einsum("ncd,mcd->cmn", part, part, optimize=True) for part in parts], axis=1)
    mean, linked = 0.0, 0.0
    if kernel.chains >= 2:
        mean, linked = Resample(grams, np.ones((kernel.chains, per_chain))).mean_correlation(), kernel.coupling()
    rng = np.random.default_rng(seed)
    scatter: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(replicates):
        weights = rng.exponential(size=(kernel.chains, per_chain))
        for name, value in statistic(Resample(grams, weights / weights.mean(), mean, linked)).items():
            scatter[name].append(value)
    # Exponential weights vary by less than their own mean's share: the factor makes a mean's error the classical one.
    factor = np.sqrt((count + 1) / (count - 1))
    # The error is itself known from so many pieces, by so many resamples.
    freedom = 1 / (1 / (count - 1) + 1 / (replicates - 1))
    result: dict[str, float] = {}
    for name, value in values.items():
        result |= interval(name, value, float(factor * np.std(scatter[name], ddof=1)), freedom)
    return result


def batch_means(name: str, series: np.ndarray) -> dict[str, float]:
    """Return the mean of a series [C, D] with its error and interval, from stretches of consecutive draws."""
    per_chain = pieces(*series.shape)
    means = [part.mean() for chain in series for part in np.array_split(chain, per_chain)]
    return replicate_mean(name, np.array(means), float(series.mean()))


def replicate_mean(name: str, replicates: np.ndarray, value: float | None = None) -> dict[str, float]:
    """Return the mean (or `value`) of independent replicates [n] with its error and interval."""
    mean = float(replicates.mean()) if value is None else value
    if len(replicates) < 2:
        return {name: mean}
    return interval(name, mean, float(replicates.std(ddof=1) / np.sqrt(len(replicates))), len(replicates) - 1)


def interval(name: str, value: float, error: float, freedom: float) -> dict[str, float]:
    """Return `name` and its `_se`, `_low` and `_high`, the 90 % interval by Student's t."""
    reach = t_quantile(freedom) * error
    return {name: value, f"{name}_se": error, f"{name}_low": value - reach, f"{name}_high": value + reach}


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Half-width of a two-sided interval in standard errors, by Student's t."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))
