"""Statistics of chains: arrays in, numbers out; ArviZ where it has the statistic."""

import math
from typing import Any

import numpy as np

from losskernel.kernel.estimators import inverse

_TAILS = (0.05, 0.95)  # quantiles whose effective draws are those of the tails
_PROBES = 500  # over whose pairs the error of rounding is averaged
# Rounding errors are held to this share of a loss's variance; beyond it nothing of the loss could be restored.
_LARGEST_SHARE = 0.99


def rhat(chains: np.ndarray) -> float:
    """Rank-normalised split R-hat of a quantity [C, D] (Vehtari et al. 2021); NaN where it is constant."""
    if len(chains) == 1:  # ArviZ requires two chains; the halves of one show whether it drifts
        half = chains.shape[1] // 2
        chains = np.stack([chains[0, :half], chains[0, -half:]])
    return _of_chains("rhat", chains)


def rhat_by_chance(chains: int, effective: float) -> float:
    """R-hat that chains in perfect agreement exceed once in a thousand, given their effective draws in all.

    The halves' means scatter by chance: their variance over its expectation is chi² / dof, and R-hat is about
    1 + (chi² / dof) · chains / effective.
    """
    from scipy.stats import chi2

    freedom = 2 * chains - 1
    return float(1 + chi2.ppf(0.999, freedom) / freedom * chains / effective)


def rhat_bound(chains: int, effective: float) -> float:
    """R-hat up to which chains pass: 1.01, or what they reach by chance, and never more than 1.05; 1.01 for NaN."""
    by_chance = 0.0 if math.isnan(effective) else rhat_by_chance(chains, effective)
    return min(max(1.01, by_chance), 1.05)


def ess(chains: np.ndarray, method: str = "bulk") -> float:
    """Effective sample size of a quantity [C, D], all chains together: "bulk", or "tail" (5 and 95 % quantiles)."""
    return _of_chains("ess", chains, method=method, **({"prob": _TAILS} if method == "tail" else {}))


def load_arviz() -> Any:
    """Return the array functions of ArviZ, imported on first use because the import takes a second."""
    from arviz_stats.base.array import array_stats

    return array_stats


def _of_chains(name: str, chains: np.ndarray, **options: Any) -> float:
    chains = np.asarray(chains, dtype=np.float64)
    if np.ptp(chains) == 0 or chains.shape[1] < 4:
        return float("nan")
    return float(getattr(load_arviz(), name)(chains, **options))


def trend_share(losses: np.ndarray) -> float:
    """Share of the total loss variance [C, D, N] that a straight line in the draw index explains, per chain.

    A drifting chain has a share near 1 (public reports: 0.88 to 0.99); independent draws have about 1 / D.
    """
    centred = losses - losses.mean(axis=1, keepdims=True, dtype=np.float64)
    time = np.linspace(-1.0, 1.0, losses.shape[1])
    slope = np.einsum("d,cdn->cn", time, centred) / np.square(time).sum()
    return _ratio(np.square(slope).sum() * np.square(time).sum(), np.square(centred).sum())


def shared_mode_share(losses: np.ndarray) -> float:
    """Share of the total covariance of losses [C, D, N] that the all-probes-together mode carries: 1'K1 / (N tr K)."""
    centred = losses - losses.mean(axis=1, keepdims=True, dtype=np.float64)
    return _ratio(np.square(centred.sum(axis=2)).sum(), losses.shape[2] * np.square(centred).sum())


def transient(chains: np.ndarray) -> float:
    """Distance of the start of a quantity [C, D] from the rest, in standard deviations of equal stretches.

    The draws are cut into 100, 50 and 20 stretches; the largest score of the first ones, negative below the rest.
    """
    count, draws = chains.shape
    scores = [0.0]
    for stretches in (100, 50, 20):
        length = draws // stretches
        if length > 0:
            means = chains[:, : length * stretches].reshape(count, stretches, length).mean((0, 2))
            spread = means[1:].std(ddof=1)
            scores.append((means[0] - means[1:].mean()) / spread if spread > 0 else 0.0)
    return float(max(scores, key=abs))


def chain_spread(unit: np.ndarray) -> np.ndarray:
    """Variance of each chain of standardised losses [C, D, N] relative to the median chain's, [C]."""
    variances = np.square(unit).mean((1, 2))
    median = np.median(variances)
    return variances / median if median > 0 else np.ones(len(variances))


def twins(chains: np.ndarray) -> tuple[int, int] | None:
    """Return two chains whose quantity [C, D] takes the same steps (correlation above 0.99), or None."""
    # Steps rather than levels: chains with the same drift are not the same chain.
    steps = np.diff(chains, axis=1)
    moving = np.flatnonzero(np.ptp(steps, axis=1) > 0) if steps.shape[1] > 2 else np.array([])
    if len(moving) < 2:
        return None
    alike = np.triu(np.corrcoef(steps[moving]), 1) > 0.99
    matches = np.argwhere(alike)
    return (int(moving[matches[0, 0]]), int(moving[matches[0, 1]])) if len(matches) else None


def chain_correlation(unit: np.ndarray) -> tuple[float, float]:
    """Mean correlation of the steps of different chains' losses [C, D, N] from draw to draw, and its score.

    Independent chains have none. The score is in units of the scatter over relative shifts of the chains,
    which keep their memory and remove what they share (minibatches, noise).
    """
    unit = np.diff(unit, axis=1)  # differences, because a common drift is not a common minibatch
    chains, draws, _ = unit.shape
    energy = np.square(unit).sum()
    if chains < 2 or draws < 20 * chains or energy == 0:
        return 0.0, 0.0

    def shared(shift: int) -> float:
        # |Σ_a u_a|² / Σ_a |u_a|² = 1 + (C - 1) · mean correlation of different chains.
        summed = sum(np.roll(chain, number * shift, axis=0) for number, chain in enumerate(unit))
        return float((np.square(summed).sum() / energy - 1) / (chains - 1))

    shifts = np.unique(np.linspace(draws // (2 * chains), draws // chains, 20).astype(int))
    null = np.array([shared(int(shift)) for shift in shifts])
    return shared(0), float((shared(0) - null.mean()) / null.std(ddof=1))


def heavy_share(unit: np.ndarray) -> float:
    """Share of the covariance that the heaviest hundredth of the draws of standardised losses [C, D, N] carries."""
    energy = np.sort(np.square(unit).sum(2).ravel())
    return _ratio(energy[-max(1, len(energy) // 100) :].sum(), energy.sum())


def tail_index(products: np.ndarray) -> float:
    """Pareto index of the tail of a quantity's [C, D] absolute values: from 1/2 no variance, from 1 no mean.

    Fitted to the largest min(n / 5, 3 √n) of the n values, as in Pareto-smoothed importance sampling; ArviZ's own
    fit has no public entry that takes exceedances.

    Source: Vehtari et al. 2024, appendix; Zhang and Stephens 2009.
    """
    sizes = np.sort(np.abs(products), axis=None)
    if np.ptp(sizes) == 0 or len(sizes) < 100:
        return float("nan")
    tiny = np.finfo(float).tiny
    log = np.log(sizes + tiny)
    log -= log[-1]  # relative to the largest value, so that nothing overflows
    count = math.ceil(min(len(sizes) / 5, 3 * math.sqrt(len(sizes))))
    threshold = max(log[-count - 1], math.log(tiny))
    exceedances = np.exp(log[log > threshold]) - np.exp(threshold)
    return _pareto_shape(exceedances) if len(exceedances) > 4 else float("inf")


def _pareto_shape(exceedances: np.ndarray) -> float:
    """Shape k of the generalised Pareto distribution of exceedances [n], sorted, shrunk weakly towards 1/2.

    The posterior mean of b = -k / σ over a grid, whose prior is set by the first quartile and the maximum.
    """
    n = len(exceedances)
    points = 30 + int(n**0.5)
    grid = 1 - np.sqrt(points / (np.arange(1, points + 1, dtype=float) - 0.5))
    grid = grid / (3 * exceedances[int(n / 4 + 0.5) - 1]) + 1 / exceedances[-1]
    shapes = np.log1p(-grid[:, None] * exceedances).mean(axis=1)
    log_likelihood = n * (np.log(-(grid / shapes)) - shapes - 1)
    with np.errstate(over="ignore"):  # an infinite sum is a weight of 0
        weights = 1 / np.exp(log_likelihood - log_likelihood[:, None]).sum(axis=1)
    # Negligible weights are dropped, as ArviZ does, so that they cannot add rounding errors.
    kept = weights >= 10 * np.finfo(float).eps
    weights, grid = weights[kept], grid[kept]
    weights /= weights.sum()
    shape = np.log1p(-np.sum(grid * weights) * exceedances).mean()
    return float((n * shape + 10 * 0.5) / (n + 10))


def precision_error(differences: np.ndarray, losses: np.ndarray) -> float:
    """Return the root mean square error that rounding puts on the entries of R off the diagonal.

    A measured loss is l + e, with e the rounding error. With b_i the share of e in the variance of probe i's measured
    loss and ρ_ij the correlation of two probes' errors, the measured R̃ is R √((1-b_i)(1-b_j)) + ρ_ij √(b_i b_j) and
    noise of variance (b_i + b_j - b_i b_j) / T over T draws, e being independent of l and from draw to draw. The
    squares of the three parts are added: what attenuation takes, what common errors add (without the squares that K
    positions make by chance), and the noise. A constant e changes nothing.

    Args:
        differences: [C, K, N], losses in lower minus full precision at K positions of each chain.
        losses: [C, D, N], as measured.
    """
    variance = losses.var(axis=1, ddof=1, dtype=np.float64).mean(0)
    moving = np.flatnonzero(variance > 0)
    if len(moving) < 2:
        return float("nan")
    chosen = moving[np.linspace(0, len(moving) - 1, min(len(moving), _PROBES)).astype(int)]
    unit = _centred(losses[:, :, chosen]) * inverse(np.sqrt(variance[chosen]))
    errors = _centred(differences[:, :, chosen]) * inverse(np.sqrt(variance[chosen]))
    freedom = len(differences) * (differences.shape[1] - 1)
    measured = unit.T @ unit / (len(unit) - len(losses))
    shared = errors.T @ errors / freedom
    share = np.minimum(np.diagonal(shared), _LARGEST_SHARE)
    pairs = np.triu_indices(len(chosen), 1)
    first, second = share[pairs[0]], share[pairs[1]]
    restored = np.clip(measured[pairs] / np.sqrt((1 - first) * (1 - second)), -1, 1)
    attenuation = np.square(restored - measured[pairs]).mean()
    common = (np.square(shared[pairs]).mean() - (first * second).mean() / freedom) / (1 + 1 / freedom)
    noise = (first + second - first * second).mean() / len(unit)
    return float(np.sqrt(attenuation + max(common, 0.0) + noise))


def _centred(values: np.ndarray) -> np.ndarray:
    """Remove each chain's mean from [C, D, n]; the rows of all chains, [C·D, n]."""
    return (values - values.mean(axis=1, keepdims=True, dtype=np.float64)).reshape(-1, values.shape[2])


def relaxation_steps(step_size: float, localization: float) -> float:
    """Steps in which a direction without curvature forgets its start: 2 / (ε γ); infinite for γ = 0."""
    rate = step_size * localization
    return 2 / rate if rate > 0 else float("inf")


def split_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of the off-diagonal entries of two matrices [N, N]."""
    above = np.triu_indices(len(first), 1)
    a, b = first[above], second[above]
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def leading_modes(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (eigenvalues [M] of A Aᵀ, largest first, leading eigenvectors [count, N]) of rows A [N, S].

    Works in the smaller of probe and draw space, so that neither N × N nor S × S need fit alone.
    """
    probes, draws = rows.shape
    if probes <= draws:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        values, modes = values[::-1], vectors.T[::-1][:count]
    else:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        values, vectors = values[::-1], vectors[:, ::-1][:, :count]
        scale = np.sqrt(np.maximum(values[:count], np.finfo(float).tiny))
        modes = (rows @ vectors / scale).T
    return np.maximum(values, 0.0), modes


def effective_rank(eigenvalues: np.ndarray) -> float:
    """Participation ratio (Σλ)² / Σλ²: how many directions carry the kernel."""
    return _ratio(eigenvalues.sum() ** 2, np.square(eigenvalues).sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0
