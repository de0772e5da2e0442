"""The verdict so far: what an unfinished run's draws say of themselves, from three numbers a draw and chain.

It is a look at means, not the diagnosis: directions and entries of the kernel are judged when all is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from losskernel.kernel.diagnosis import statistics as diagnostics
from losskernel.kernel.diagnosis.remedies import Setting
from losskernel.kernel.diagnosis.screens import FEW_DRAWS, Screen, Verdict, screens

# Draws of each chain from which there is anything to say.
ENOUGH = 2 * FEW_DRAWS
TOO_EARLY = "too early"
# Screens that can be held early, and what each is called in a few words. Effective draws are none of them: they grow.
_AT_ONCE = {
    "twin_chains": "one chain twice",
    "dead_chain": "a dead chain",
    "excess_loss": "the chains have left the basin",
}
# The first draws of chains that mix slowly look like these too.
_LATER = {
    "rhat_distance": "the weights drift",
    "transient": "the first draws lie apart",
    "trend_share": "the losses drift",
    "rhat": "the chains disagree",
}


@dataclass(frozen=True)
class Interim:
    """What can be said before the end.

    Attributes:
        verdict: worst of the screens that can be held early, or "too early" for most of them.
        rhat: of the probes' mean loss, rank-normalised, split.
        ess: bulk effective draws of the probes' mean loss, all chains together.
        reasons: one sentence per screen that did not pass, causes before their effects, the worst first.
        words: all of it in few words.
    """

    verdict: Verdict | Literal["too early"]
    rhat: float = float("nan")
    ess: float = float("nan")
    reasons: tuple[str, ...] = ()
    words: str = TOO_EARLY


def interim(observed: np.ndarray, of: int, chains: Sequence[int], excess_loss: float = float("nan")) -> Interim:
    """Judge the draws so far by the screens and bounds of the diagnosis.

    Drift and disagreement are held against a run from half of its draws on, or once it has the effective draws with
    which a finished one would not fail.

    Args:
        observed: mean loss of the probes, loss of the minibatches, distance from w*, [C, D, 3].
        of: draws of each chain in the end.
        chains: their numbers.
        excess_loss: by how much the training loss lies above that at w*, in units of P / 2 nbeta.
    """
    draws = observed.shape[1]
    if draws < ENOUGH:
        return Interim("too early")
    metrics = _metrics(observed, chains) | {"excess_loss": excess_loss}
    every = {screen.metric: screen for screen in screens(metrics, Setting(len(chains), draws))}
    early = draws < of / 2 and not metrics["ess"] >= every["ess"].usable
    asked = _AT_ONCE if early else _AT_ONCE | _LATER
    judged: list[tuple[Screen, Verdict]] = [
        (screen, screen.verdict(metrics[name])) for name, screen in every.items() if name in asked
    ]
    found = [each for wanted in ("fail", "warn") for each in judged if each[1] == wanted]
    shown = [("R-hat {:.2f}", metrics["rhat"]), ("ESS {:,.0f}", metrics["ess"])]
    numbers = [words.format(value) for words, value in shown if value == value]
    words = ", ".join([*numbers, *(asked[screen.metric] for screen, _ in found[:1])])
    return Interim(
        found[0][1] if found else "too early" if early else "pass",
        metrics["rhat"],
        metrics["ess"],
        tuple(screen.reason.format(metrics[screen.metric]) for screen, _ in found),
        f"{TOO_EARLY}: {words}" if early and not found else words,
    )


def _metrics(observed: np.ndarray, chains: Sequence[int]) -> dict[str, float]:
    """Return what the diagnosis would call by the same names, of means over the probes."""
    mean_loss, distance = observed[:, :, 0], observed[:, :, 2]
    twins, spread = diagnostics.twins(mean_loss), diagnostics.chain_spread(_standardised(observed))
    ess = diagnostics.ess(mean_loss)
    by_chance = diagnostics.rhat_by_chance(len(chains), ess) if ess == ess else 0.0
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
        "rhat_good": min(max(1.01, by_chance), 1.05),
        # Not asked for, but the screens' sentences and remedies look at them.
        "chain_correlation": 0.0,
        **dict.fromkeys(("ess", "ess_tail", "ess_kernel"), ess),
    }


def _standardised(observed: np.ndarray) -> np.ndarray:
    """Return each quantity [C, D, 3] about its chains' means, in units of its scatter; what is constant stays 0."""
    centred = observed - observed.mean(1, keepdims=True)
    scatter = np.sqrt(np.square(centred).mean((0, 1)))
    return centred / np.where(scatter > 0, scatter, 1.0)
