"""The numbers that a joint space is summed up by, and all of its distances as a table."""

from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses.joint.along_training import Family
from losskernel.analyses.joint.kernels import PLACEBO, Joint
from losskernel.analyses.joint.localization_sweep import Sweep
from losskernel.geometry import Path


def numbers(joint: Joint, near: pd.DataFrame, beyond: pd.DataFrame, sweep: Sweep | None) -> dict[str, float]:
    """Return the run's own loss kernel's place among layers, targets and kernels in closed form. Angles in radians."""
    own, points = joint.own, joint.points
    found = {
        "points": float(len(points) - 1),
        "probes": float(len(points.ids)),
        "reliability": float(joint.reliability[own]),
    }
    found |= _nearest(joint, near) | _labels(joint) | _beyond(joint, beyond)
    for kind in ("gradient", "laplace"):
        other = joint.closed(kind)
        if other is not None:
            found[f"{kind}_angle"] = joint.angle(own, other)
            found[f"{kind}_cosine_corrected"] = float(joint.corrected[own, other])
    if sweep is not None:
        last = sweep.table.iloc[-1]
        for name in ("angle", "cosine_corrected", "floor"):
            found[f"gradient_{name}_largest_localization"] = float(last[name])
        found |= {"sweep_length": sweep.length, "sweep_straightness": sweep.straightness}
    return found


def along_training(joint: Joint, table: pd.DataFrame, found: list[Family]) -> dict[str, float]:
    """Return the length and straightness of the loss kernel's path, and how its velocity stands to the last layer's."""
    lead = next(each for each in found if each.kind == "loss_kernel")
    path = Path.from_arrangement(joint.arrangement, lead.numbers)
    numbers = {"training_length": path.length, "training_straightness": path.straightness}
    hidden = [each.label for each in found if each.kind == "layer"]
    told = [row["velocity"] for row in table.to_dict("records") if hidden and row["what"] == hidden[-1]]
    told = [each for each in told if np.isfinite(each)]
    return numbers | ({"training_velocity_angle": float(np.median(told))} if told else {})


def distances(joint: Joint, chosen: list[int], angles: np.ndarray) -> pd.DataFrame:
    """Return a row for every pair of points.

    Columns: first, second, distance (raw, radians), cosine_corrected (without sampling noise), floor, bures (the
    Bures angle, where it was asked for).

    Args:
        joint: the points.
        chosen: numbers of the points with a Bures angle, n of them.
        angles: [n, n] these.
    """
    place = {number: row for row, number in enumerate(chosen)}
    first, second = np.triu_indices(len(joint.points), 1)
    bures = [
        angles[place[a], place[b]] if a in place and b in place else np.nan
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    names = np.array(joint.points.names, dtype=object)
    columns = {
        "first": names[first],
        "second": names[second],
        "distance": joint.arrangement.distances[first, second],
        "cosine_corrected": joint.corrected[first, second],
        "floor": joint.floor[first, second],
        "bures": bures,
    }
    return pd.DataFrame(columns)


def _nearest(joint: Joint, near: pd.DataFrame) -> dict[str, float]:
    rows: dict[str, Any] = {row["kernel"]: row for row in near.to_dict("records")}
    if joint.name(joint.own) not in rows:
        return {}
    row = rows[joint.name(joint.own)]
    path = joint.points.path(joint.points.placed[joint.own].network)
    place = [joint.name(number) for number in path].index(row["nearest"])
    found = {f"nearest_layer_angle{end}": float(row[name]) for end, name in _ENDINGS.items()}
    found |= {f"nearest_layer_{name}": float(row[name]) for name in ("cosine_corrected", "floor", "lead", "lead_se")}
    found |= {"nearest_layer_p": float(row["p_adjusted"]), "nearest_layer_place": float(place)}
    return found | {"placebo_angle": float(rows[PLACEBO]["angle"])}


_ENDINGS = {"": "angle", "_se": "se", "_low": "low", "_high": "high"}


def _labels(joint: Joint) -> dict[str, float]:
    targets = joint.points.of("target")
    return {"labels_angle": joint.angle(joint.own, targets[0])} if targets else {}


def _beyond(joint: Joint, beyond: pd.DataFrame) -> dict[str, float]:
    if beyond.empty:
        return {}
    target, found = beyond["target"].iloc[0], {}
    for row in beyond.to_dict("records"):
        if row["kernel"] == joint.name(joint.own) and row["target"] == target:
            for end, name in {**_ENDINGS, "": "beyond"}.items():
                found[f"beyond_labels_{row['layer']}{end}"] = float(row[name])
    return found
