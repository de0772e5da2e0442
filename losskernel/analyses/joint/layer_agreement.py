"""Which layer is each kernel nearest to, and is it nearer than chance, and than the next?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses.joint.kernels import NORMAL, SPACE, Joint, LeftOut
from losskernel.geometry import Point, benjamini_hochberg, permutation_nulls, project
from losskernel.geometry.significance import Null, jackknife_error
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
        path = joint.points.path(joint.points[kernel].network)
        if len(path) >= 2:
            rows.append(_nearest_row(joint, few, left_out, kernel, path, permutations, seed))
    return pd.DataFrame(rows)


def _nearest_row(
    joint: Joint, few: PointSet, left_out: LeftOut, kernel: int, path: Sequence[int], permutations: int, seed: int
) -> dict[str, Any]:
    angles = joint.arrangement.distances[kernel, list(path)]
    order = np.argsort(angles, kind="stable")
    first, second = path[order[0]], path[order[1]]
    nulls = permutation_nulls([few[number].point for number in path], few[kernel].point, SPACE, permutations, seed)
    p_values = np.array([each.p_value for each in nulls])
    without = left_out.angles(kernel, first)
    angle, se = float(angles[order[0]]), float(jackknife_error(without))
    place = _place(joint, kernel)
    return {
        "kernel": joint.name(kernel),
        "network": joint.points[kernel].network,
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


# Cosine to the labels above which nothing is left beside them.
_SAME = 1 - 1e-9


def beyond_labels(
    joint: Joint, few: PointSet, permutations: int = 299, seed: int = 0, network: str | None = None
) -> pd.DataFrame:
    """Return a row for every target, kernel and point of its network's path: their partial agreement.

    With the target's kernel taken out of both, the cosine of what is left is that of the angle at the target's point.

    Columns: target, kernel, layer, cosine (raw, of the whole kernels), beyond (of what is left) with se, low, high
    (90 %, jackknife over probes), beyond_corrected (without the kernel's sampling noise), null_low and null_high (90 %
    of relabelled probes; 0 on average), p and p_adjusted (Benjamini and Hochberg, over the path), p_within (probes
    relabelled within groups of the target alone: agreement about single probes). p-values are two-sided.

    Args:
        joint: the points.
        few: the same points over the probes behind errors and p-values.
        permutations: relabellings.
        seed: of these.
        network: whose kernels; None takes all.

    Source: partial Mantel tests, with residuals relabelled: Legendre 2000.
    """
    left_out = LeftOut(few)
    rows: list[dict[str, Any]] = []
    for target in joint.points.of("target"):
        groups = few.labels.get(joint.name(target))
        for kernel in joint.kernels(network):
            path = joint.points.path(joint.points[kernel].network)
            told = [number for number in path if abs(_cosine(joint, number, target)) < _SAME]
            if told and abs(_cosine(joint, kernel, target)) < _SAME:
                own = [_beyond_row(joint, left_out, kernel, layer, target) for layer in told]
                _test(own, few, kernel, told, target, groups, permutations, seed)
                rows += own
    return pd.DataFrame(rows)


def partial(c_ab: Any, c_ay: Any, c_by: Any) -> Any:
    """Return the cosine of the angle at y between a and b, NaN where one of them is y."""
    left = np.maximum((1 - np.square(c_ay)) * (1 - np.square(c_by)), 0.0)
    gap = np.asarray(c_ab) - np.asarray(c_ay) * c_by
    return np.divide(gap, np.sqrt(left), out=np.full(np.shape(gap), np.nan), where=left > 0)


def _cosine(joint: Joint, a: int, b: int) -> float:
    return float(np.cos(joint.angle(a, b)))


def _beyond_row(joint: Joint, left_out: LeftOut, kernel: int, layer: int, target: int) -> dict[str, Any]:
    cosines = _cosine(joint, kernel, layer), _cosine(joint, layer, target), _cosine(joint, kernel, target)
    beyond = float(partial(*cosines))
    without = partial(
        left_out.cosines(kernel, layer), left_out.cosines(layer, target), left_out.cosines(kernel, target)
    )
    se = float(jackknife_error(without))
    corrected = partial(joint.corrected[kernel, layer], cosines[1], joint.corrected[kernel, target])
    return {
        "target": joint.name(target),
        "kernel": joint.name(kernel),
        "layer": joint.name(layer),
        "cosine": cosines[0],
        "beyond": beyond,
        "se": se,
        "low": beyond - NORMAL * se,
        "high": beyond + NORMAL * se,
        "beyond_corrected": float(corrected),
    }


def _test(
    rows: list[dict[str, Any]],
    few: PointSet,
    kernel: int,
    layers: list[int],
    target: int,
    groups: np.ndarray | None,
    permutations: int,
    seed: int,
) -> None:
    """Add nulls and p-values to the rows of one kernel."""
    parts = [_residual(few, layer, target) for layer in layers]
    own = _residual(few, kernel, target)
    nulls = permutation_nulls(parts, own, SPACE, permutations, seed)
    within = None if groups is None else permutation_nulls(parts, own, SPACE, permutations, seed, groups)
    p_values = [_two_sided(each) for each in nulls]
    adjusted = benjamini_hochberg(p_values)
    for place, (row, null) in enumerate(zip(rows, nulls, strict=True)):
        row["null_low"], row["null_high"] = null.quantile(0.05), null.quantile(0.95)
        row["p"], row["p_adjusted"] = p_values[place], float(adjusted[place])
        row["p_within"] = float("nan") if within is None else _two_sided(within[place])


def _two_sided(null: Null) -> float:
    """Return the share of relabellings as far from their mean as what was found, itself counted."""
    middle = null.permuted.mean()
    as_far = np.abs(null.permuted - middle) >= abs(null.cosine - middle) - 1e-12
    return float((1 + as_far.sum()) / (1 + len(as_far)))


def _residual(few: PointSet, number: int, target: int) -> Point:
    """Return what is left of a centred kernel without its part along the target's."""
    kernel, labels = (SPACE.centred(few[each].point) for each in (number, target))
    labels = labels / np.linalg.norm(labels)
    left = kernel - (kernel * labels).sum() * labels
    made = Point.from_gram((left + left.T) / 2, few.ids)
    return Point(made.ids, triangle=made.triangle, centring=SPACE.centring)
