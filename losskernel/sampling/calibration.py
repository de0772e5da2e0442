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
from losskernel.errors import DivergenceError, require, require_integer
from losskernel.kernel.diagnosis.diagnose import Diagnosis, diagnose
from losskernel.sampling.sample import sample, settle
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.schedule import Schedule
from losskernel.sampling.step_checks import largest_curvature
from losskernel.traces.loss_traces import LossTraces

# The steps inflate the steepest direction's variance by this much, minibatch noise included.
INFLATION = 1.15
# Symmetric splittings inflate a parabola by nothing up to their bound; real landscapes are no parabolas.
STIFFEST = 1.0
# A direction without curvature forgets in this many steps: 1/γ is then about twenty times the steepest variance.
RELAXATION = 80
# Firmer than this, and the pull towards w* alone would inflate beyond what is asked.
FIRMEST = 8.0
# Effective draws aimed at, twice what a pass asks for.
EFFECTIVE = 800
# Screens that judge the steps and the place, not the length of the run.
_STEPS = ("step_inflation", "excess_loss", "noise_to_gradient")
_PLACE = ("constant_probes", "heavy_share", "tail_index", "distance")
# A pilot is held to less than the diagnosis asks, for it is short and the run shall pass.
_INFLATED = 1 + 2 * (INFLATION - 1)
# Farther than this share of |w*|, chains are no longer around w*.
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
        pilots: settings and findings of every pilot.
    """

    sampler: dict[str, float]
    schedule: dict[str, int]
    explanation: list[str]
    diagnosis: Diagnosis
    pilots: list[dict[str, Any]]


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
    factory, settings, moving = settle(model, data, sampler, schedule)
    nbeta = float(settings["nbeta"])
    require(nbeta > 0, "sampler.nbeta must be > 0 to calibrate, got 0; give a value such as sampler.nbeta=100")
    at_start = largest_curvature(model, data, moving)
    # A loss without curvature at w*, as of a network that fits perfectly, tells nothing: begin at γ = nβ / 10.
    here = Landscape(max(nbeta * at_start, nbeta / 10))
    chosen = choose(factory, here)
    pilots: list[dict[str, Any]] = []
    traces, diagnosis, seconds = None, Diagnosis("fail"), 0.0
    parameters = {"parameters": settings["parameters"]} if settings["parameters"] else {}
    for number in range(rounds):
        moved = {"step_size": chosen.step_size, "localization": chosen.localization}
        pilot = _pilot(schedule, chosen.relaxation)
        began = time.monotonic()
        try:
            own = functools.partial(factory, **moved, **parameters)
            traces = sample(model, data, own, pilot, seed=seed, trainer=trainer, progress=progress)
        except DivergenceError as error:
            pilots.append({**moved, "faults": [str(error)]})
            here = replace(here, curvature=4 * here.curvature)
            chosen = choose(factory, here)
            continue
        seconds = (time.monotonic() - began) / (pilot.chains * pilot.steps)
        diagnosis = diagnose(traces)
        faults = _faults(diagnosis, traces, model)
        pilots.append({**moved, "faults": faults} | diagnosis.metrics)
        # Steps four times smaller than they may be would be safe but wasteful.
        enough = diagnosis.metrics["step_inflation"] > 1 + (INFLATION - 1) / 4
        enough |= diagnosis.metrics["stiffness"] > STIFFEST / 4
        if (not faults and enough) or number == rounds - 1:
            break
        here = measured(traces, chosen, here, firmer=not set(faults).isdisjoint(_PLACE))
        chosen = choose(factory, here)
    if traces is None:
        raise DivergenceError(f"no pilot of {len(pilots)} stayed finite; lower sampler.nbeta or check the training")
    lengths = _lengths(traces, diagnosis, schedule, chosen.relaxation)
    found = {"step_size": chosen.step_size, "nbeta": nbeta, "localization": chosen.localization}
    explanation = _explain(found, lengths, diagnosis, at_start, chosen.relaxation, seconds, model, traces)
    return Calibration(found, lengths, explanation, diagnosis, pilots)


def _pilot(schedule: Schedule, relaxation: float) -> Schedule:
    thinning = max(1, math.ceil(relaxation / 5))
    return replace(schedule, **_PILOT, burn_in=math.ceil(5 * relaxation), thinning=thinning)


def _faults(diagnosis: Diagnosis, traces: LossTraces, model: nn.Module) -> list[str]:
    """Return what a longer run would not mend: screens that do not pass, and chains that go too far."""
    lasting = (*_STEPS, *_PLACE)
    faults = [each["screen"] for each in diagnosis.screens if each["verdict"] != "pass" and each["screen"] in lasting]
    if diagnosis.metrics["step_inflation"] > _INFLATED and "step_inflation" not in faults:
        faults.append("step_inflation")
    far = traces.dataset["distance"].values.mean() > _FARTHEST * _length(model)
    return [*faults, "distance"] if far else faults


def _length(model: nn.Module) -> float:
    """Return |w*|."""
    return math.sqrt(sum(float(weight.detach().double().square().sum()) for weight in model.parameters()))


def _lengths(traces: LossTraces, diagnosis: Diagnosis, schedule: Schedule, relaxation: float) -> dict[str, int]:
    """Return the schedule: burn-in of ten relaxation times, and draws far enough apart to be worth their cost."""
    chains, draws, _ = traces.losses.shape
    thinning = traces.meta["identity"]["schedule"]["thinning"]
    keys = ("ess", "ess_tail", "ess_kernel")
    least = np.nanmin([diagnosis.metrics[key] for key in keys if key in diagnosis.metrics])
    memory = thinning * max(1.0, chains * draws / max(least, 1.0))  # steps per effective draw and chain
    total = schedule.chains * schedule.draws
    spacing = max(memory / 3, EFFECTIVE * memory / total)
    agreement = diagnosis.metrics["split_agreement"]
    wanted = _draws_for(agreement, chains * draws / schedule.chains)
    return {
        "chains": schedule.chains,
        "burn_in": max(math.ceil(10 * relaxation), math.ceil(5 * memory)),
        "draws": max(schedule.draws, math.ceil(wanted / 50) * 50),
        "thinning": max(1, math.ceil(spacing)),
        "batch_size": schedule.batch_size,
    }


def _draws_for(agreement: float, draws: float) -> float:
    """Return the draws per chain at which halves of the chains would agree to 0.9 (Spearman and Brown's formula).

    Bounded to ten times the pilot's: below, these probes share too little for any number of draws to show.
    """
    if math.isnan(agreement) or agreement <= 0:
        return 0.0
    factor = 0.9 * (1 - agreement) / (agreement * (1 - 0.9))
    return draws * factor if factor < 10 else 0.0


def _explain(
    found: dict[str, float],
    lengths: dict[str, int],
    diagnosis: Diagnosis,
    at_start: float,
    relaxation: float,
    seconds: float,
    model: nn.Module,
    traces: LossTraces,
) -> list[str]:
    metrics, nbeta = diagnosis.metrics, found["nbeta"]
    along = (metrics["curvature"] - found["localization"]) / nbeta
    steps = lengths["burn_in"] + lengths["draws"] * lengths["thinning"]
    faults = ", ".join(_faults(diagnosis, traces, model))
    return [
        f"curvature: the training loss has λ_max {at_start:.3g} at w* and {along:.3g} where the chains are; "
        f"nbeta {nbeta:g}",
        f"step_size {found['step_size']:g}: step times curvature is {metrics['stiffness']:.2f} (stable below 4) and "
        f"inflates the steepest direction's variance by {metrics['step_inflation'] - 1:.0%}",
        f"localization {found['localization']:g}: flat directions forget in {relaxation:.0f} steps, |w - w*| is "
        f"{traces.dataset['distance'].values.mean():.2g} (|w*| = {_length(model):.2g})",
        f"burn_in {lengths['burn_in']}, {lengths['chains']} x {lengths['draws']} draws, thinning "
        f"{lengths['thinning']}: for {EFFECTIVE} effective draws or more of the slowest quantity",
        f"pilot of {_PILOT['chains']} x {_PILOT['draws']} draws: {f'still {faults}' if faults else 'sound'}; "
        f"the run will take about {seconds * lengths['chains'] * steps:.0f} s",
    ]


@dataclass(frozen=True)
class Landscape:
    """What is known of the loss around w*, in the coordinates w / √G of the sampler.

    Attributes:
        curvature: largest second derivative of nbeta · L.
        noise: variance of the minibatch noise of its gradient along that direction.
        scale: G, the median factor of the step size.
        firmness: how much faster than usual flat directions shall forget.
    """

    curvature: float
    noise: float = 0.0
    scale: float = 1.0
    firmness: float = 1.0


class Choice(NamedTuple):
    """Settings, and the steps in which directions without curvature forget."""

    step_size: float
    localization: float
    relaxation: float


def choose(factory: Callable[..., Sampler], here: Landscape) -> Choice:
    """Return the largest steps that inflate by no more than INFLATION, and the localization that suits them.

    The loss' curvature and the localization together make the steepest direction; the flattest has the latter
    alone, and forgets in RELAXATION / firmness steps.
    """
    weight = torch.zeros(1, 1)

    def law(step_size: float, pull: float) -> Sampler:
        return factory([weight], step_size=step_size, localization=pull, noise=torch.zeros_like)

    def pull(step_size: float) -> float:
        return 2 * here.firmness / (step_size * RELAXATION)

    low, high = 1e-12, 3.9 / here.curvature
    for _ in range(60):
        middle = math.sqrt(low * high)
        steepest = here.curvature + pull(middle)
        stable = middle * steepest < STIFFEST
        inflation = (
            steepest * law(middle, pull(middle)).stationary_variance(steepest, here.noise) if stable else math.inf
        )
        low, high = (middle, high) if inflation < INFLATION else (low, middle)
    step_size, own = _round(low), _round(pull(low))
    return Choice(step_size, _round(own / here.scale), law(step_size, own).relaxation_steps(own))


def measured(traces: LossTraces, chosen: Choice, before: Landscape, *, firmer: bool) -> Landscape:
    """Return the landscape where a pilot's chains ended; firmer where what the chains met there was wild.

    Chains whose steps were too large end where no others would: they say how, not how much, the curvature
    differs, so that it is changed fourfold at most.
    """
    rate, curvature, noise = (
        float(np.median(traces.dataset[name].values)) for name in ("relaxation_rate", "curvature", "minibatch_variance")
    )
    scale = rate * chosen.relaxation
    # What localization adds to the curvature changes with it; the loss' part is the landscape's own.
    own = curvature - scale * chosen.localization
    bounded = min(max(own, before.curvature / 4), before.curvature * 4)
    firmness = min(before.firmness * (2 if firmer else 1), FIRMEST)
    return Landscape(bounded, noise * bounded / max(own, bounded), scale, firmness)


def _round(value: float) -> float:
    return float(f"{value:.1e}")
