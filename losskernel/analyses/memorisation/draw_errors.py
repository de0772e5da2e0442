"""Scores of resampled draws: what the chains' finite length leaves open."""

from collections.abc import Iterator

import numpy as np

from losskernel.analyses.memorisation.detection import Draws
from losskernel.analyses.memorisation.scores import groups_of, resampled_scores
from losskernel.kernel.error_bars import Resample
from losskernel.kernel.estimators import correlation_of, pieces
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

_REPLICATES = 40


def resampled_draws(
    traces: LossTraces, given: np.ndarray, wrong: np.ndarray, k: int, limit: int, seed: int
) -> Draws | None:
    """Return scores of kernels whose pieces of chains count more or less than once, as `kernel.error_bars` has them.

    They are of at most `limit` probes, wrong and right ones in the proportion of all; None where those are not of both
    kinds, or where the chains make fewer than two pieces.

    Args:
        traces: of all probes.
        given: label of each probe, [N].
        wrong: [N] bool.
        k: neighbours, opponents and friends.
        limit: probes at most; the matrices are N x N.
        seed: of the weights.
    """
    chosen = proportional(wrong, limit)
    part = LossTraces(traces.dataset.isel(probe=chosen))
    kernel = LossKernel.from_traces(part)
    count = kernel.chains * pieces(kernel.chains, kernel.draws)
    if count < 2 or len(set(wrong[chosen].tolist())) < 2:
        return None
    groups = groups_of(kernel, given[chosen])
    scores = resampled_scores(_resamples(kernel, part, seed), part.record("start_losses"), groups, k)
    return Draws(scores, wrong[chosen], count)


def proportional(wrong: np.ndarray, limit: int) -> np.ndarray:
    """Return at most `limit` probes in order, wrong and right ones in the proportion of all, evenly spaced."""
    if len(wrong) <= limit:
        return np.arange(len(wrong))
    return np.sort(np.argsort(wrong, kind="stable")[np.linspace(0, len(wrong) - 1, limit).astype(int)])


def _resamples(
    kernel: LossKernel, traces: LossTraces, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield K [N, N], R [N, N] and the mean losses [N] of resamples, weights being those of the Bayesian bootstrap."""
    per_chain = pieces(kernel.chains, kernel.draws)
    centred = np.array_split(kernel.features().reshape(kernel.probes, kernel.chains, -1), per_chain, axis=2)
    grams = np.stack([np.einsum("ncd,mcd->cmn", part, part, optimize=True) for part in centred], axis=1)
    losses = np.array_split(traces.losses.transpose("chain", "draw", "probe").values, per_chain, axis=1)
    sums = np.stack([part.sum(axis=1, dtype=np.float64) for part in losses], axis=1)  # [C, B, N]
    lengths = np.array([part.shape[1] for part in losses])
    rng = np.random.default_rng(seed)
    for _ in range(_REPLICATES):
        weights = rng.exponential(size=grams.shape[:2])
        weights /= weights.mean()
        covariance = Resample(grams, weights).covariance()
        mean = np.tensordot(weights, sums, 2) / (weights * lengths).sum()
        yield covariance, correlation_of(covariance), mean
