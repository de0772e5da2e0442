"""diagnose(): whether a kernel may be trusted, with reasons and a remedy; interim(): the same while it is sampled."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from losskernel.data.global_state import with_own_state
from losskernel.kernel.diagnosis import statistics as diagnostics
from losskernel.kernel.diagnosis.remedies import Setting, setting_of
from losskernel.kernel.diagnosis.screens import FEW_DRAWS, SCREENS, Finding, Verdict, hold, worst_first
from losskernel.kernel.estimators import inverse
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

# Fewer probes have no mode that could be called shared, and hardly any pairs for halves of the chains to agree on.
_FEW = 5


@dataclass(frozen=True)
class Diagnosis:
    """Whether a kernel may be trusted.

    Attributes:
        verdict: "pass", "warn" or "fail"; the worst of all screens.
        reasons: one sentence per screen that did not pass, with a remedy; the worst first, causes before effects.
        metrics: the screens' numbers, and others that explain them.
        remedy: the one change most likely to help; empty for a pass.
        screens: rows of a table: every screen whose metric is known, with value, bound and verdict.
    """

    verdict: Verdict
    reasons: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    remedy: str = ""
    screens: list[dict[str, Any]] = field(default_factory=list)


@with_own_state
def diagnose(traces: LossTraces) -> Diagnosis:
    """Screen traces for the silent failures of sampled kernels.

    Screens drift, chains that disagree or are not independent, steps too large or too small for the curvature, too
    few effective draws, covariance carried by a few draws or by noise alone, and losses rounded too coarsely.

    Source: Vehtari et al. 2021 (R-hat, ESS); Vehtari et al. 2024 (tail index); stability and relaxation of
    Langevin steps in a quadratic well.
    """
    kernel = LossKernel.from_traces(traces)
    losses = traces.losses.values
    mean_loss = losses.mean(axis=2, dtype=np.float64)  # [C, D]
    unit = kernel.standardised().T.reshape(kernel.chains, kernel.draws, -1)  # [C, D, N]
    metrics = (
        {"chains": float(kernel.chains), "draws": float(kernel.draws)}
        | _chains(kernel, unit, mean_loss)
        | _mixing(kernel, losses, mean_loss)
        | _shape(kernel, losses, unit)
        | _steps(traces)
        | _distance(traces, mean_loss)
        | _precision(traces)
    )
    findings = hold(metrics, setting_of(traces.meta, kernel.chains, kernel.draws))
    flagged = worst_first(findings)
    if kernel.draws < FEW_DRAWS:
        flagged = flagged[:1]  # all others would be noise
    return Diagnosis(
        flagged[0].verdict if flagged else "pass",
        [f"{finding.reason}; {finding.remedy}" for finding in flagged],
        metrics,
        flagged[0].remedy if flagged else "",
        [_row(finding) for finding in findings],
    )


def _row(finding: Finding) -> dict[str, Any]:
    good = f"{'at least' if finding.bounds.low_is_bad else 'at most'} {finding.bounds.good:.4g}"
    return {"screen": finding.metric, "value": finding.value, "good": good, "verdict": finding.verdict}


def _chains(kernel: LossKernel, unit: np.ndarray, mean_loss: np.ndarray) -> dict[str, float]:
    """Return whether the chains are independent of each other, and all moving."""
    metrics = {"constant_probes": float(kernel.constant.mean())} | _twins_and_spread(mean_loss, unit)
    shared, score = diagnostics.chain_correlation(unit)
    # A repeated chain is correlated with itself; the screen of twin chains reports it already.
    shared = 0.0 if metrics["twin_chains"] else shared
    return metrics | {"chain_correlation": shared, "chain_correlation_score": 0.0 if shared < 0.005 else score}


def _twins_and_spread(mean_loss: np.ndarray, unit: np.ndarray, chains: Sequence[int] | None = None) -> dict[str, float]:
    """Return whether two chains are one, and how still the stillest is; `chains` are their numbers."""
    twins, spread = diagnostics.twins(mean_loss), diagnostics.chain_spread(unit)
    numbers = range(len(mean_loss)) if chains is None else chains
    named = {} if twins is None else {"first_twin": float(numbers[twins[0]]), "second_twin": float(numbers[twins[1]])}
    stillest = {"dead_chain": float(spread.min()), "stillest_chain": float(numbers[int(spread.argmin())])}
    return named | {"twin_chains": float(twins is not None)} | stillest


def _mixing(kernel: LossKernel, losses: np.ndarray, mean_loss: np.ndarray) -> dict[str, float]:
    """R-hat and ESS of the mean loss, of the kernel's leading directions, and of a sample of its entries."""
    directions, (singles, entries) = _directions(kernel, losses), _entries(kernel, losses)
    ess = diagnostics.ess(mean_loss)
    least = _reduce(np.min, map(diagnostics.ess, [mean_loss, *directions]))
    return {
        "rhat": _reduce(np.max, map(diagnostics.rhat, [mean_loss, *directions])),
        "rhat_good": diagnostics.rhat_bound(kernel.chains, least),
        "rhat_entries": _reduce(lambda values: np.quantile(values, 0.9), map(diagnostics.rhat, [*singles, *entries])),
        "ess": ess,
        "ess_tail": diagnostics.ess(mean_loss, "tail"),
        "ess_kernel": _reduce(np.min, map(diagnostics.ess, [*directions, *entries])),
        "tail_index": _reduce(np.median, map(diagnostics.tail_index, entries)),
        "split_agreement": _split_agreement(kernel),
    }


def _reduce(how: Callable[[np.ndarray], Any], values: Iterable[float]) -> float:
    """Reduce the finite values; NaN where there is none (constant quantities have no R-hat)."""
    finite = np.array([value for value in values if np.isfinite(value)])
    return float(how(finite)) if len(finite) else float("nan")


def _directions(kernel: LossKernel, losses: np.ndarray) -> list[np.ndarray]:
    """Return the draws [C, D] along three leading modes of R.

    Centred over all chains, not within each: the levels of the chains stay in, since R-hat compares them.
    """
    _, modes = diagnostics.leading_modes(kernel.standardised(), 3)
    centred = losses - losses.mean((0, 1), dtype=np.float64)
    return [centred @ (mode * inverse(np.sqrt(kernel.variance()))) for mode in modes]


def _entries(kernel: LossKernel, losses: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return some probes' losses [C, D], and products of losses whose means are entries of K, on and off the diagonal.

    Centred by the mean over all chains: a heavy-tailed loss lies near its floor in most draws, and each
    chain's own mean would put the same floor at another place in every chain.
    """
    rng = np.random.default_rng(0)
    moving = np.flatnonzero(~kernel.constant)
    if len(moving) == 0:
        return [], []
    single = rng.choice(moving, 8)
    pairs = [*zip(single, single, strict=True), *rng.choice(moving, size=(16, 2))]

    def centred(probe: int) -> np.ndarray:
        return losses[:, :, probe] - losses[:, :, probe].mean(dtype=np.float64)

    return [*map(centred, single)], [centred(first) * centred(second) for first, second in pairs]


def _split_agreement(kernel: LossKernel) -> float:
    """Correlation of R between disjoint halves of the chains, over at most 1,000 probes."""
    if kernel.chains < 2 or kernel.probes < _FEW:
        return float("nan")
    chosen = np.linspace(0, kernel.probes - 1, min(kernel.probes, 1000)).astype(int)
    halves = (range(0, kernel.chains, 2), range(1, kernel.chains, 2))
    first, second = (kernel.only(list(half)).correlation(chosen)[:, chosen] for half in halves)
    return diagnostics.split_agreement(first, second)


def _shape(kernel: LossKernel, losses: np.ndarray, unit: np.ndarray) -> dict[str, float]:
    """Return how much of the covariance a drift, one mode of all probes, and a few draws carry."""
    return {
        "trend_share": diagnostics.trend_share(losses),
        "shared_mode_share": diagnostics.shared_mode_share(losses) if kernel.probes >= _FEW else float("nan"),
        "heavy_share": diagnostics.heavy_share(unit),
    }


def _steps(traces: LossTraces) -> dict[str, float]:
    """Return whether steps are small enough for the curvature and numerous enough, where the settings are known."""
    identity: dict[str, Any] = traces.meta.get("identity", {})
    sampler, schedule = identity.get("sampler", {}), identity.get("schedule", {})
    metrics: dict[str, float] = {}
    # Relaxation time: measured at the end of the chains, or for plain SGLD from its settings.
    rates, curvature = traces.record("relaxation_rate"), traces.record("curvature")
    relaxation = float("nan")
    if rates is not None:
        relaxation = 1 / float(rates.mean()) if rates.mean() > 0 else float("inf")
    elif sampler.get("sampler") == "SGLD":
        relaxation = diagnostics.relaxation_steps(sampler["step_size"], sampler["localization"])
    if schedule and relaxation == relaxation:
        metrics |= {
            "relaxation_steps": relaxation,
            "relaxations_burn_in": schedule["burn_in"] / relaxation,
            "relaxations_sampled": schedule["draws"] * schedule["thinning"] / relaxation,
        }
    if curvature is not None:
        metrics["curvature"] = float(curvature.mean())
        if "step_size" in sampler:  # a user's function that builds the sampler may have no such argument
            metrics["stiffness"] = metrics["curvature"] * sampler["step_size"]
        for name in ("step_inflation", "acceptance"):
            metrics[name] = float(np.median(traces.dataset[name].values.astype(np.float64)))
    # Drift and noise of one step, √ε and √ε/2 · |nbeta ∇L|: their ratio is 1 or more where noise dominates.
    gradient, moving = traces.record("gradient_norm"), traces.meta.get("parameters", {}).get("moving")
    # Steps that differ from weight to weight; earlier versions knew one such sampler.
    preconditioned = traces.meta.get("preconditioned", "damping" in sampler)
    if gradient is not None and moving and sampler.get("nbeta") and not preconditioned:
        drift = np.sqrt(sampler["step_size"]) / 2 * sampler["nbeta"] * np.sqrt(np.square(gradient).mean())
        metrics["noise_to_gradient"] = float(np.sqrt(moving) / drift) if drift > 0 else float("inf")
    # In a quadratic basin at temperature 1 / nbeta the expected excess loss is P / (2 nbeta), whatever its curvature.
    start = traces.meta.get("start_train_loss", {}).get("value")
    train_loss = traces.record("train_loss")
    if train_loss is not None and start is not None and moving and "nbeta" in sampler:
        metrics["excess_loss"] = float(sampler["nbeta"] * (train_loss.mean() - start) / (moving / 2))
    return metrics


def _distance(traces: LossTraces, mean_loss: np.ndarray) -> dict[str, float]:
    """Return whether the weights still drift, and whether the first draws differ from the rest."""
    distance = traces.record("distance")
    series = [mean_loss] if distance is None else [mean_loss, distance]
    metrics = {} if distance is None else {"rhat_distance": diagnostics.rhat(distance)}
    return metrics | {"transient": float(np.abs([diagnostics.transient(part) for part in series]).max())}


def _precision(traces: LossTraces) -> dict[str, float]:
    """Return the error on R of losses evaluated in a lower precision; nothing where they were not."""
    differences = traces.record("precision_noise")
    if differences is None:
        return {}
    return {"precision_error": diagnostics.precision_error(differences, traces.losses.values)}


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
    ess = diagnostics.ess(mean_loss)
    return _twins_and_spread(mean_loss, _standardised(observed), chains) | {
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
