"""One table: how every score of the probes relates to their flip radii."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from losskernel.analyses.robustness import rank_association as association
from losskernel.kernel.error_bars import interval

STATISTICS = ("spearman", "partial", "concordance")
_REPLICATES = 100  # of the probes, for errors of rank correlations


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
        permutations: of the probes, for p-values.
        seed: fixes resamples and permutations.
    """
    rows: dict[str, dict[str, object]] = {}
    free = [name for name in scores if name not in held]
    for group in [free, *([name] for name in held)]:
        fixed = [name for name in held if name not in group]
        if group:
            rows |= _rows(group, fixed, scores, left_out, radii, permutations, seed)
    return pd.DataFrame([rows[name] for name in scores])


def _rows(
    group: Sequence[str],
    fixed: Sequence[str],
    scores: Mapping[str, np.ndarray],
    left_out: Sequence[Mapping[str, np.ndarray]],
    radii: np.ndarray,
    permutations: int,
    seed: int,
) -> dict[str, dict[str, object]]:
    """Return the rows of some scores of which the partial correlations hold the same others fixed."""
    own, others = _columns(group, scores), _columns(fixed, scores)
    plain, partial = association.over_probes(own, radii, others, _REPLICATES, seed)
    values, concordance = _statistics(own, radii, others), association.concordance(own, radii)[1]
    without = [_statistics(_columns(group, {**scores, **part}), radii, others) for part in left_out]
    nothing = np.empty((len(radii), 0))
    chance = {
        "spearman": association.permutation_p(own, radii, nothing, permutations, seed),
        "partial": association.permutation_p(own, radii, others, permutations, seed),
    }
    rows: dict[str, dict[str, object]] = {name: {"score": name, "held": ", ".join(fixed)} for name in group}
    for statistic, errors in zip(STATISTICS, (plain, partial, concordance), strict=True):
        drawn = association.over_draws([part[statistic] for part in without]) if len(without) > 1 else 0 * errors
        for place, name in enumerate(group):
            error, freedom = _joined(errors[place], len(radii) - 1, drawn[place], len(without) - 1)
            rows[name] |= interval(statistic, float(values[statistic][place]), error, freedom)
            if statistic in chance:
                rows[name][f"{statistic}_p"] = float(chance[statistic][place])
    return rows


def _statistics(own: np.ndarray, radii: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "spearman": association.spearman(own, radii),
        "partial": association.partial_spearman(own, radii, others),
        "concordance": association.concordance(own, radii)[0],
    }


def _columns(names: Sequence[str], scores: Mapping[str, np.ndarray]) -> np.ndarray:
    some = [scores[name] for name in names]
    return np.stack(some, axis=1) if some else np.empty((len(next(iter(scores.values()))), 0))


def _joined(first: float, freedom: float, second: float, other: float) -> tuple[float, float]:
    """Return the error of two independent sources together, and its degrees of freedom (Welch 1947)."""
    total = first**2 + second**2
    if total == 0:
        return 0.0, freedom
    share = second**2 / total
    return float(np.sqrt(total)), 1 / ((1 - share) ** 2 / freedom + (share**2 / other if share > 0 else 0.0))
