"""The loss kernel as the localisation grows: a path whose end, the kernel of loss gradients, is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses.joint.jackknife import LeftOut
from losskernel.analyses.joint.kernels import Joint
from losskernel.geometry import Path
from losskernel.geometry.statistics.significance import jackknife_error
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
    rows = [_row(joint, left_out, number, end) for number in numbers]
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
    placed = joint.points.placed
    nbeta = placed[joint.own].settings.get("nbeta")
    found = [
        number
        for number in joint.kernels(TRAINED)
        if placed[number].kind == "loss_kernel"
        and "localization" in placed[number].settings
        and placed[number].settings.get("nbeta") == nbeta
    ]
    return sorted(found, key=lambda number: placed[number].settings["localization"])


def _row(joint: Joint, left_out: LeftOut, number: int, end: int) -> dict[str, Any]:
    settings, corrected = joint.points.placed[number].settings, float(joint.corrected[number, end])
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
        own = joint.points.placed[number].settings
        if all(np.isclose(own.get(key, np.nan), settings[key]) for key in ("localization", "nbeta")):
            return joint.angle(number, end)
    return float("nan")
