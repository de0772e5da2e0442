"""Do probes with high scores flip first? Rank correlations and concordance with flip radii, with errors and p-values.

All are positive, or above one half, where a high score goes with a SMALL radius. Scores are the columns of [N, S];
radii [N] are infinite where a probe never flipped.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from losskernel.kernel.error_bars import interval

STATISTICS = ("spearman", "partial", "concordance")
_REPLICATES = 100  # of the probes, for errors of rank correlations


def spearman(scores: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each score with minus the radii, [S]; NaN for a score that is constant.

    Probes that never flipped share a rank.
    """
    return _unit(rankdata(scores, axis=0)).T @ _unit(-rankdata(radii)[:, None])[:, 0]


def partial_spearman(scores: np.ndarray, radii: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the same with the ranks of other scores `held` [N, H] taken out of both, [S]; NaN if nothing is left."""
    basis = _basis(held)
    return _residuals(scores, basis).T @ _residuals(-radii[:, None], basis)[:, 0]


def concordance(scores: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of pairs with different radii in which the higher score flips first, and its error, [S] each.

    Equal scores count one half; two probes that never flipped are no pair. The error is over probes, by the
    infinitesimal jackknife. Without such pairs the share is one half and its error 0.

    Source: Harrell et al. 1982 (C index).
    """
    count, columns = scores.shape
    won, met = np.zeros((count, columns)), np.zeros(count)  # of each probe's pairs: won by the score, and all
    # In blocks of rows: all pairs at once would be an N x N matrix per score.
    for block in np.array_split(np.arange(count), max(1, count // 256)):
        first = radii[block, None] < radii  # [n, N]: the row's probe flips first
        met[block] += first.sum(axis=1)
        met += first.sum(axis=0)
        for column, score in enumerate(scores.T):
            difference = np.sign(score[block, None] - score)  # [n, N]
            wins = np.where(first, (1 + difference) / 2, 0.0)
            won[block, column] += wins.sum(axis=1)
            won[:, column] += wins.sum(axis=0)
    total = met.sum()  # every pair counts with both of its probes
    if total == 0:
        return np.full(columns, 0.5), np.zeros(columns)
    values = won.sum(axis=0) / total  # [S]
    # A probe's weight moves every pair that it has a part in.
    influence = 2 * (won - values * met[:, None]) / total
    return values, np.sqrt(np.square(influence).sum(axis=0))


def over_probes(
    scores: np.ndarray, radii: np.ndarray, held: np.ndarray, replicates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard errors [S] of `spearman` and `partial_spearman`, by resampling probes."""
    rng = np.random.default_rng(seed)
    plain, partial = [], []
    for _ in range(replicates):
        drawn = rng.integers(len(radii), size=len(radii))  # probes, with replacement
        plain.append(spearman(scores[drawn], radii[drawn]))
        partial.append(partial_spearman(scores[drawn], radii[drawn], held[drawn]))
    return _spread(plain), _spread(partial)


def over_draws(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the jackknife error [S] of a statistic from its values with each piece of the chains left out."""
    pieces = len(values)
    return np.sqrt((pieces - 1) * np.var(values, axis=0))


def permutation_p(scores: np.ndarray, radii: np.ndarray, held: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Return two-sided p-values [S] of `partial_spearman` (with no held column: of `spearman`).

    What the held ranks leave of the radii is permuted over the probes; p = (1 + count) / (1 + permutations).

    Source: Kennedy 1995.
    """
    basis = _basis(held)
    score_rests, rest = _residuals(scores, basis), _residuals(-radii[:, None], basis)[:, 0]
    rng = np.random.default_rng(seed)
    observed = np.abs(score_rests.T @ rest) - 1e-12  # permutations that change nothing differ by rounding
    count = np.zeros(len(observed))
    for _ in range(permutations):
        count += np.abs(score_rests.T @ rng.permutation(rest)) >= observed
    return np.where(np.isnan(observed), np.nan, (1 + count) / (1 + permutations))


def _spread(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the standard deviation [S] over resamples, without those in which a score is constant."""
    known = np.ma.masked_invalid(np.stack(values))
    return np.ma.filled(known.std(axis=0, ddof=1), np.nan)


def _basis(held: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis [N, r] of the constant and the ranks of some scores [N, H]."""
    columns = np.column_stack([np.ones(len(held)), rankdata(held, axis=0)]) if held.size else np.ones((len(held), 1))
    left, values, _ = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), full_matrices=False)
    return left[:, values > 1e-10 * values[0]]


def _residuals(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return what the basis leaves of the ranks of each column [N, S], of length one; NaN where it leaves nothing."""
    ranks = rankdata(values, axis=0)
    rest = ranks - basis @ (basis.T @ ranks)  # [N, S]
    rest[:, np.linalg.norm(rest, axis=0) < 1e-9 * np.linalg.norm(ranks, axis=0)] = 0.0
    return _unit(rest)


def _unit(values: np.ndarray) -> np.ndarray:
    """Return columns [N, S] without their means and of length one; constant ones are NaN."""
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return centred / np.where(length > 0, length, np.nan)


def relations(
    scores: Mapping[str, np.ndarray],
    left_out: Sequence[Mapping[str, np.ndarray]],
    radii: np.ndarray,
    held: Sequence[str],
    permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Return one row per score: Spearman, partial Spearman and concordance with errors, intervals and p-values.

    Errors join the scatter over probes and, for scores of the kernel, over its chains; intervals are of 90 %.

    Args:
        scores: name -> [N].
        left_out: the kernel's scores again, with each piece of its chains left out in turn.
        radii: sizes at which the probes flip, infinite for those that never did, [N].
        held: scores that the partial correlations hold fixed; of such a score itself, the others.
        permutations, seed: of the probes, for p-values; of these and of resamples.
    """
    rows: dict[str, dict[str, object]] = {}
    free = [name for name in scores if name not in held]
    # Scores of which the same others are held fixed are computed together.
    for group in filter(None, [free, *([name] for name in held)]):
        fixed = [name for name in held if name not in group]
        columns, others = _columns(group, scores), _columns(fixed, scores)  # [N, S], [N, H]
        without = [_statistics(_columns(group, {**scores, **part}), radii, others) for part in left_out]
        p_values = {
            "spearman": permutation_p(columns, radii, others[:, :0], permutations, seed),
            "partial": permutation_p(columns, radii, others, permutations, seed),
        }
        values, errors = _statistics(columns, radii, others), _errors(columns, radii, others, seed)
        for index, name in enumerate(group):
            rows[name] = {"score": name, "held": ", ".join(fixed)}
            for statistic in STATISTICS:
                drawn = over_draws([part[statistic] for part in without])[index] if len(without) > 1 else 0.0
                both = _joined(errors[statistic][index], len(radii) - 1, drawn, len(without) - 1)
                rows[name] |= interval(statistic, float(values[statistic][index]), *both)
                if statistic in p_values:
                    rows[name][f"{statistic}_p"] = float(p_values[statistic][index])
    return pd.DataFrame([rows[name] for name in scores])


def _errors(scores: np.ndarray, radii: np.ndarray, held: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the error over probes of each statistic, [S]."""
    plain, partial = over_probes(scores, radii, held, _REPLICATES, seed)
    return dict(zip(STATISTICS, (plain, partial, concordance(scores, radii)[1]), strict=True))


def _statistics(scores: np.ndarray, radii: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
    values = spearman(scores, radii), partial_spearman(scores, radii, held), concordance(scores, radii)[0]
    return dict(zip(STATISTICS, values, strict=True))


def _columns(names: Sequence[str], scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return some scores as columns [N, S]."""
    columns = [scores[name] for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(next(iter(scores.values()))), 0))


def _joined(first: float, freedom: float, second: float, other: float) -> tuple[float, float]:
    """Return the error of two independent sources together, and its degrees of freedom (Welch 1947)."""
    total = first**2 + second**2
    if total == 0:
        return 0.0, freedom
    share = second**2 / total
    return float(np.sqrt(total)), 1 / ((1 - share) ** 2 / freedom + (share**2 / other if share > 0 else 0.0))
