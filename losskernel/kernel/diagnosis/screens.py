"""The thresholds of the diagnosis, and its words: what each number says, and the one change that helps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from losskernel.kernel.diagnosis.remedies import Setting, longer_run, mix, smaller_steps

Verdict = Literal["pass", "warn", "fail"]
# With fewer draws a chain nothing can be judged.
FEW_DRAWS = 10


@dataclass(frozen=True)
class Screen:
    """One number held against its bounds.

    Attributes:
        metric: name of the number.
        good: bound of a pass.
        usable: bound beyond which the kernel fails; infinite where it never does by this alone.
        reason: what the number says, with one place for it.
        remedy: the change that helps.
        below: whether small numbers are bad ones.
    """

    metric: str
    good: float
    usable: float
    reason: str
    remedy: str
    below: bool = False

    def verdict(self, value: float) -> Verdict:
        """Return where a value lies; what could not be computed passes."""
        if math.isnan(value) or (value >= self.good if self.below else value <= self.good):
            return "pass"
        return "fail" if (value < self.usable if self.below else value > self.usable) else "warn"


def screens(metrics: Mapping[str, float], setting: Setting) -> list[Screen]:
    """Return all screens, causes before their effects; a verdict names the first of the worst."""
    mixing, spanning = mix(metrics, setting), mix({**metrics, "relaxations_burn_in": math.inf}, setting)
    relaxation = metrics.get("relaxation_steps", math.inf)
    times = f" of {relaxation:.0f} steps" if math.isfinite(relaxation) else ", for without localization there is none"
    twins = " and ".join(f"{metrics.get(name, 0):.0f}" for name in ("first_twin", "second_twin"))
    smaller, longer = smaller_steps(metrics, setting), longer_run(metrics, setting)
    never = math.inf
    return [
        Screen(
            "draws",
            FEW_DRAWS,
            FEW_DRAWS,
            "only {:.0f} draws a chain: nothing can be judged",
            "raise schedule.draws to 400",
            True,
        ),
        Screen("constant_probes", 0.01, 0.5, "{:.0%} of the probes have a constant loss", "raise sampler.nbeta"),
        Screen("twin_chains", 0, 0, f"chains {twins} are one and the same", "join each chain once, with its own seed"),
        Screen(
            "dead_chain",
            0.25,
            0.05,
            f"chain {metrics.get('stillest_chain', 0):.0f} hardly moves: its variance is {{:.2g}} of the others'",
            "sample it again",
            True,
        ),
        Screen(
            "chain_correlation_score",
            5,
            15,
            f"the chains move together at the same draw (correlation {metrics['chain_correlation']:.2g}, "
            "{:.0f} standard errors from 0)",
            "give every chain its own minibatches and noise",
        ),
        Screen(
            "precision_error",
            0.02,
            0.1,
            "losses rounded to a lower precision put an error of {:.2g} on the correlations",
            "set schedule.probe_precision=float32",
        ),
        Screen("rhat_distance", 1.05, 1.2, "the weights drift: R-hat of their distance from w* is {:.2f}", mixing),
        Screen("step_inflation", 1.5, 3, _inflated(metrics), smaller),
        # With very many weights it is near 0 even where each direction is sampled well.
        Screen(
            "acceptance",
            0.2 if setting.weights < 20_000 else 0,
            0,
            "a Metropolis test would accept only {:.0%} of the steps",
            smaller,
            True,
        ),
        Screen(
            "excess_loss",
            1,
            1,
            "the loss rises to {:.1f} times what any basin allows (P / 2 nbeta): the chains have left it",
            smaller,
        ),
        Screen(
            "noise_to_gradient",
            1,
            0,
            "the loss moves the weights more than the noise does (ratio {:.2f})",
            smaller,
            True,
        ),
        Screen("relaxations_burn_in", 3, 0, "burn-in lasts {:.2g} relaxation times" + times, mixing, True),
        Screen("transient", 5, never, "the first draws still lie {:.0f} standard errors from the rest", mixing),
        Screen("relaxations_sampled", 3, 0, "the draws span {:.2g} relaxation times" + times, spanning, True),
        Screen(
            "trend_share",
            0.1,
            0.3,
            "the losses drift: a straight line in time explains {:.0%} of their variance",
            mixing,
        ),
        Screen(
            "tail_index",
            0.9,
            1.1,
            "the entries are means of numbers with a tail index of {:.1f} (from 1 there is no mean)",
            "raise sampler.localization or bound the loss",
        ),
        Screen("heavy_share", 0.4, 0.7, "a hundredth of the draws carries {:.0%} of the covariance", longer),
        Screen("rhat", metrics["rhat_good"], 1.05, "the chains disagree: R-hat is {:.3f}", mixing),
        # Entries are products of heavy-tailed losses and many are looked at, so that single R-hats scatter more.
        Screen(
            "rhat_entries",
            max(1.02, metrics["rhat_good"]),
            1.1,
            "the chains disagree on probes or entries of the kernel: R-hat is {:.3f} for a tenth of them",
            mixing,
        ),
        Screen("ess", 400, 100, "the mean loss has {:.0f} effective draws", longer, True),
        Screen("ess_tail", 400, 100, "the tails of the mean loss have {:.0f} effective draws", longer, True),
        Screen("ess_kernel", 400, 100, "a direction or entry of the kernel has {:.0f} effective draws", longer, True),
        Screen(
            "shared_mode_share",
            0.7,
            never,
            "one mode shared by all probes carries {:.0%} of the covariance, as a drift does",
            "compare with a larger sampler.localization",
        ),
        # Alone it never fails a kernel: one without structure has nothing to agree on.
        Screen(
            "split_agreement",
            0.8,
            -1,
            "kernels of disjoint halves of the chains correlate only {:.2f}: many entries "
            "are Monte-Carlo noise, or these probes share little",
            "raise schedule.draws or schedule.chains to tell",
            True,
        ),
        Screen("chains", 2, 1, "one chain cannot be compared with another", "raise schedule.chains to 4", True),
    ]


def _inflated(metrics: Mapping[str, float]) -> str:
    """Return in words what too large steps do; beyond the stability bound no factor tells."""
    if metrics.get("step_inflation", 0.0) < 1e3:
        return "the steps are too large: they make the steepest direction's variance {:.1f} times the target's"
    stiffness = metrics.get("stiffness", float("nan"))
    return f"the steps are too large to be stable: step_size times curvature is {stiffness:.2g}, its bound 4"
