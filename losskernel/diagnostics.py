"""Statistics of chains: arrays in, arrays out; ArviZ where it has the statistic."""

from typing import Any

import numpy as np


def rhat(chains: np.ndarray) -> float:
    """Rank-normalised split R-hat of a quantity [C, D] (Vehtari et al. 2021); NaN where it is constant."""
    if len(chains) == 1:  # ArviZ wants two chains; the halves of one show whether it drifts
        half = chains.shape[1] // 2
        chains = np.stack([chains[0, :half], chains[0, -half:]])
    return _arviz("rhat", chains)


def ess(chains: np.ndarray, tail: float | None = None) -> float:
    """Bulk effective sample size of a quantity [C, D], all chains together; with `tail` that quantile's."""
    return _arviz("ess", chains, method="bulk") if tail is None else _arviz("ess", chains, method="quantile", prob=tail)


def _arviz(name: str, chains: np.ndarray, **options: Any) -> float:
    # Loaded here: ArviZ costs seconds to import, and most callers of this module never need it.
    import arviz

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


def drop_fraction(chains: np.ndarray) -> float:
    """Difference of the means of a quantity's [C, D] last and first quarter, in units of its within-chain spread."""
    quarter = max(1, chains.shape[1] // 4)
    spread = np.sqrt(chains.var(axis=1).mean())
    difference = chains[:, -quarter:].mean() - chains[:, :quarter].mean()
    return float(difference / spread) if spread > 0 else 0.0


def relaxation_steps(step_size: float, localization: float) -> float:
    """Steps in which a direction without curvature forgets its start: 2 / (ε γ); infinite for γ = 0."""
    rate = step_size * localization
    return 2 / rate if rate > 0 else float("inf")


def split_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of the off-diagonal entries of two matrices [N, N]."""
    above = np.triu_indices(len(first), 1)
    a, b = first[above], second[above]
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


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
            own = batch[:, chosen].T @ batch / len(batch)
            if correlation is not None:
                power = np.mean(batch * batch, axis=0)
                own -= correlation * (power[chosen, None] + power) / 2
            total, squares = total + own, squares + own * own
    count = len(chains) * per_chain
    spread = np.maximum(squares - np.square(total) / count, 0.0) / (count - 1)
    return np.sqrt(spread / count)


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
