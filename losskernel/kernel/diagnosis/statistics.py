"""Statistics of chains: arrays in, arrays out; ArviZ where it has the statistic."""

import warnings
from typing import Any

import numpy as np

from losskernel.kernel.estimators import inverse

_PROBES = 500  # over whose pairs the error is averaged
_WHOLE = 0.99  # of a loss's variance; what is said of the rest would be noise


def rhat(chains: np.ndarray) -> float:
    """Rank-normalised split R-hat of a quantity [C, D] (Vehtari et al. 2021); NaN where it is constant."""
    if len(chains) == 1:  # ArviZ wants two chains; the halves of one show whether it drifts
        half = chains.shape[1] // 2
        chains = np.stack([chains[0, :half], chains[0, -half:]])
    return _arviz("rhat", chains)


def rhat_by_chance(chains: int, effective: float) -> float:
    """R-hat that chains in perfect agreement exceed once in a thousand, given their effective draws in all.

    The halves' means scatter by chance: their variance over its expectation is chi² / dof, and R-hat is about
    1 + (chi² / dof) · chains / effective.
    """
    from scipy.stats import chi2

    freedom = 2 * chains - 1
    return float(1 + chi2.ppf(0.999, freedom) / freedom * chains / effective)


def ess(chains: np.ndarray, method: str = "bulk") -> float:
    """Effective sample size of a quantity [C, D], all chains together: "bulk", or "tail" (5 and 95 % quantiles)."""
    return _arviz("ess", chains, method=method)


def load_arviz() -> Any:
    """Return ArviZ, which costs seconds to load and once a day warns of its next version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def _arviz(name: str, chains: np.ndarray, **options: Any) -> float:
    arviz = load_arviz()
    chains = np.asarray(chains, dtype=np.float64)
    if np.ptp(chains) == 0 or chains.shape[1] < 4:
        return float("nan")
    return float(getattr(arviz, name)(chains, **options))


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
    """How far the start of a quantity [C, D] lies from the rest, in units of the scatter of equal stretches.

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
    own = np.square(unit).mean((1, 2))
    middle = np.median(own)
    return own / middle if middle > 0 else np.ones(len(own))


def twins(chains: np.ndarray) -> tuple[int, int] | None:
    """Return two chains whose quantity [C, D] takes the same steps (correlation above 0.99), or None."""
    # Steps, for chains that drift alike are not one chain.
    steps = np.diff(chains, axis=1)
    moving = np.flatnonzero(np.ptp(steps, axis=1) > 0) if steps.shape[1] > 2 else np.array([])
    if len(moving) < 2:
        return None
    alike = np.triu(np.corrcoef(steps[moving]), 1) > 0.99
    found = np.argwhere(alike)
    return (int(moving[found[0, 0]]), int(moving[found[0, 1]])) if len(found) else None


def chain_correlation(unit: np.ndarray) -> tuple[float, float]:
    """Mean correlation of the steps of different chains' losses [C, D, N] from draw to draw, and its score.

    Independent chains have none. The score is in units of the scatter over relative shifts of the chains,
    which keep their memory and remove what they share (minibatches, noise).
    """
    unit = np.diff(unit, axis=1)  # a drift would be shared as well
    chains, draws, _ = unit.shape
    own = np.square(unit).sum()
    if chains < 2 or draws < 20 * chains or own == 0:
        return 0.0, 0.0

    def shared(shift: int) -> float:
        together = sum(np.roll(chain, place * shift, axis=0) for place, chain in enumerate(unit))
        return float((np.square(together).sum() / own - 1) / (chains - 1))

    shifts = np.unique(np.linspace(draws // (2 * chains), draws // chains, 20).astype(int))
    null = np.array([shared(int(shift)) for shift in shifts])
    return shared(0), float((shared(0) - null.mean()) / null.std(ddof=1))


def heavy_share(unit: np.ndarray) -> float:
    """Share of the covariance that the heaviest hundredth of the draws of standardised losses [C, D, N] carries."""
    energy = np.sort(np.square(unit).sum(2).ravel())
    return _ratio(energy[-max(1, len(energy) // 100) :].sum(), energy.sum())


def tail_index(products: np.ndarray) -> float:
    """Pareto index of the tail of a quantity's [C, D] absolute values: from 1/2 no variance, from 1 no mean."""
    arviz = load_arviz()
    sizes = np.abs(products).ravel()
    if np.ptp(sizes) == 0 or len(sizes) < 100:
        return float("nan")
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.filterwarnings("ignore", module="arviz")  # about a use of its that is not ours
        return float(arviz.psislw(np.log(sizes + np.finfo(float).tiny))[1])


def precision_error(differences: np.ndarray, losses: np.ndarray) -> float:
    """Return the root mean square error that rounding puts on the entries of R off the diagonal.

    A measured loss is l + e. With b_i the share of e in the variance of probe i's measured loss and ρ_ij the
    correlation of two probes' errors, the measured R̃ is R √((1-b_i)(1-b_j)) + ρ_ij √(b_i b_j) and noise of
    variance (b_i + b_j - b_i b_j) / T over T draws, e being independent of l and from draw to draw. The squares
    of the three parts are added: what attenuation takes, what common errors add (without the squares that K
    places make by chance), and the noise. A constant e changes nothing.

    Args:
        differences: [C, K, N], lower minus full precision at K places of each chain.
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
    share = np.minimum(np.diagonal(shared), _WHOLE)
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
