"""Interim diagnosis of a run that is still sampling, from three numbers per draw and chain.

It sees means over the probes only; directions and entries of the kernel are diagnosed when sampling has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from losskernel.kernel.diagnosis import statistics as diagnostics
from losskernel.kernel.diagnosis.remedies import Setting
from losskernel.kernel.diagnosis.screens import FEW_DRAWS, SCREENS, Verdict, hold, worst_first

# Draws of each chain below which no interim verdict is given.
ENOUGH = 2 * FEW_DRAWS
TOO_EARLY = "too early"
# Screens that are meaningful from the start, with short labels. Effective draws are not among them: they still grow.
_FROM_THE_START = {
    "twin_chains": "one chain twice",
    "dead_chain": "a dead chain",
    "excess_loss": "the chains have left the basin",
}
# The first draws of chains that only mix slowly trip these too.
_FROM_HALF_ON = {
    "rhat_distance": "the weights drift",
    "transient": "the first draws lie apart",
    "trend_share": "the losses drift",
    "rhat": "the chains disagree",
}


@dataclass(frozen=True)
class Interim:
    """The verdict on an unfinished run.

    Attributes:
        verdict: worst of the screens that are meaningful by now, or "too early".
        rhat: of the probes' mean loss, rank-normalised, split.
        ess: bulk effective draws of the probes' mean loss, all chains together.
        reasons: one sentence per screen that did not pass, causes before their effects, the worst first.
        words: a one-line summary.
    """

    verdict: Verdict | Literal["too early"]
    rhat: float = float("nan")
    ess: float = float("nan")
    reasons: tuple[str, ...] = ()
    words: str = TOO_EARLY


def interim(observed: np.ndarray, of: int, chains: Sequence[int], excess_loss: float = float("nan")) -> Interim:
    """Apply the screens and bounds of the diagnosis to the draws so far.

    Drift and disagreement count from half of the draws on, or once there are as many effective draws as a finished
    run needs in order not to fail.

    Args:
        observed: mean loss of the probes, loss of the minibatches, distance from w*, [C, D, 3].
        of: draws per chain of the finished run.
        chains: the chains' numbers.
        excess_loss: by how much the training loss lies above that at w*, in units of P / 2 nbeta.
    """
    draws = observed.shape[1]
    if draws < ENOUGH:
        return Interim("too early")
    metrics = _metrics(observed, chains) | {"excess_loss": excess_loss}
    # A finished run with fewer effective draws would fail: until then, drift and slow mixing look alike.
    enough_ess = next(screen.bounds.usable for screen in SCREENS if screen.metric == "ess")
    early = draws < of / 2 and not metrics["ess"] >= enough_ess
    labels = _FROM_THE_START if early else _FROM_THE_START | _FROM_HALF_ON
    findings = hold(metrics, Setting(len(chains), draws))
    flagged = worst_first(finding for finding in findings if finding.metric in labels)
    numbers = [("R-hat {:.2f}", metrics["rhat"]), ("ESS {:,.0f}", metrics["ess"])]
    shown = [template.format(value) for template, value in numbers if not np.isnan(value)]
    words = ", ".join([*shown, *(labels[finding.metric] for finding in flagged[:1])])
    return Interim(
        flagged[0].verdict if flagged else "too early" if early else "pass",
        metrics["rhat"],
        metrics["ess"],
        tuple(finding.reason for finding in flagged),
        f"{TOO_EARLY}: {words}" if early and not flagged else words,
    )


def _metrics(observed: np.ndarray, chains: Sequence[int]) -> dict[str, float]:
    """Return the diagnosis' metrics of the same names, computed from means over the probes."""
    mean_loss, distance = observed[:, :, 0], observed[:, :, 2]
    twins, spread = diagnostics.twins(mean_loss), diagnostics.chain_spread(_standardised(observed))
    ess = diagnostics.ess(mean_loss)
    named: dict[str, float] = {}
    if twins is not None:
        named = {"first_twin": chains[twins[0]], "second_twin": chains[twins[1]]}
    return named | {
        "twin_chains": float(twins is not None),
        "dead_chain": float(spread.min()),
        "stillest_chain": chains[int(spread.argmin())],
        "rhat_distance": diagnostics.rhat(distance),
        "transient": float(np.abs([diagnostics.transient(mean_loss), diagnostics.transient(distance)]).max()),
        "trend_share": diagnostics.trend_share(observed[:, :, :1]),
        "rhat": diagnostics.rhat(mean_loss),
        "rhat_good": diagnostics.rhat_bound(len(chains), ess),
        # Not screened here, but read by the sentences and remedies of `hold`.
        "chain_correlation": 0.0,
        **dict.fromkeys(("ess", "ess_tail", "ess_kernel"), ess),
    }


def _standardised(observed: np.ndarray) -> np.ndarray:
    """Return each quantity [C, D, 3] centred per chain, in units of its standard deviation; constant ones are 0."""
    centred = observed - observed.mean(1, keepdims=True)
    scatter = np.sqrt(np.square(centred).mean((0, 1)))
    return centred / np.where(scatter > 0, scatter, 1.0)
