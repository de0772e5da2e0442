"""diagnose(): may this kernel be trusted? A verdict with reasons in words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from losskernel import diagnostics
from losskernel.kernel import LossKernel
from losskernel.traces import LossTraces

Verdict = Literal["pass", "warn", "fail"]
# Vehtari et al. 2021 ask for R-hat < 1.01 and bulk ESS >= 400 in all; Stan's documentation allows 1.05.
RHAT_GOOD, RHAT_USABLE, ESS_GOOD, ESS_USABLE = 1.01, 1.05, 400.0, 100.0
# Entries are products of heavy-tailed losses and many are looked at, so that single R-hats scatter more.
RHAT_ENTRIES_GOOD, RHAT_ENTRIES_USABLE = 1.02, 1.1
TREND_GOOD, TREND_USABLE = 0.1, 0.3
# Low agreement alone never fails a kernel: one without structure has nothing to agree on.
AGREEMENT_GOOD, AGREEMENT_USABLE = 0.9, -1.0
RELAXATIONS_GOOD = 3.0


@dataclass(frozen=True)
class Diagnosis:
    """Whether a kernel may be trusted.

    Attributes:
        verdict: "pass", "warn" or "fail"; the worst of all screens.
        reasons: one sentence per screen that did not pass, worst first, with the change most likely to help.
        metrics: every screen's number.
    """

    verdict: Verdict
    reasons: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def diagnose(traces: LossTraces) -> Diagnosis:
    """Screen traces for the silent failures: drift, chains that disagree, too few effective draws.

    Source: Vehtari et al. 2021 (R-hat, ESS); drift read as covariance is the best-documented failure of
    this family of methods.
    """
    kernel = LossKernel.from_traces(traces)
    losses = traces.losses.values
    mean_loss = losses.mean(axis=2, dtype=np.float64)  # [C, D]
    metrics = (
        _mixing(kernel, losses, mean_loss)
        | {
            "trend_share": diagnostics.trend_share(losses),
            "shared_mode_share": diagnostics.shared_mode_share(losses),
            "drift": diagnostics.drop_fraction(mean_loss),
            "split_agreement": _split_agreement(kernel),
            "constant_probes": float(kernel.constant.mean()),
        }
        | _relaxation(traces)
    )
    screens = [screen for screen in _screens(metrics, traces) if screen is not None]
    order: dict[str, int] = {"fail": 0, "warn": 1}
    screens.sort(key=lambda screen: order[screen[0]])
    verdict: Verdict = screens[0][0] if screens else "pass"
    return Diagnosis(verdict, [reason for _, reason in screens], metrics)


def _mixing(kernel: LossKernel, losses: np.ndarray, mean_loss: np.ndarray) -> dict[str, float]:
    """R-hat and bulk ESS of the mean loss, of the kernel's leading directions, and of a sample of its entries."""
    directions, entries = _directions(kernel), _entries(kernel, losses)
    return {
        "rhat": _reduce(np.max, map(diagnostics.rhat, [mean_loss, *directions])),
        "rhat_entries": _reduce(lambda values: np.quantile(values, 0.9), map(diagnostics.rhat, entries)),
        "ess": diagnostics.ess(mean_loss),
        "ess_kernel": _reduce(np.min, map(diagnostics.ess, [*directions, *entries])),
    }


def _reduce(how: Callable[[np.ndarray], Any], values: Iterable[float]) -> float:
    """Reduce the finite values; NaN where there is none (constant quantities have no R-hat)."""
    finite = np.array([value for value in values if np.isfinite(value)])
    return float(how(finite)) if len(finite) else float("nan")


def _directions(kernel: LossKernel) -> list[np.ndarray]:
    """Return the draws [C, D] along three leading modes of R."""
    _, modes = diagnostics.leading_modes(kernel.standardised(), 3)
    return [(mode @ kernel.standardised()).reshape(kernel.chains, kernel.draws) for mode in modes]


def _entries(kernel: LossKernel, losses: np.ndarray) -> list[np.ndarray]:
    """Return products of centred losses [C, D] whose means are entries of K: some of the diagonal, some off it.

    Centred by the mean over all chains: a heavy-tailed loss lies near its floor in most draws, and each
    chain's own mean would put the same floor at another place in every chain.
    """
    rng = np.random.default_rng(0)
    moving = np.flatnonzero(~kernel.constant)
    if len(moving) == 0:
        return []
    pairs = [*zip(*2 * [rng.choice(moving, 8)], strict=True), *rng.choice(moving, size=(16, 2))]

    def centred(probe: int) -> np.ndarray:
        return losses[:, :, probe] - losses[:, :, probe].mean(dtype=np.float64)

    return [centred(first) * centred(second) for first, second in pairs]


def _split_agreement(kernel: LossKernel) -> float:
    """Correlation of R between disjoint halves of the chains, over at most 1,000 probes."""
    if kernel.chains < 2:
        return float("nan")
    chosen = np.linspace(0, kernel.probes - 1, min(kernel.probes, 1000)).astype(int)
    halves = (range(0, kernel.chains, 2), range(1, kernel.chains, 2))
    first, second = (kernel.only(list(half)).correlation(chosen)[:, chosen] for half in halves)
    return diagnostics.split_agreement(first, second)


def _relaxation(traces: LossTraces) -> dict[str, float]:
    """Relaxation time of flat directions, and draws and burn-in in units of it, where the settings are known."""
    identity: dict[str, Any] = traces.meta.get("identity", {})
    sampler, schedule = identity.get("sampler"), identity.get("schedule")
    if not sampler or not schedule or sampler.get("sampler") != "SGLD":
        return {}
    steps = diagnostics.relaxation_steps(sampler["step_size"], sampler["localization"])
    return {
        "relaxation_steps": steps,
        "relaxations_sampled": schedule["draws"] * schedule["thinning"] / steps,
        "relaxations_burn_in": schedule["burn_in"] / steps,
    }


def _screens(metrics: dict[str, float], traces: LossTraces) -> list[tuple[Verdict, str] | None]:
    chains, draws, _ = traces.losses.shape
    longer = f"raise schedule.burn_in and schedule.draws (now {draws}) or sampler.localization"
    screens = [
        _above(
            metrics["trend_share"],
            TREND_GOOD,
            TREND_USABLE,
            "the losses drift: a straight line in time explains {:.0%} of their variance; " + longer,
        ),
        _above(metrics["rhat"], RHAT_GOOD, RHAT_USABLE, "the chains disagree: R-hat is {:.3f}; " + longer),
        _above(
            metrics["rhat_entries"],
            RHAT_ENTRIES_GOOD,
            RHAT_ENTRIES_USABLE,
            "the chains disagree on entries of the kernel: R-hat is {:.3f} for a tenth of them; " + longer,
        ),
        _below(metrics["ess"], ESS_GOOD, ESS_USABLE, "the mean loss has {:.0f} effective draws; raise schedule.draws"),
        _below(
            metrics["ess_kernel"],
            ESS_GOOD,
            ESS_USABLE,
            "a direction or entry of the kernel has {:.0f} effective draws; raise schedule.draws or schedule.chains",
        ),
        _below(
            metrics["split_agreement"],
            AGREEMENT_GOOD,
            AGREEMENT_USABLE,
            "kernels of disjoint halves of the chains correlate only {:.2f}: many entries are Monte-Carlo noise, "
            "or these probes share little; raise schedule.draws or schedule.chains to tell",
        ),
        _above(metrics["constant_probes"], 0.05, 0.5, "{:.0%} of the probes have a constant loss; raise sampler.nbeta"),
    ]
    if chains < 2:
        screens.append(("warn", "one chain cannot be compared with another; raise schedule.chains to 4"))
    sampled = metrics.get("relaxations_sampled")
    if sampled is not None and sampled < RELAXATIONS_GOOD:
        steps = metrics["relaxation_steps"]
        screens.append(
            ("warn", f"the draws span {sampled:.1f} relaxation times of {steps:.0f} steps; raise schedule.draws")
        )
    return screens


def _above(value: float, good: float, usable: float, reason: str) -> tuple[Verdict, str] | None:
    if np.isnan(value) or value <= good:
        return None
    return ("fail" if value > usable else "warn"), reason.format(value)


def _below(value: float, good: float, usable: float, reason: str) -> tuple[Verdict, str] | None:
    return None if np.isnan(value) else _above(-value, -good, -usable, reason.format(value))
