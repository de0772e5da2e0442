"""Which layer is each kernel nearest to, and is it nearer than chance, and than the next?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses.joint.jackknife import NORMAL, LeftOut
from losskernel.analyses.joint.kernels import SPACE, Joint
from losskernel.geometry import benjamini_hochberg, permutation_nulls, project
from losskernel.geometry.statistics.significance import jackknife_error
from losskernel.representations.points import PointSet


def nearest(joint: Joint, few: PointSet, permutations: int = 299, seed: int = 0) -> pd.DataFrame:
    """Return a row a kernel, the placebo last: the point of its own network's path that it is nearest to.

    Columns: kernel, network, nearest, angle (raw, radians) with se, low, high (90 %, jackknife over probes), cosine
    (raw) and cosine_corrected (without sampling noise), floor (the angle that noise alone gives), second and lead
    (by how much farther the next is) with lead_se, p (relabelled probes) and p_adjusted (Benjamini and Hochberg,
    over the path), fraction and off (where the kernel's foot on the geodesic from the inputs to the first target
    lies, and how far away it is; NaN without a target).

    Args:
        joint: the points.
        few: the same points over the probes behind errors and p-values.
        permutations: relabellings.
        seed: of these.
    """
    left_out = LeftOut(few)
    rows = []
    for kernel in [*joint.kernels(), joint.placebo]:
        path = joint.points.path(joint.points.placed[kernel].network)
        if len(path) >= 2:
            rows.append(_row(joint, few, left_out, kernel, path, permutations, seed))
    return pd.DataFrame(rows)


def _row(
    joint: Joint, few: PointSet, left_out: LeftOut, kernel: int, path: Sequence[int], permutations: int, seed: int
) -> dict[str, Any]:
    angles = joint.arrangement.distances[kernel, list(path)]
    order = np.argsort(angles, kind="stable")
    first, second = path[order[0]], path[order[1]]
    nulls = permutation_nulls(
        [few.placed[number].point for number in path], few.placed[kernel].point, SPACE, permutations, seed
    )
    p_values = np.array([each.p_value for each in nulls])
    without = left_out.angles(kernel, first)
    angle, se = float(angles[order[0]]), float(jackknife_error(without))
    place = _place(joint, kernel)
    return {
        "kernel": joint.name(kernel),
        "network": joint.points.placed[kernel].network,
        "nearest": joint.name(first),
        "angle": angle,
        "se": se,
        "low": max(angle - NORMAL * se, 0.0),
        "high": angle + NORMAL * se,
        "cosine": float(np.cos(angle)),
        "cosine_corrected": float(joint.corrected[kernel, first]),
        "floor": float(joint.floor[kernel, first]),
        "second": joint.name(second),
        "lead": float(angles[order[1]] - angle),
        "lead_se": float(jackknife_error(left_out.angles(kernel, second) - without)),
        "p": float(p_values[order[0]]),
        "p_adjusted": float(benjamini_hochberg(p_values)[order[0]]),
        "fraction": place[0],
        "off": place[1],
    }


def _place(joint: Joint, kernel: int) -> tuple[float, float]:
    inputs, targets = joint.points.of("input"), joint.points.of("target")
    if not inputs or not targets:
        return float("nan"), float("nan")
    found = project(joint.arrangement, kernel, inputs[0], targets[0])
    return float(found.fraction), float(found.distance)
