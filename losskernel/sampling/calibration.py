"""calibrate(): step size, localization, burn-in and thinning from curvature and relaxation time, checked by pilots."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.global_state import with_own_state
from losskernel.errors import DivergenceError, require, require_integer
from losskernel.kernel.diagnosis.diagnose import Diagnosis, diagnose
from losskernel.sampling.sample import sample
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.setup import Schedule, Setup, setup_of
from losskernel.sampling.step_checks import Effort, largest_curvature
from losskernel.traces.loss_traces import LossTraces

# Steps inflate the steepest direction's variance by this factor, minibatch noise included.
INFLATION = 1.15
# Symmetric splittings do not inflate a parabola up to their stability bound, but losses are no parabolas: step size
# times curvature stays below this as well.
STIFFEST = 1.0
# Steps in which a direction without curvature relaxes: 1/γ is then about twenty times the steepest variance.
RELAXATION = 80
# Relaxing faster than RELAXATION by more than this factor, the pull towards w* alone would inflate too much.
MOST_SPEEDUP = 8.0
# Effective draws aimed at, twice what a pass needs.
EFFECTIVE = 800
# Screens of the step size, and of the region that the chains reach; the others depend on the length of the run.
_STEP_SCREENS = ("step_inflation", "excess_loss", "noise_to_gradient")
_REGION_SCREENS = ("constant_probes", "heavy_share", "tail_index", "distance")
# A pilot must inflate less than a diagnosis allows: it is short, and the long run has to pass.
_INFLATED = 1 + 2 * (INFLATION - 1)
# Chains whose distance exceeds this share of |w*| no longer sample around w*.
_FARTHEST = 0.6
# Weights above which a gradient is dear: pilots are short then, and flat directions relax as fast as MOST_SPEEDUP
# allows, since a run could not pay for slower ones either.
LARGE = 1_000_000
_FRUGAL_PILOTS = 3
GRADIENTS = 600  # of a minibatch that calibrating such a network may take, pilots and their step checks together


class _Plan(NamedTuple):
    """How pilots are run.

    Attributes:
        chains: of a pilot.
        draws: of each chain.
        burn_in: in relaxation times of a flat direction.
        spacing: between draws, likewise.
        probes: at random, at most; 0: all.
        check_share: `schedule.step_check_share`.
        gradients: of a minibatch, of all pilots together.
        speedup: to start from.
        samples: over which the curvature at w* is measured.
        iterations: of power iteration for it.
    """

    chains: int = 4
    draws: int = 150
    burn_in: float = 5.0
    spacing: float = 0.2
    probes: int = 0
    check_share: float = 0.1
    gradients: float = math.inf
    speedup: float = 1.0
    samples: int = 2048
    iterations: int = 30


@dataclass(frozen=True)
class Calibration:
    """Settings that suit a network, and why.

    Attributes:
        sampler: step_size, nbeta and localization.
        schedule: chains, burn_in, draws, thinning and batch_size.
        explanation: five lines: curvature, step size, localization, lengths, what the pilot showed.
        diagnosis: of the last pilot.
        pilots: settings, faults and metrics of every pilot.
    """

    sampler: dict[str, float]
    schedule: dict[str, int]
    explanation: list[str]
    diagnosis: Diagnosis
    pilots: list[dict[str, Any]]


@with_own_state
def calibrate(
    model: nn.Module,
    data: Data,
    sampler: Callable[..., Sampler],
    schedule: Schedule,
    *,
    seed: int = 0,
    rounds: int = 6,
    gradients: int | None = None,
    trainer: Callable[..., pl.Trainer] | None = None,
    progress: bool = True,
) -> Calibration:
    """Propose step_size, localization, burn_in and thinning for a trained network.

    λ_max of the training loss at w* gives the first step size, the largest whose discretisation is small, and the
    localization whose relaxation time is eighty steps. Pilots then measure curvature, minibatch noise and memory
    where the chains really are, and both are set anew, with more localization where a pilot finds drift or
    covariance carried by a few draws.

    Args:
        model: the trained network; never changed.
        data: training set, probes, loss.
        sampler: as for `sample`; its step_size and localization are replaced, its nbeta is kept.
        schedule: its chains, draws and batch_size are kept, draws unless the pilot asks for more.
        seed: of the pilots.
        rounds: pilots at most.
        gradients: of a minibatch at most, all pilots and their step checks together; None: GRADIENTS for networks of
            more than LARGE weights, for others as many as the pilots take.
        trainer: builds a Lightning Trainer.
        progress: show progress bars.

    Raises:
        InputError: settings, data and model do not fit together.
        DivergenceError: no localization tried keeps the chains finite.

    Source: stability ε < 4 / (nβ λ_max + γ) and relaxation 2 / (ε γ) of Langevin steps in a quadratic well.
    """
    require_integer("rounds", rounds, at_least=1)
    setup = setup_of(model, data, sampler, schedule, seed=seed)
    setup.try_sampler()
    nbeta = float(setup.settings["nbeta"])
    require(nbeta > 0, "sampler.nbeta must be > 0 to calibrate, got 0; give a value such as sampler.nbeta=100")
    weights = sum(weight.numel() for weight in model.parameters())
    if gradients is None and weights > LARGE:
        gradients = GRADIENTS
    plan = _Plan() if gradients is None else _frugal(gradients, schedule.batch_size)
    at_start = largest_curvature(model, data, setup.moving, samples=plan.samples, iterations=plan.iterations)
    # A network that fits perfectly has hardly any curvature at w*, which says nothing of its surroundings: the floor
    # starts from γ = nβ / 10.
    landscape = Landscape(max(nbeta * at_start, nbeta / 10), speedup=plan.speedup)
    chosen = choose(setup.sampler, landscape)
    pilots: list[dict[str, Any]] = []
    pilot: _Pilot | None = None
    share = plan.gradients / _FRUGAL_PILOTS if plan.gradients < math.inf else 0.0
    spent = 2.0 * (2 * plan.iterations + 1)  # the curvature's, on two minibatches
    for number in range(rounds):
        settings = {"step_size": chosen.step_size, "localization": chosen.localization}
        try:
            pilot = _run_pilot(setup, chosen, plan, trainer, progress)
        except DivergenceError as error:
            pilots.append({**settings, "faults": [str(error)]})
            spent += share
            landscape = replace(landscape, curvature=4 * landscape.curvature)
        else:
            pilots.append({**settings, "faults": pilot.faults} | pilot.diagnosis.metrics)
            spent += pilot.gradients
            if pilot.suits or number == rounds - 1 or spent + pilot.gradients > plan.gradients:
                break
            faster = not set(pilot.faults).isdisjoint(_REGION_SCREENS)
            landscape = landscape_of(pilot.traces, chosen, landscape, faster=faster)
        chosen = choose(setup.sampler, landscape)
        if spent > plan.gradients:
            break
    if pilot is None:
        raise DivergenceError(f"no pilot of {len(pilots)} stayed finite; lower sampler.nbeta or check the training")
    lengths = _lengths(pilot, schedule, plan, chosen.relaxation)
    settings = {"step_size": chosen.step_size, "nbeta": nbeta, "localization": chosen.localization}
    explanation = _explain(settings, lengths, pilot, plan, at_start, chosen.relaxation, size(data.probes))
    return Calibration(settings, lengths, explanation, pilot.diagnosis, pilots)


@dataclass(frozen=True)
class _Pilot:
    """A short run with the chosen settings.

    Attributes:
        traces: what was sampled.
        diagnosis: of the traces.
        faults: screens that a longer run would not pass either.
        gradients: of a minibatch that it took.
        start_norm: |w*|.
    """

    traces: LossTraces
    diagnosis: Diagnosis
    faults: list[str]
    gradients: int
    start_norm: float

    @property
    def suits(self) -> bool:
        """Whether its settings can be kept: sound, and no more than four times smaller steps than possible."""
        metrics = self.diagnosis.metrics
        large = metrics["step_inflation"] > 1 + (INFLATION - 1) / 4 or metrics["stiffness"] > STIFFEST / 4
        return not self.faults and large

    @property
    def distance(self) -> float:
        """Mean |w - w*|."""
        return self.traces.dataset["distance"].values.mean()


def _frugal(gradients: int, batch_size: int) -> _Plan:
    """Return the plan for networks whose gradients are dear: three pilots within a number of gradients."""
    require_integer("gradients", gradients, at_least=GRADIENTS // 2)
    scale = gradients / GRADIENTS
    return _Plan(2, round(25 * scale), 2.5, 0.1, 64, 0.7, gradients, MOST_SPEEDUP, 2 * batch_size, 5)


def _run_pilot(
    setup: Setup, chosen: "Choice", plan: _Plan, trainer: Callable[..., pl.Trainer] | None, progress: bool
) -> _Pilot:
    """Sample a short run of the chosen settings, and diagnose it."""
    globs = setup.settings["parameters"]
    settings = {"step_size": chosen.step_size, "localization": chosen.localization}
    sampler = functools.partial(setup.sampler, **settings, **({"parameters": globs} if globs else {}))
    schedule = replace(
        setup.schedule,
        chains=plan.chains,
        draws=plan.draws,
        burn_in=math.ceil(plan.burn_in * chosen.relaxation),
        thinning=max(1, math.ceil(plan.spacing * chosen.relaxation)),
        step_check_share=plan.check_share,
    )
    data, probes = setup.data, size(setup.data.probes)
    if 0 < plan.probes < probes:
        rows = np.random.default_rng(setup.seed).choice(probes, plan.probes, replace=False)
        data = Data(data.train, Subset(data.probes, np.sort(rows).tolist()), data.loss, workers=data.workers)
    traces = sample(setup.model, data, sampler, schedule, seed=setup.seed, trainer=trainer, progress=progress)
    diagnosis = diagnose(traces)
    norm = math.sqrt(sum(float(weight.detach().double().square().sum()) for weight in setup.model.parameters()))
    checks = Effort(**traces.meta["step_checks"]).gradients(schedule.batch_size)
    # Besides them the start of each power iteration, and the steps whose time is measured.
    spent = schedule.chains * (schedule.steps + checks + 1) + 3
    return _Pilot(traces, diagnosis, _faults(diagnosis, traces, norm), spent, norm)


def _faults(diagnosis: Diagnosis, traces: LossTraces, start_norm: float) -> list[str]:
    """Return the screens that a longer run would not pass either, and "distance" for chains that go too far."""
    lasting = (*_STEP_SCREENS, *_REGION_SCREENS)
    faults = [row["screen"] for row in diagnosis.screens if row["verdict"] != "pass" and row["screen"] in lasting]
    if diagnosis.metrics["step_inflation"] > _INFLATED and "step_inflation" not in faults:
        faults.append("step_inflation")
    far = traces.dataset["distance"].values.mean() > _FARTHEST * start_norm
    return [*faults, "distance"] if far else faults


def _lengths(pilot: _Pilot, schedule: Schedule, plan: _Plan, relaxation: float) -> dict[str, int]:
    """Return the schedule: burn-in of ten relaxation times, and draws far enough apart to be worth their cost."""
    metrics = pilot.diagnosis.metrics
    chains, draws, _ = pilot.traces.losses.shape
    thinning = pilot.traces.meta["identity"]["schedule"]["thinning"]
    effective = np.nanmin([metrics[key] for key in ("ess", "ess_tail", "ess_kernel") if key in metrics])
    # Steps per effective draw and chain. Draws closer than a third of it would hardly add any; farther apart if the
    # schedule's draws are otherwise too few for EFFECTIVE.
    memory = thinning * max(1.0, chains * draws / max(effective, 1.0))
    if plan.gradients < math.inf:  # too few draws to show it: that of a loss which follows a flat direction
        memory = 2 * relaxation
    spacing = max(memory / 3, EFFECTIVE * memory / (schedule.chains * schedule.draws))
    needed = _draws_for(metrics["split_agreement"], chains * draws / schedule.chains)
    return {
        "chains": schedule.chains,
        "burn_in": max(math.ceil(10 * relaxation), math.ceil(5 * memory)),
        "draws": max(schedule.draws, math.ceil(needed / 50) * 50),
        "thinning": max(1, math.ceil(spacing)),
        "batch_size": schedule.batch_size,
    }


def _draws_for(agreement: float, draws: float) -> float:
    """Return the draws per chain at which halves of the chains would agree to 0.9, by Spearman and Brown's formula.

    0 where more than ten times the pilot's would be needed: the probes share too little for draws to show it.
    """
    if math.isnan(agreement) or agreement <= 0:
        return 0.0
    factor = 0.9 * (1 - agreement) / (agreement * (1 - 0.9))
    return draws * factor if factor < 10 else 0.0


def _explain(
    settings: dict[str, float],
    lengths: dict[str, int],
    pilot: _Pilot,
    plan: _Plan,
    at_start: float,
    relaxation: float,
    probes: int,
) -> list[str]:
    """Return the five lines of a Calibration's explanation."""
    metrics, nbeta = pilot.diagnosis.metrics, settings["nbeta"]
    in_chains = (metrics["curvature"] - settings["localization"]) / nbeta
    steps = lengths["burn_in"] + lengths["draws"] * lengths["thinning"]
    faults = ", ".join(pilot.faults)
    found = f"still {faults}" if faults else "sound"
    if plan.gradients < math.inf:
        found += ", too short to tell how many draws single entries of the kernel take"
    return [
        f"curvature: the training loss has λ_max {at_start:.3g} at w* and {in_chains:.3g} where the chains are; "
        f"nbeta {nbeta:g}",
        f"step_size {settings['step_size']:g}: step times curvature is {metrics['stiffness']:.2f} (stable below 4) and "
        f"inflates the steepest direction's variance by {metrics['step_inflation'] - 1:.0%}",
        f"localization {settings['localization']:g}: flat directions forget in {relaxation:.0f} steps, |w - w*| is "
        f"{pilot.distance:.2g} (|w*| = {pilot.start_norm:.2g})",
        f"burn_in {lengths['burn_in']}, {lengths['chains']} x {lengths['draws']} draws, thinning "
        f"{lengths['thinning']}: for {EFFECTIVE} effective draws or more of the slowest quantity",
        f"pilot of {plan.chains} x {plan.draws} draws: {found}; the run takes "
        f"{lengths['chains'] * steps:,} gradients of a minibatch of {lengths['batch_size']} and "
        f"{lengths['chains'] * lengths['draws'] * probes:,} forward passes of a sample",
    ]


@dataclass(frozen=True)
class Landscape:
    """The loss around w*, in the coordinates w / √G of the sampler.

    Attributes:
        curvature: largest second derivative of nbeta · L.
        noise: variance of the minibatch noise of its gradient along that direction.
        scale: G, the median factor of the step size.
        speedup: factor by which flat directions shall relax faster than in RELAXATION steps.
    """

    curvature: float
    noise: float = 0.0
    scale: float = 1.0
    speedup: float = 1.0


class Choice(NamedTuple):
    """Settings, and the steps in which directions without curvature relax."""

    step_size: float
    localization: float
    relaxation: float


def choose(factory: Callable[..., Sampler], landscape: Landscape) -> Choice:
    """Return the largest steps that inflate by no more than INFLATION, and the localization that suits them.

    The loss' curvature and the localization together make the steepest direction; the flattest has the latter
    alone, and relaxes in RELAXATION / speedup steps.
    """
    weight = torch.zeros(1, 1)

    def sampler(step_size: float, localization: float) -> Sampler:
        return factory([weight], step_size=step_size, localization=localization, noise=torch.zeros_like)

    def localization_for(step_size: float) -> float:
        return 2 * landscape.speedup / (step_size * RELAXATION)

    # Bisection on a logarithmic scale; 4 / curvature is the stability bound.
    low, high = 1e-12, 3.9 / landscape.curvature
    for _ in range(60):
        middle = math.sqrt(low * high)
        localization = localization_for(middle)
        steepest, inflation = landscape.curvature + localization, math.inf
        if middle * steepest < STIFFEST:
            inflation = steepest * sampler(middle, localization).stationary_variance(steepest, landscape.noise)
        low, high = (middle, high) if inflation < INFLATION else (low, middle)
    step_size, localization = _two_digits(low), _two_digits(localization_for(low))
    relaxation = sampler(step_size, localization).relaxation_steps(localization)
    return Choice(step_size, _two_digits(localization / landscape.scale), relaxation)


def landscape_of(traces: LossTraces, chosen: Choice, before: Landscape, *, faster: bool) -> Landscape:
    """Return the landscape that a pilot's chains met; `faster` doubles the speedup, for chains that went astray.

    Chains whose steps were too large end where no others would: they tell the direction in which the curvature
    differs, not how much, so that it changes at most fourfold.
    """
    rate, curvature, noise = (
        float(np.median(traces.dataset[name].values)) for name in ("relaxation_rate", "curvature", "minibatch_variance")
    )
    scale = rate * chosen.relaxation
    of_loss = curvature - scale * chosen.localization  # U's curvature without the localization's part, which changes
    bounded = min(max(of_loss, before.curvature / 4), before.curvature * 4)
    speedup = min(before.speedup * (2 if faster else 1), MOST_SPEEDUP)
    return Landscape(bounded, noise * bounded / max(of_loss, bounded), scale, speedup)


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")
