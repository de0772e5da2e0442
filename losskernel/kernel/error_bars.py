"""Error bars of numbers computed from a kernel: bootstrap over stretches of its chains, batch means of series."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from losskernel.kernel.estimators import correlation_of, pieces, t_quantile
from losskernel.kernel.loss_kernel import LossKernel

# Shifts between chains that show the floor of |R|.
_SHIFTS = 4


class Resample(NamedTuple):
    """A kernel in which stretches of the chains count with random weights.

    Attributes:
        grams: A Aᵀ of every stretch, [C, B, N, N], summing to K.
        weights: of the stretches, [C, B], mean 1.
        correlation_at_one: mean over the chains of their R with all weights 1, [N, N].
        coupling_at_one: the kernel's coupling, that is with all weights 1, [N, N].
    """

    grams: np.ndarray
    weights: np.ndarray
    correlation_at_one: np.ndarray | float = 0.0
    coupling_at_one: np.ndarray | float = 0.0

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
        """Return R² without Monte-Carlo floor [N, N], to first order about weights of 1.

        With R̄(w) the weighted mean of the chains' R, the coupling is R̄² less its floor, so it changes by
        2 R̄(1) (R̄(w) - R̄(1)). Two exact forms are biased: products of different chains see each chain's weights
        only against the others', which hides part of the scatter between chains; and the floor of R̄(w)² itself
        moves with the weights.
        """
        change = self.chain_mean_correlation() - self.correlation_at_one
        return self.coupling_at_one + 2 * self.correlation_at_one * change

    def chain_mean_correlation(self) -> np.ndarray:
        """Return the mean [N, N] of the chains' R, each chain weighted by the sum of its stretches' weights."""
        total = np.zeros(self.grams.shape[2:])
        for weights, grams in zip(self.weights, self.grams, strict=True):
            total += weights.sum() * correlation_of(np.tensordot(weights, grams, 1))
        return total / self.weights.sum()


# The matrices that a statistic may read: those of a kernel, or of one resample of it.
Matrices = LossKernel | Resample
Statistic = Callable[[Matrices], dict[str, float]]


def bootstrap(kernel: LossKernel, statistic: Statistic, *, replicates: int = 40, seed: int = 0) -> dict[str, float]:
    """Return the statistic's numbers, each `x` with its error `x_se` and 90 % interval `x_low` to `x_high`.

    Every chain is cut into stretches of consecutive draws, about twenty in all. Independent chains and, within
    a chain, long stretches are replicates of one experiment; a resample weights all of them at random
    (exponential weights: the Bayesian bootstrap, in which no chain ever vanishes). Only the scatter of the
    resamples is used, with Student's t: their mean is biased where a statistic has a Monte-Carlo floor, as
    the mean |R| has. There the error is an upper bound.

    The matrices [N, N] of all stretches are held at once, so restrict N by `kernel.evenly`.

    Source: Rubin 1981 (Bayesian bootstrap); Künsch 1989 (blocks).
    """
    values = statistic(kernel)
    shape = (kernel.chains, pieces(kernel.chains, kernel.draws))
    count = shape[0] * shape[1]
    if count < 2:
        return values
    resample = _resample_of(kernel, shape)
    rng = np.random.default_rng(seed)
    scatter: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(replicates):
        weights = rng.exponential(size=shape)
        for name, value in statistic(resample._replace(weights=weights / weights.mean())).items():
            scatter[name].append(value)
    # Exponential weights divided by their mean have variance (count - 1) / (count + 1), not 1: with this factor the
    # error of a plain mean is the classical one.
    factor = np.sqrt((count + 1) / (count - 1))
    # The error is estimated from `count` stretches by `replicates` resamples; both limit its degrees of freedom.
    freedom = 1 / (1 / (count - 1) + 1 / (replicates - 1))
    result: dict[str, float] = {}
    for name, value in values.items():
        result |= interval(name, value, float(factor * np.std(scatter[name], ddof=1)), freedom)
    return result


def _resample_of(kernel: LossKernel, shape: tuple[int, int]) -> Resample:
    """Return the kernel as the resample with all weights 1, its chains cut into stretches [C, B]."""
    resample = Resample(stretch_grams(kernel, shape[1]), np.ones(shape))
    if kernel.chains < 2:  # there is no coupling of one chain
        return resample
    return resample._replace(correlation_at_one=resample.chain_mean_correlation(), coupling_at_one=kernel.coupling())


def stretch_grams(kernel: LossKernel, per_chain: int) -> np.ndarray:
    """Return A Aᵀ of every stretch of consecutive draws, `per_chain` of each chain, [C, B, N, N]; they sum to K."""
    stretches = np.array_split(kernel.features().reshape(kernel.probes, kernel.chains, -1), per_chain, axis=2)
    # "cmn" is the order in which einsum's result is contiguous (each matrix is symmetric); every resample reads them.
    return np.stack([np.einsum("ncd,mcd->cmn", part, part, optimize=True) for part in stretches], axis=1)


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


def noise_floor(kernel: LossKernel) -> dict[str, float]:
    """Return `noise_floor`: the mean |R| of probes that know nothing of each other, with its error over four shifts."""
    shifts = range(1, max(2, min(_SHIFTS + 1, kernel.chains)))
    floors = [np.abs(kernel.null_correlation(shift=shift)).mean() for shift in shifts]
    return replicate_mean("noise_floor", np.array(floors))


def interval(name: str, value: float, error: float, freedom: float) -> dict[str, float]:
    """Return `name` and its `_se`, `_low` and `_high`, the 90 % interval by Student's t."""
    reach = t_quantile(freedom) * error
    return {name: value, f"{name}_se": error, f"{name}_low": value - reach, f"{name}_high": value + reach}
