"""Which steps suit a landscape: the largest that inflate little, and a localization that lets them relax."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from losskernel.sampling.samplers import Sampler
from losskernel.traces.loss_traces import LossTraces

# The steps inflate the steepest direction's variance by this much, minibatch noise included.
INFLATION = 1.15
# Symmetric splittings inflate a parabola by nothing up to their bound; real landscapes are no parabolas.
STIFFEST = 1.0
# A direction without curvature forgets in this many steps: 1/γ is then about twenty times the steepest variance.
RELAXATION = 80
# Firmer than this, and the pull towards w* alone would inflate beyond what is asked.
FIRMEST = 8.0


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
