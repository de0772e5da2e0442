"""The loss kernel as the localisation grows: a path whose end, the kernel of loss gradients, is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel.analyses.joint.kernels import KERNELS, Joint, LeftOut
from losskernel.geometry import Arrangement, Path
from losskernel.geometry.arrangement import inner_products
from losskernel.geometry.paths.path import LEAST_SIDE
from losskernel.geometry.significance import jackknife_error
from losskernel.representations.points import TRAINED, PointSet


@dataclass(frozen=True, eq=False)
class Sweep:
    """A path of loss kernels.

    Attributes:
        numbers: of the loss kernels at the trained weights, by rising localisation.
        end: number of the gradients' point.
        table: a row each.
        length: of the path from the weakest localisation to the gradients, in radians.
        straightness: its ends' distance as a share of it.
    """

    numbers: list[int]
    end: int
    table: pd.DataFrame
    length: float
    straightness: float


def sweep_of(joint: Joint, few: PointSet) -> Sweep | None:
    """Return the sweep of localisations at the run's nβ; None with fewer than two, or without the gradients' point.

    Columns: localization, kernel, angle to the gradients (raw, radians) with its se (jackknife over probes),
    cosine, cosine_corrected and corrected_angle (without sampling noise), floor (the angle that noise alone gives),
    to_next (along the path, the last to the gradients), laplace (the angle of a Laplace kernel of the same
    localisation), failed (its diagnosis), step_size.

    Args:
        joint: the points.
        few: the same points over the probes behind errors.
    """
    ends = joint.points.of("gradient", network=TRAINED)
    numbers = _localizations(joint)
    if not ends or len(numbers) < 2:
        return None
    end, left_out = ends[0], LeftOut(few)
    rows = [_sweep_row(joint, left_out, number, end) for number in numbers]
    path = Path.from_arrangement(joint.arrangement, [*numbers, end])
    table = pd.DataFrame(rows)
    table.insert(8, "to_next", path.steps)
    return Sweep(numbers, end, table, path.length, path.straightness)


def log_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the slope of log y against log x by least squares; NaN with fewer than two points."""
    known = (x > 0) & (y > 0)
    return float(np.polyfit(np.log(x[known]), np.log(y[known]), 1)[0]) if known.sum() >= 2 else float("nan")


def _localizations(joint: Joint) -> list[int]:
    """Return the numbers of the kernels that differ from the run's own by localisation alone, in its order."""
    placed = joint.points.points
    nbeta = placed[joint.own].settings.get("nbeta")
    found = [
        number
        for number in joint.kernels(TRAINED)
        if placed[number].kind == "loss_kernel"
        and "localization" in placed[number].settings
        and placed[number].settings.get("nbeta") == nbeta
    ]
    return sorted(found, key=lambda number: placed[number].settings["localization"])


def _sweep_row(joint: Joint, left_out: LeftOut, number: int, end: int) -> dict[str, Any]:
    settings, corrected = joint.points[number].settings, float(joint.corrected[number, end])
    return {
        "localization": settings["localization"],
        "kernel": joint.name(number),
        "angle": joint.angle(number, end),
        "se": float(jackknife_error(left_out.angles(number, end))),
        "cosine": float(np.cos(joint.angle(number, end))),
        "cosine_corrected": corrected,
        "corrected_angle": float(np.arccos(np.clip(corrected, -1.0, 1.0))),
        "floor": float(joint.floor[number, end]),
        "laplace": _laplace(joint, settings, end),
        "failed": settings.get("failed", float("nan")),
        "step_size": settings.get("step_size", float("nan")),
    }


def _laplace(joint: Joint, settings: Any, end: int) -> float:
    """Return the angle to the gradients of the Laplace kernel with the same settings; NaN where there is none."""
    for number in joint.points.of("laplace", network=TRAINED):
        own = joint.points[number].settings
        if all(np.isclose(own.get(key, np.nan), settings[key]) for key in ("localization", "nbeta")):
            return joint.angle(number, end)
    return float("nan")


class Family(NamedTuple):
    """One kind of point along training."""

    label: str  # such as "loss kernel" or a layer's name
    kind: str
    numbers: list[int]
    steps: np.ndarray  # of training, rising


def families(joint: Joint) -> list[Family]:
    """Return what has a point at two checkpoints or more, the trained network being one: kernels first."""
    found: dict[str, list[int]] = {}
    for number, each in enumerate(joint.points.points):
        kernel = each.kind in KERNELS
        if number != joint.placebo and (kernel or each.kind in ("layer", "output")) and joint.step(number) is not None:
            found.setdefault(each.label, []).append(number)
    ordered = []
    for label, numbers in found.items():
        numbers = sorted(numbers, key=lambda number: joint.step(number) or 0)
        steps = np.array([joint.step(number) for number in numbers], dtype=float)
        kind = joint.points[numbers[0]].kind
        if len(numbers) >= 2:
            ordered.append(Family(label, kind, numbers, steps))
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
    found = families(joint)
    lead = next((family for family in found if family.kind == "loss_kernel"), None)
    rows = [row for family in found for row in _training_rows(joint, family, lead)]
    return pd.DataFrame(rows)


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
    found = np.full(len(first) - 1, np.nan)
    for place in range(len(found)):
        pairs = [tuple(path[place : place + 2]) for path in (first, second)]
        least = [LEAST_SIDE if floor is None else max(LEAST_SIDE, np.nan_to_num(floor[each])) for each in pairs]
        if all(arrangement.distances[each] >= bound for each, bound in zip(pairs, least, strict=True)):
            (a, after), (b, later) = pairs
            carried = _carried(arrangement, _leading(arrangement, b, later), b, a)
            found[place] = _between(arrangement, _leading(arrangement, a, after), carried)
    return found


def _training_rows(joint: Joint, family: Family, lead: Family | None) -> list[dict[str, Any]]:
    targets, floor = joint.points.of("target"), joint.floor
    partners = {} if lead is None else dict(zip(lead.steps.tolist(), lead.numbers, strict=True))
    own = [partners.get(step) for step in family.steps.tolist()]
    cleared = _cleared(joint)
    rows = []
    for place, number in enumerate(family.numbers):
        row: dict[str, Any] = {
            "what": family.label,
            "kind": family.kind,
            "step": int(family.steps[place]),
            "point": joint.name(number),
            "to_end": joint.angle(number, family.numbers[-1]),
            "to_labels": joint.angle(number, targets[0]) if targets else np.nan,
        }
        row |= dict.fromkeys(("to_next", "speed", "floor_next"), np.nan)
        if place + 1 < len(family.numbers):
            after = family.numbers[place + 1]
            row["to_next"], row["floor_next"] = joint.angle(number, after), float(floor[number, after])
            row["speed"] = row["to_next"] / (family.steps[place + 1] - family.steps[place])
        row["nearest"], row["nearest_angle"] = _nearest(joint, number, family.kind)
        partner = own[place]
        row["with_kernel"] = np.nan if partner is None else joint.angle(number, partner)
        row["velocity"], row["velocity_raw"] = np.nan, np.nan
        pairs = family.numbers[place : place + 2], own[place : place + 2]
        if family is not lead and len(pairs[1]) == 2 and None not in pairs[1]:
            row["velocity"] = velocity_angles(cleared, *pairs, floor)[0]  # pyright: ignore[reportArgumentType]
            raw = velocity_angles(joint.arrangement, *pairs)[0]  # pyright: ignore[reportArgumentType]
            row["velocity_raw"] = raw if np.isfinite(row["velocity"]) else np.nan
        rows.append(row)
    return rows


def _cleared(joint: Joint) -> Arrangement:
    """Return the arrangement without sampling noise: an estimate, whose distances need not be a metric's."""
    cosines = np.clip(joint.corrected, -1.0, 1.0)
    return Arrangement(np.where(np.isnan(cosines), joint.arrangement.distances, np.arccos(cosines)), cosines)


def _nearest(joint: Joint, number: int, kind: str) -> tuple[str, float]:
    path = joint.points.path(joint.points[number].network)
    if kind not in KERNELS or not path:
        return "", float("nan")
    best = min(path, key=lambda each: joint.angle(number, each))
    return joint.points[best].label, joint.angle(number, best)


def _weights(arrangement: Arrangement, number: int) -> np.ndarray:
    return np.eye(1, len(arrangement), number)


def _dot(arrangement: Arrangement, left: np.ndarray, right: np.ndarray) -> float:
    return float(inner_products(arrangement, left, right)[0, 0])


def _leading(arrangement: Arrangement, a: int, b: int) -> np.ndarray:
    """Return the unit tangent at a that leads to b, as weights [1, P] of the points."""
    angle = arrangement.distances[a, b]
    return (_weights(arrangement, b) - np.cos(angle) * _weights(arrangement, a)) / np.sin(angle)


def _carried(arrangement: Arrangement, tangent: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return a tangent at `start` carried in parallel along the geodesic to `end`."""
    angle = arrangement.distances[start, end]
    if angle == 0:
        return tangent
    way = _leading(arrangement, start, end)
    along = _dot(arrangement, tangent, way)
    turned = np.cos(angle) * way - np.sin(angle) * _weights(arrangement, start)
    return tangent - along * way + along * turned


def _between(arrangement: Arrangement, first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.sqrt(_dot(arrangement, first, first) * _dot(arrangement, second, second))
    return float(np.arccos(np.clip(_dot(arrangement, first, second) / lengths, -1.0, 1.0)))
