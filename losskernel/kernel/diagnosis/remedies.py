"""The one change that helps against a bad metric, in numbers where the settings of the run are known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Setting:
    """Settings a trace was sampled with; None where they are unknown.

    Attributes:
        chains, draws: of the trace.
        step_size, localization: of the sampler.
        burn_in, thinning: of the schedule, in steps.
        weights: how many move; 0 where unknown.
    """

    chains: int
    draws: int
    step_size: float | None = None
    localization: float | None = None
    burn_in: int | None = None
    thinning: int | None = None
    weights: int = 0


def setting_of(meta: Mapping[str, Any], chains: int, draws: int) -> Setting:
    """Read the settings from a trace's provenance."""
    identity: Mapping[str, Any] = meta.get("identity", {})
    sampler, schedule = identity.get("sampler", {}), identity.get("schedule", {})
    lengths = (schedule.get("burn_in"), schedule.get("thinning"))
    weights = meta.get("parameters", {}).get("moving", 0)
    return Setting(chains, draws, sampler.get("step_size"), sampler.get("localization"), *lengths, weights)


def mix(metrics: Mapping[str, float], setting: Setting) -> str:
    """Return the remedy of chains that have not mixed, from the relaxation time where it is known."""
    relaxation = metrics.get("relaxation_steps", float("nan"))
    if not setting.thinning or setting.burn_in is None or math.isnan(relaxation):
        return f"raise schedule.burn_in and schedule.draws (now {setting.draws}) or sampler.localization"
    if math.isinf(relaxation) and setting.step_size:
        # Without localization flat directions never relax; aim at fifty relaxation times within the draws.
        return f"raise sampler.localization to {_round(100 / (setting.step_size * setting.draws * setting.thinning))}"
    inflation = metrics.get("step_inflation", float("nan"))
    if metrics["relaxations_sampled"] < 3 and inflation < 1.05 and setting.step_size:
        # Far below the stability bound larger steps cost nothing. Inflation grows linearly in the step, so scale it
        # to a tenth; near 1 it is measured badly, hence at most 0.6 of stiffness, a seventh of the bound 4.
        factor = 0.1 / max(inflation - 1, 1e-6)
        stiffness = metrics.get("stiffness", float("nan"))
        factor = min(factor, 0.6 / stiffness) if stiffness > 0 else factor
        return f"raise sampler.step_size to {_round(setting.step_size * factor)}"
    short = metrics["relaxations_burn_in"] < 3 or metrics["relaxations_sampled"] < 20
    steps = setting.draws * setting.thinning
    if short and inflation > 1.5:
        # Smaller steps would relax more slowly still, and a longer run would not mend the inflation. A stronger
        # localization shortens the relaxation and lowers the curvature the chains meet.
        firmer = max(20 * relaxation / steps, 5 * relaxation / max(setting.burn_in, 1))
        if setting.localization and setting.burn_in:
            return f"raise sampler.localization to {_round(setting.localization * max(firmer, 2.0))}"
    if metrics["relaxations_burn_in"] < 3:
        return f"raise schedule.burn_in to {_up(5 * relaxation)}" + _or_localise(setting.burn_in, 5, setting)
    if metrics["relaxations_sampled"] < 20:
        thinning = _up(20 * relaxation / setting.draws)
        return f"raise schedule.thinning to {thinning}" + _or_localise(steps, 20, setting)
    return f"raise schedule.thinning (now {setting.thinning}) or sampler.localization"


def span(metrics: Mapping[str, float], setting: Setting) -> str:
    """Return the remedy of draws that span too few relaxation times, whatever the burn-in."""
    return mix({**metrics, "relaxations_burn_in": math.inf}, setting)


def _or_localise(steps: int, times: float, setting: Setting) -> str:
    """Return the localization with which the steps would span so many relaxation times, if it is a stable one."""
    if not steps or not setting.step_size:
        return ""
    wanted = 2 * times / (setting.step_size * steps)
    return f" or sampler.localization to {_round(wanted)}" if setting.step_size * wanted < 0.5 else ""


def smaller_steps(metrics: Mapping[str, float], setting: Setting) -> str:
    """Return the remedy of steps that are too large: those that inflate by a fifth."""
    if not setting.step_size:
        return "lower sampler.step_size"
    inflation, stiffness = metrics.get("step_inflation", math.inf), metrics.get("stiffness", float("nan"))
    if math.isfinite(inflation) and stiffness < 2 and inflation > 1.2:
        return f"lower sampler.step_size to {_round(setting.step_size * 0.2 / (inflation - 1))}"
    if stiffness > 0.6:
        return f"lower sampler.step_size to {_round(setting.step_size * 0.6 / stiffness)}"
    return f"lower sampler.step_size to {_round(setting.step_size / 4)}"


def longer_run(metrics: Mapping[str, float], setting: Setting) -> str:
    """Return the remedy of too few effective draws: as many as would give 500."""
    least = np.nanmin([metrics["ess"], metrics["ess_tail"], metrics["ess_kernel"], 500.0])
    factor = 500 / max(least, 1.0)
    if factor <= 1:
        return "raise schedule.draws or schedule.chains"
    if setting.thinning and factor > 4:
        return f"raise schedule.thinning to {_up(setting.thinning * factor)}"
    return f"raise schedule.draws to {_up(setting.draws * factor)}"


def _round(value: float) -> str:
    return f"{float(f'{value:.1e}'):g}"


def _up(value: float) -> int:
    """Return the next whole number of two digits and zeros."""
    unit = 10 ** max(0, math.floor(math.log10(max(value, 1.0))) - 1)
    return math.ceil(value / unit) * unit
