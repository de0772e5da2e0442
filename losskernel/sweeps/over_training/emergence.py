"""When in training does each level of a hierarchy appear in the kernel?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

_RESAMPLES = 1000
# At which probes couple three times as much within the groups of a level as across them.
THRESHOLD = 0.5


def emergence(
    levels: Sequence[str],
    steps: np.ndarray,
    contrasts: np.ndarray,
    errors: np.ndarray,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Find the step from which on each level's contrast exceeds a threshold, to the end of training.

    Passing it for a while does not count: a coupling that changes its sign passes zero, where it contrasts with
    anything. Between checkpoints the step is interpolated, evenly in log(1 + step). Errors: each contrast is drawn anew
    from a normal distribution of its own width.

    Args:
        levels: L names, from the coarsest.
        steps: of training, [S], rising.
        contrasts: of the analysis `levels`, [S, L].
        errors: their standard errors, [S, L].
        threshold: what a level must exceed to count as known.
        seed: of the resamples.

    Returns:
        A table (level, step, low, high: a 90 % interval): 0 where the untrained network knows the level, and no step
        where the last one does not. And numbers: `step_<level>`; where all appear also `in_order`, whether each
        appears later than the one above, and `in_order_share`, in which share of the resamples.
    """
    places = np.log1p(np.asarray(steps, dtype=float))
    found = _passed(places, contrasts[None], threshold)[0]  # [L]
    drawn = np.random.default_rng(seed).normal(contrasts, errors, (_RESAMPLES, *contrasts.shape))
    resampled = _passed(places, drawn, threshold)  # [B, L]
    # Never is later than anything: infinite, in which quantiles must not interpolate.
    low, high = np.expm1(np.quantile(resampled, [0.05, 0.95], axis=0, method="nearest"))
    table = pd.DataFrame({"level": list(levels), "step": np.expm1(found), "low": low, "high": high})
    table = table.replace(np.inf, np.nan)
    known = table.dropna(subset="step")
    metrics = {f"step_{level}": float(step) for level, step in zip(known["level"], known["step"], strict=True)}
    if len(levels) > 1 and len(known) == len(levels):
        metrics["in_order"] = float((found[:-1] < found[1:]).all())
        metrics["in_order_share"] = float((resampled[:, :-1] < resampled[:, 1:]).all(axis=1).mean())
    return table, metrics


def _passed(places: np.ndarray, contrasts: np.ndarray, threshold: float) -> np.ndarray:
    """Return where each curve [B, S, L] passes the threshold for the last time, [B, L]; inf where it ends below."""
    below = contrasts < threshold
    last = len(places) - 1 - below[:, ::-1].argmax(axis=1)  # [B, L], the last checkpoint below
    after = np.minimum(last + 1, len(places) - 1)
    lower, upper = (np.take_along_axis(contrasts, at[:, None], axis=1)[:, 0] for at in (last, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        crossing = places[last] + (threshold - lower) / (upper - lower) * (places[after] - places[last])
    return np.where(~below.any(axis=1), places[0], np.where(below[:, -1], np.inf, crossing))
