"""Paths of loss kernels: as the localization grows, towards the loss gradients; and over training, beside layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel.analyses.joint.joint import KERNELS, Joint, ProbeErrors
from losskernel.geometry import Arrangement, Path
from losskernel.geometry.arrangement import inner_products
from losskernel.geometry.paths.path import LEAST_SIDE
from losskernel.geometry.significance import jackknife_error
from losskernel.representations.points import TRAINED


@dataclass(frozen=True, eq=False)
class Sweep:
    """A path of loss kernels that ends at the kernel of loss gradients.

    Attributes:
        numbers: of the loss kernels at the trained weights, by rising localization.
        end: number of the gradients' point.
        table: a row each.
        length: of the path from the weakest localization to the gradients, in radians.
        straightness: its ends' distance as a share of it.
    """

    numbers: list[int]
    end: int
    table: pd.DataFrame
    length: float
    straightness: float


class Family(NamedTuple):
    """The same kind of point at several checkpoints."""

    label: str  # such as "loss kernel" or a layer's name
    kind: str
    numbers: list[int]
    steps: np.ndarray  # [T] of training, rising


def localization_sweep(joint: Joint, errors: ProbeErrors) -> Sweep | None:
    """Return the sweep of localizations at the run's nβ; None with fewer than two, or without the gradients' point.

    Columns: localization, kernel, angle to the gradients (raw, radians) with its se (jackknife over probes),
    cosine, cosine_corrected and corrected_angle (without sampling noise), floor (the angle that noise alone gives),
    to_next (along the path, the last to the gradients), laplace (the angle of a Laplace kernel of the same
    localization), failed (its diagnosis), step_size.
    """
    ends = joint.points.of("gradient", network=TRAINED)
    numbers = _localizations(joint)
    if not ends or len(numbers) < 2:
        return None
    end = ends[0]
    path = Path.from_arrangement(joint.arrangement, [*numbers, end])
    table = pd.DataFrame([_sweep_row(joint, errors, number, end) for number in numbers])
    table.insert(8, "to_next", path.steps)
    return Sweep(numbers, end, table, path.length, path.straightness)


def log_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the slope of log y against log x by least squares; NaN with fewer than two points."""
    known = (x > 0) & (y > 0)  # what has a logarithm
    return float(np.polyfit(np.log(x[known]), np.log(y[known]), 1)[0]) if known.sum() >= 2 else float("nan")


def _localizations(joint: Joint) -> list[int]:
    """Return the numbers of the kernels that differ from the run's by localization alone, by rising localization."""
    settings = {number: joint.points[number].settings for number in joint.points.of("loss_kernel")}
    nbeta = settings[joint.main].get("nbeta")
    numbers = [
        number
        for number in joint.kernels(TRAINED)
        if number in settings and "localization" in settings[number] and settings[number].get("nbeta") == nbeta
    ]
    return sorted(numbers, key=lambda number: settings[number]["localization"])


def _sweep_row(joint: Joint, errors: ProbeErrors, number: int, end: int) -> dict[str, Any]:
    settings, corrected = joint.points[number].settings, float(joint.corrected[number, end])
    return {
        "localization": settings["localization"],
        "kernel": joint.name(number),
        "angle": joint.angle(number, end),
        "se": float(jackknife_error(errors.angles(number, end))),
        "cosine": joint.cosine(number, end),
        "cosine_corrected": corrected,
        "corrected_angle": float(np.arccos(np.clip(corrected, -1.0, 1.0))),
        "floor": float(joint.floor[number, end]),
        "laplace": _laplace_angle(joint, settings, end),
        "failed": settings.get("failed", float("nan")),
        "step_size": settings.get("step_size", float("nan")),
    }


def _laplace_angle(joint: Joint, settings: Mapping[str, float], end: int) -> float:
    """Return the angle to the gradients of the Laplace kernel with the same settings; NaN where there is none."""
    for number in joint.points.of("laplace", network=TRAINED):
        known = joint.points[number].settings
        if all(np.isclose(known.get(key, np.nan), settings[key]) for key in ("localization", "nbeta")):
            return joint.angle(number, end)
    return float("nan")


def families(joint: Joint) -> list[Family]:
    """Return what has a point at two checkpoints or more, the trained network being one: kernels first."""
    numbers: dict[str, list[int]] = {}
    for number, item in enumerate(joint.points.points):
        shown = item.kind in (*KERNELS, "layer", "output") and number != joint.placebo
        if shown and joint.step(number) is not None:
            numbers.setdefault(item.label, []).append(number)
    ordered = []
    for label, members in numbers.items():
        members = sorted(members, key=lambda number: joint.step(number) or 0)
        if len(members) >= 2:
            steps = np.array([joint.step(number) for number in members], dtype=float)
            ordered.append(Family(label, joint.points[members[0]].kind, members, steps))
    return sorted(ordered, key=lambda family: family.kind not in KERNELS)


def training_table(joint: Joint) -> pd.DataFrame:
    """Return a row for every family and checkpoint.

    Columns: what, kind, step, point, to_end (angle to its own trained point), to_labels (to the first target), to_next
    and speed (to_next per training step), floor_next (the angle that noise alone gives), nearest and nearest_angle (of
    kernels: the point of that checkpoint's path), with_kernel (the angle to the loss kernel of the same checkpoint),
    velocity_raw (the angle between its step and the loss kernel's, carried over in parallel) and velocity (the same
    without sampling noise, which turns steps at random; both NaN where a step without noise is shorter than 0.05 rad or
    than the floor). Angles in radians, raw but for velocity.
    """
    members = families(joint)
    lead = next((family for family in members if family.kind == "loss_kernel"), None)
    return pd.DataFrame([row for family in members for row in _training_rows(joint, family, lead)])


def velocity_angles(
    arrangement: Arrangement, first: Sequence[int], second: Sequence[int], floor: np.ndarray | None = None
) -> np.ndarray:
    """Return the angles [T - 1] between the steps of two paths of T points, in radians; 0 in parallel, π opposed.

    The second path's step is carried in parallel to the first path's point along their geodesic; all from cosines. NaN
    where a step is shorter than 0.05 rad, or than the floor.

    Args:
        arrangement: of all points, on a sphere.
        first: numbers of one path's points.
        second: of the other's.
        floor: [all, all] distances that noise alone gives.
    """
    angles = np.full(len(first) - 1, np.nan)  # [T - 1]
    for index in range(len(angles)):
        (a, after), (b, later) = pairs = [(path[index], path[index + 1]) for path in (first, second)]
        least = [LEAST_SIDE if floor is None else max(LEAST_SIDE, np.nan_to_num(floor[pair])) for pair in pairs]
        if all(arrangement.distances[pair] >= bound for pair, bound in zip(pairs, least, strict=True)):
            carried = _transported(arrangement, _tangent(arrangement, b, later), b, a)
            angles[index] = _angle_between(arrangement, _tangent(arrangement, a, after), carried)
    return angles


def _training_rows(joint: Joint, family: Family, lead: Family | None) -> list[dict[str, Any]]:
    targets, floor = joint.points.of("target"), joint.floor
    at_step = {} if lead is None else dict(zip(lead.steps.tolist(), lead.numbers, strict=True))
    partners = [at_step.get(step) for step in family.steps.tolist()]
    denoised = _denoised(joint)  # for velocities alone: noise turns steps at random
    rows = []
    for index, number in enumerate(family.numbers):
        row: dict[str, Any] = {
            "what": family.label,
            "kind": family.kind,
            "step": int(family.steps[index]),
            "point": joint.name(number),
            "to_end": joint.angle(number, family.numbers[-1]),
            "to_labels": joint.angle(number, targets[0]) if targets else np.nan,
        }
        row |= dict.fromkeys(("to_next", "speed", "floor_next"), np.nan)
        if index + 1 < len(family.numbers):
            after = family.numbers[index + 1]
            row["to_next"], row["floor_next"] = joint.angle(number, after), float(floor[number, after])
            row["speed"] = row["to_next"] / (family.steps[index + 1] - family.steps[index])
        row["nearest"], row["nearest_angle"] = _nearest(joint, number, family.kind)
        partner = partners[index]
        row["with_kernel"] = np.nan if partner is None else joint.angle(number, partner)
        row["velocity"], row["velocity_raw"] = np.nan, np.nan
        step = family.numbers[index : index + 2]
        kernel_step = [kernel for kernel in partners[index : index + 2] if kernel is not None]
        if family is not lead and len(kernel_step) == 2:
            row["velocity"] = velocity_angles(denoised, step, kernel_step, floor)[0]
            raw = velocity_angles(joint.arrangement, step, kernel_step)[0]
            row["velocity_raw"] = raw if np.isfinite(row["velocity"]) else np.nan
        rows.append(row)
    return rows


def _denoised(joint: Joint) -> Arrangement:
    """Return the arrangement without sampling noise: an estimate, whose distances need not be a metric's."""
    cosines = np.clip(joint.corrected, -1.0, 1.0)  # chance may lift corrected ones above 1
    return Arrangement(np.where(np.isnan(cosines), joint.arrangement.distances, np.arccos(cosines)), cosines)


def _nearest(joint: Joint, number: int, kind: str) -> tuple[str, float]:
    """Return the point of a kernel's own network that it is nearest to, and its angle; nothing of other points."""
    path = joint.points.path(joint.points[number].network)
    if kind not in KERNELS or not path:
        return "", float("nan")
    best = min(path, key=lambda layer: joint.angle(number, layer))
    return joint.points[best].label, joint.angle(number, best)


# Tangents are weights [1, P] of the arrangement's points: on a sphere the cosines give every inner product of them.


def _weights(arrangement: Arrangement, number: int) -> np.ndarray:
    return np.eye(1, len(arrangement), number)


def _dot(arrangement: Arrangement, left: np.ndarray, right: np.ndarray) -> float:
    return float(inner_products(arrangement, left, right)[0, 0])


def _tangent(arrangement: Arrangement, start: int, end: int) -> np.ndarray:
    """Return the unit tangent [1, P] at `start` that leads to `end`."""
    angle = arrangement.distances[start, end]
    return (_weights(arrangement, end) - np.cos(angle) * _weights(arrangement, start)) / np.sin(angle)


def _transported(arrangement: Arrangement, tangent: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return a tangent [1, P] at `start` carried in parallel along the geodesic to `end`."""
    angle = arrangement.distances[start, end]
    if angle == 0:
        return tangent
    # Only the part along the geodesic turns; what is perpendicular to it stays as it is.
    direction = _tangent(arrangement, start, end)
    along = _dot(arrangement, tangent, direction)
    turned = np.cos(angle) * direction - np.sin(angle) * _weights(arrangement, start)
    return tangent - along * direction + along * turned


def _angle_between(arrangement: Arrangement, first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.sqrt(_dot(arrangement, first, first) * _dot(arrangement, second, second))  # need not be 1
    return float(np.arccos(np.clip(_dot(arrangement, first, second) / lengths, -1.0, 1.0)))
