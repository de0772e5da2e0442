"""calibrate(): step size, localization, burn-in and thinning from curvature and relaxation time, checked by pilots."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from losskernel.data.base import Data
from losskernel.data.global_state import with_own_state
from losskernel.errors import DivergenceError, require, require_integer
from losskernel.kernel.diagnosis.diagnose import Diagnosis, diagnose
from losskernel.sampling.sample import sample
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.setup import Schedule, Setup, setup_of
from losskernel.sampling.step_checks import largest_curvature
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
_PILOT = {"chains": 4, "draws": 150}


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
    at_start = largest_curvature(model, data, setup.moving)
    # A network that fits perfectly has hardly any curvature at w*, which says nothing of its surroundings: the floor
    # starts from γ = nβ / 10.
    landscape = Landscape(max(nbeta * at_start, nbeta / 10))
    chosen = choose(setup.sampler, landscape)
    pilots: list[dict[str, Any]] = []
    pilot: _Pilot | None = None
    for number in range(rounds):
        settings = {"step_size": chosen.step_size, "localization": chosen.localization}
        try:
            pilot = _run_pilot(setup, chosen, trainer, progress)
        except DivergenceError as error:
            pilots.append({**settings, "faults": [str(error)]})
            landscape = replace(landscape, curvature=4 * landscape.curvature)
        else:
            pilots.append({**settings, "faults": pilot.faults} | pilot.diagnosis.metrics)
            if pilot.suits or number == rounds - 1:
                break
            faster = not set(pilot.faults).isdisjoint(_REGION_SCREENS)
            landscape = landscape_of(pilot.traces, chosen, landscape, faster=faster)
        chosen = choose(setup.sampler, landscape)
    if pilot is None:
        raise DivergenceError(f"no pilot of {len(pilots)} stayed finite; lower sampler.nbeta or check the training")
    lengths = _lengths(pilot, schedule, chosen.relaxation)
    settings = {"step_size": chosen.step_size, "nbeta": nbeta, "localization": chosen.localization}
    explanation = _explain(settings, lengths, pilot, at_start, chosen.relaxation)
    return Calibration(settings, lengths, explanation, pilot.diagnosis, pilots)


@dataclass(frozen=True)
class _Pilot:
    """A short run with the chosen settings.

    Attributes:
        traces: what was sampled.
        diagnosis: of the traces.
        faults: screens that a longer run would not pass either.
        seconds: per step and chain.
        start_norm: |w*|.
    """

    traces: LossTraces
    diagnosis: Diagnosis
    faults: list[str]
    seconds: float
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


def _run_pilot(setup: Setup, chosen: "Choice", trainer: Callable[..., pl.Trainer] | None, progress: bool) -> _Pilot:
    """Sample a short run of the chosen settings, and diagnose it."""
    globs = setup.settings["parameters"]
    settings = {"step_size": chosen.step_size, "localization": chosen.localization}
    sampler = functools.partial(setup.sampler, **settings, **({"parameters": globs} if globs else {}))
    lengths = {"burn_in": math.ceil(5 * chosen.relaxation), "thinning": max(1, math.ceil(chosen.relaxation / 5))}
    schedule = replace(setup.schedule, **_PILOT, **lengths)
    began = time.monotonic()
    traces = sample(setup.model, setup.data, sampler, schedule, seed=setup.seed, trainer=trainer, progress=progress)
    seconds = (time.monotonic() - began) / (schedule.chains * schedule.steps)
    diagnosis = diagnose(traces)
    norm = math.sqrt(sum(float(weight.detach().double().square().sum()) for weight in setup.model.parameters()))
    return _Pilot(traces, diagnosis, _faults(diagnosis, traces, norm), seconds, norm)


def _faults(diagnosis: Diagnosis, traces: LossTraces, start_norm: float) -> list[str]:
    """Return the screens that a longer run would not pass either, and "distance" for chains that go too far."""
    lasting = (*_STEP_SCREENS, *_REGION_SCREENS)
    faults = [row["screen"] for row in diagnosis.screens if row["verdict"] != "pass" and row["screen"] in lasting]
    if diagnosis.metrics["step_inflation"] > _INFLATED and "step_inflation" not in faults:
        faults.append("step_inflation")
    far = traces.dataset["distance"].values.mean() > _FARTHEST * start_norm
    return [*faults, "distance"] if far else faults


def _lengths(pilot: _Pilot, schedule: Schedule, relaxation: float) -> dict[str, int]:
    """Return the schedule: burn-in of ten relaxation times, and draws far enough apart to be worth their cost."""
    metrics = pilot.diagnosis.metrics
    chains, draws, _ = pilot.traces.losses.shape
    thinning = pilot.traces.meta["identity"]["schedule"]["thinning"]
    effective = np.nanmin([metrics[key] for key in ("ess", "ess_tail", "ess_kernel") if key in metrics])
    # Steps per effective draw and chain. Draws closer than a third of it would hardly add any; farther apart if the
    # schedule's draws are otherwise too few for EFFECTIVE.
    memory = thinning * max(1.0, chains * draws / max(effective, 1.0))
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
    settings: dict[str, float], lengths: dict[str, int], pilot: _Pilot, at_start: float, relaxation: float
) -> list[str]:
    """Return the five lines of a Calibration's explanation."""
    metrics, nbeta = pilot.diagnosis.metrics, settings["nbeta"]
    in_chains = (metrics["curvature"] - settings["localization"]) / nbeta
    steps = lengths["burn_in"] + lengths["draws"] * lengths["thinning"]
    faults = ", ".join(pilot.faults)
    return [
        f"curvature: the training loss has λ_max {at_start:.3g} at w* and {in_chains:.3g} where the chains are; "
        f"nbeta {nbeta:g}",
        f"step_size {settings['step_size']:g}: step times curvature is {metrics['stiffness']:.2f} (stable below 4) and "
        f"inflates the steepest direction's variance by {metrics['step_inflation'] - 1:.0%}",
        f"localization {settings['localization']:g}: flat directions forget in {relaxation:.0f} steps, |w - w*| is "
        f"{pilot.distance:.2g} (|w*| = {pilot.start_norm:.2g})",
        f"burn_in {lengths['burn_in']}, {lengths['chains']} x {lengths['draws']} draws, thinning "
        f"{lengths['thinning']}: for {EFFECTIVE} effective draws or more of the slowest quantity",
        f"pilot of {_PILOT['chains']} x {_PILOT['draws']} draws: {f'still {faults}' if faults else 'sound'}; "
        f"the run will take about {pilot.seconds * lengths['chains'] * steps:.0f} s",
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
