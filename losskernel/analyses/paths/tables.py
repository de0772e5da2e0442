"""Tables of paths: what every step does, a row per network, distances between whole paths."""

from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses.paths.measured_paths import Survey, Traced

HIDDEN = "hidden"
INPUTS = "inputs"


def profile_table(survey: Survey) -> pd.DataFrame:
    """Return a row per network and layer: distances with standard errors, the step to the next layer, angles (rad)."""
    rows = [row for each in survey.traced for row in _layers(each)]
    return pd.DataFrame(rows)


def networks_table(survey: Survey) -> pd.DataFrame:
    """Return a row per network: length, straightness, chord, efficiency, distances to the target."""
    return pd.DataFrame(
        [{"network": each.walk.network, "step": each.walk.step, **totals(each)} for each in survey.traced]
    )


def distances_table(survey: Survey) -> pd.DataFrame:
    """Return the mean distances between all pairs of paths."""
    names, between = [each.walk.network for each in survey.traced], survey.between
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    rows = [{"network": names[i], "other": names[j], "distance": between[i, j]} for i, j in pairs]
    return pd.DataFrame(rows, columns=["network", "other", "distance"])


def totals(traced: Traced) -> dict[str, float]:
    """Return one path's numbers, `x_se` being the standard error of x over probes."""
    profile, errors = traced.profile, traced.errors
    found = {
        "points": float(len(traced.walk.numbers)),
        "length": profile.length,
        "length_se": errors.length,
        "straightness": profile.straightness,
        "straightness_se": errors.straightness,
        "chord": traced.chord,
        "chord_se": errors.chord,
        "efficiency": traced.efficiency,
        "efficiency_se": errors.efficiency,
    }
    for name, place in landmarks(traced).items():
        found[f"distance_to_target_{name}"] = float(profile.to_target[place])
        found[f"distance_to_target_{name}_se"] = float(errors.to_target[place])
    return found


def landmarks(traced: Traced) -> dict[str, int]:
    """Return the places on the path that every network has: inputs, the last hidden layer, each output."""
    walk = traced.walk
    hidden = walk.last("layer")
    found = {INPUTS: 0} | ({} if hidden is None else {HIDDEN: hidden})
    outputs = [place for place, kind in enumerate(walk.kinds) if kind == "output"]
    return found | {walk.labels[place].replace(" ", "_"): place for place in outputs}


def _layers(traced: Traced) -> list[dict[str, Any]]:
    profile, errors, walk = traced.profile, traced.errors, traced.walk
    count = len(walk.numbers)
    following = {  # of the step from this layer to the next
        "step_length": profile.step,
        "step_length_se": errors.step,
        "progress": profile.progress,
        "efficiency": profile.efficiency,
        "heading": profile.heading,
    }
    return [
        {
            "network": walk.network,
            "step": walk.step,
            "layer": walk.labels[place],
            "kind": walk.kinds[place],
            "distance_to_target": profile.to_target[place],
            "distance_to_target_se": errors.to_target[place],
            **{name: values[place] if place < count - 1 else np.nan for name, values in following.items()},
            "turning": profile.turning[place - 1] if 0 < place < count - 1 else np.nan,
            "fraction": profile.fraction[place],
            "off_geodesic": profile.off[place],
            "behind": bool(profile.behind[place]),
        }
        for place in range(count)
    ]
