"""The screens of the diagnosis as a table: bounds of each metric, what its value says, and the change that helps."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from losskernel.kernel.diagnosis.remedies import Setting, longer_run, mix, smaller_steps, span

Verdict = Literal["pass", "warn", "fail"]
# With fewer draws a chain every other statistic is noise.
FEW_DRAWS = 10
# With so many weights the acceptance is near 0 even where each direction is sampled well.
_MANY_WEIGHTS = 20_000


class Bounds(NamedTuple):
    """Where a metric passes and where it fails; values between the two bounds warn."""

    good: float
    usable: float
    low_is_bad: bool

    def verdict(self, value: float) -> Verdict:
        """Return the verdict of a value; NaN, which stands for what could not be computed, passes."""
        sign = -1 if self.low_is_bad else 1
        if math.isnan(value) or sign * value <= sign * self.good:
            return "pass"
        return "fail" if sign * value > sign * self.usable else "warn"


def at_most(good: float, usable: float) -> Bounds:
    """Bounds of a metric whose large values are bad; `usable` is inf where it never fails a kernel by itself."""
    return Bounds(good, usable, low_is_bad=False)


def at_least(good: float, usable: float) -> Bounds:
    """Bounds of a metric whose small values are bad."""
    return Bounds(good, usable, low_is_bad=True)


class Screen(NamedTuple):
    """One row of the table: a metric, its bounds, and the remedy or how to choose it."""

    metric: str
    bounds: Bounds
    remedy: str | Callable[[Mapping[str, float], Setting], str]


# Causes come before their effects: a diagnosis names the first of the worst. A burn-in, a step size or a missing
# structure alone warns and never fails (usable bounds at the end of a metric's range).
SCREENS = (
    Screen("draws", at_least(FEW_DRAWS, FEW_DRAWS), "raise schedule.draws to 400"),
    Screen("constant_probes", at_most(0.01, 0.5), "raise sampler.nbeta"),
    Screen("twin_chains", at_most(0, 0), "join each chain once, with its own seed"),
    Screen("dead_chain", at_least(0.25, 0.05), "sample it again"),
    Screen("chain_correlation_score", at_most(5, 15), "give every chain its own minibatches and noise"),
    Screen("precision_error", at_most(0.02, 0.1), "set schedule.probe_precision=float32"),
    Screen("rhat_distance", at_most(1.05, 1.2), mix),
    Screen("step_inflation", at_most(1.5, 3), smaller_steps),
    Screen("acceptance", at_least(0.2, 0), smaller_steps),
    Screen("excess_loss", at_most(1, 1), smaller_steps),
    Screen("noise_to_gradient", at_least(1, 0), smaller_steps),
    Screen("relaxations_burn_in", at_least(3, 0), mix),
    Screen("transient", at_most(5, math.inf), mix),
    Screen("relaxations_sampled", at_least(3, 0), span),
    Screen("trend_share", at_most(0.1, 0.3), mix),
    Screen("tail_index", at_most(0.9, 1.1), "raise sampler.localization or bound the loss"),
    Screen("heavy_share", at_most(0.4, 0.7), longer_run),
    Screen("rhat", at_most(1.01, 1.05), mix),
    # Entries are products of heavy-tailed losses and many are looked at, so that single R-hats scatter more.
    Screen("rhat_entries", at_most(1.02, 1.1), mix),
    Screen("ess", at_least(400, 100), longer_run),
    Screen("ess_tail", at_least(400, 100), longer_run),
    Screen("ess_kernel", at_least(400, 100), longer_run),
    Screen("shared_mode_share", at_most(0.7, math.inf), "compare with a larger sampler.localization"),
    # Never fails by itself: a kernel without structure has nothing to agree on.
    Screen("split_agreement", at_least(0.8, -1), "raise schedule.draws or schedule.chains to tell"),
    Screen("chains", at_least(2, 1), "raise schedule.chains to 4"),
)

# What a metric's `value` says; other metrics and the phrases of `_phrases` go in by their names.
REASONS = {
    "draws": "only {value:.0f} draws a chain: too few for any other statistic",
    "constant_probes": "{value:.0%} of the probes have a constant loss",
    "twin_chains": "chains {first_twin:.0f} and {second_twin:.0f} are one and the same",
    "dead_chain": "chain {stillest_chain:.0f} hardly moves: its variance is {value:.2g} of the others'",
    "chain_correlation_score": "the chains move together at the same draw (correlation {chain_correlation:.2g}, "
    "{value:.0f} standard errors from 0)",
    "precision_error": "losses rounded to a lower precision put an error of {value:.2g} on the correlations",
    "rhat_distance": "the weights drift: R-hat of their distance from w* is {value:.2f}",
    "step_inflation": "the steps are too large{inflation}",
    "acceptance": "a Metropolis test would accept only {value:.0%} of the steps",
    "excess_loss": "the loss rises to {value:.1f} times what any basin allows (P / 2 nbeta): the chains have left it",
    "noise_to_gradient": "the loss moves the weights more than the noise does (ratio {value:.2f})",
    "relaxations_burn_in": "burn-in lasts {value:.2g} relaxation times{relaxation}",
    "transient": "the first draws still lie {value:.0f} standard errors from the rest",
    "relaxations_sampled": "the draws span {value:.2g} relaxation times{relaxation}",
    "trend_share": "the losses drift: a straight line in time explains {value:.0%} of their variance",
    "tail_index": "the entries are means of numbers with a tail index of {value:.1f} (from 1 there is no mean)",
    "heavy_share": "a hundredth of the draws carries {value:.0%} of the covariance",
    "rhat": "the chains disagree: R-hat is {value:.3f}",
    "rhat_entries": "the chains disagree on probes or entries of the kernel: R-hat is {value:.3f} for a tenth of them",
    "ess": "the mean loss has {value:.0f} effective draws",
    "ess_tail": "the tails of the mean loss have {value:.0f} effective draws",
    "ess_kernel": "a direction or entry of the kernel has {value:.0f} effective draws",
    "shared_mode_share": "one mode shared by all probes carries {value:.0%} of the covariance, as a drift does",
    "split_agreement": "kernels of disjoint halves of the chains correlate only {value:.2f}: many entries "
    "are Monte-Carlo noise, or these probes share little",
    "chains": "one chain cannot be compared with another",
}


@dataclass(frozen=True)
class Finding:
    """A metric of one trace held against its bounds, with the sentence and the remedy that go with it."""

    metric: str
    value: float
    bounds: Bounds
    reason: str
    remedy: str

    @property
    def verdict(self) -> Verdict:
        """Where the value lies."""
        return self.bounds.verdict(self.value)


def hold(metrics: Mapping[str, float], setting: Setting) -> list[Finding]:
    """Return a finding for every screen whose metric is known and not NaN, in the table's order."""
    bounds = {screen.metric: screen.bounds for screen in SCREENS}
    # R-hat of few effective draws exceeds 1.01 by chance: `rhat_good` is what chains in agreement stay below.
    good = {"rhat": metrics["rhat_good"], "rhat_entries": max(1.02, metrics["rhat_good"])}
    if setting.weights >= _MANY_WEIGHTS:
        good["acceptance"] = 0
    bounds |= {name: bounds[name]._replace(good=value) for name, value in good.items()}
    words = defaultdict(float, metrics) | _phrases(metrics)
    return [
        Finding(
            screen.metric,
            value := metrics[screen.metric],
            bounds[screen.metric],
            REASONS[screen.metric].format_map(words | {"value": value}),
            screen.remedy if isinstance(screen.remedy, str) else screen.remedy(metrics, setting),
        )
        for screen in SCREENS
        if not math.isnan(metrics.get(screen.metric, math.nan))
    ]


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that do not pass: those that fail, then those that warn, each in the table's order."""
    flagged = (finding for finding in findings if finding.verdict != "pass")
    return sorted(flagged, key=lambda finding: finding.verdict == "warn")


def _phrases(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the parts of sentences that depend on more than one number."""
    steps, stiffness = metrics.get("relaxation_steps", math.inf), metrics.get("stiffness", math.nan)
    inflation = metrics.get("step_inflation", 0.0)
    times = f": they make the steepest direction's variance {inflation:.1f} times the target's"
    unstable = f" to be stable: step_size times curvature is {stiffness:.2g}, its bound 4"
    return {
        "relaxation": f" of {steps:.0f} steps" if math.isfinite(steps) else ", for without localization there is none",
        # Beyond the stability bound the variance grows without limit, and its factor says nothing.
        "inflation": times if inflation < 1e3 else unstable,
    }
