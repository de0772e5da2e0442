"""Which layer is each kernel nearest to, and do they agree on more than the labels? With errors and p-values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses.joint.joint import NORMAL, SPACE, Joint, ProbeErrors
from losskernel.geometry import Point, benjamini_hochberg, project
from losskernel.geometry.significance import Null, jackknife_error

# Cosine to the labels above which nothing is left beside them.
_SAME = 1 - 1e-9


def nearest_layers(joint: Joint, errors: ProbeErrors) -> pd.DataFrame:
    """Return a row a kernel, the placebo last: the point of its own network's path that it is nearest to.

    Columns: kernel, network, nearest, angle (raw, radians) with se, low, high (90 %, jackknife over probes), cosine
    (raw) and cosine_corrected (without sampling noise), floor (the angle that noise alone gives), second and lead
    (by how much farther the next is) with lead_se, p (relabelled probes) and p_adjusted (Benjamini and Hochberg,
    over the path), fraction and off (where the kernel's foot on the geodesic from the inputs to the first target
    lies, and how far away it is; NaN without a target).
    """
    rows = []
    for kernel in [*joint.kernels(), joint.placebo]:
        path = joint.points.path(joint.points[kernel].network)
        if len(path) >= 2:
            rows.append(_nearest_row(joint, errors, kernel, path))
    return pd.DataFrame(rows)


def beyond_labels(joint: Joint, errors: ProbeErrors, network: str | None = None) -> pd.DataFrame:
    """Return a row for every target, kernel and point of its network's path: their partial agreement.

    With the target's kernel taken out of both, the cosine of what is left is that of the angle at the target's point.

    Columns: target, kernel, layer, cosine (raw, of the whole kernels), beyond (of what is left) with se, low, high
    (90 %, jackknife over probes), beyond_corrected (without the kernel's sampling noise), null_low and null_high (90 %
    of relabelled probes; 0 on average), p and p_adjusted (Benjamini and Hochberg, over the path), p_within (probes
    relabelled within groups of the target alone: agreement about single probes). p-values are two-sided.

    Args:
        joint: the points.
        errors: the same points over the probes behind errors and p-values.
        network: whose kernels; None takes all.

    Source: partial Mantel tests, with residuals relabelled: Legendre 2000.
    """
    rows: list[dict[str, Any]] = []
    for target in joint.points.of("target"):
        for kernel in joint.kernels(network):
            path = joint.points.path(joint.points[kernel].network)
            # What is the labels' kernel itself has no residual.
            layers = [number for number in path if abs(joint.cosine(number, target)) < _SAME]
            if layers and abs(joint.cosine(kernel, target)) < _SAME:
                agreements = [_beyond_row(joint, errors, kernel, layer, target) for layer in layers]
                nulls = _beyond_nulls(joint, errors, kernel, layers, target)
                rows += [row | null for row, null in zip(agreements, nulls, strict=True)]
    return pd.DataFrame(rows)


def partial_cosine(c_ab: Any, c_ay: Any, c_by: Any) -> Any:
    """Return the cosine of the angle at y between a and b, NaN where one of them is y."""
    left = np.maximum((1 - np.square(c_ay)) * (1 - np.square(c_by)), 0.0)
    gap = np.asarray(c_ab) - np.asarray(c_ay) * c_by
    return np.divide(gap, np.sqrt(left), out=np.full(np.shape(gap), np.nan), where=left > 0)


def _nearest_row(joint: Joint, errors: ProbeErrors, kernel: int, path: Sequence[int]) -> dict[str, Any]:
    angles = joint.arrangement.distances[kernel, list(path)]  # [path]
    order = np.argsort(angles, kind="stable")
    first, second = path[order[0]], path[order[1]]
    few = errors.points
    nulls = errors.nulls([few[number].point for number in path], few[kernel].point)
    p_values = np.array([null.p_value for null in nulls])  # [path]
    without = errors.angles(kernel, first)  # [N]
    angle, se = float(angles[order[0]]), float(jackknife_error(without))
    fraction, off = _foot(joint, kernel)
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
        "lead_se": float(jackknife_error(errors.angles(kernel, second) - without)),
        "p": float(p_values[order[0]]),
        "p_adjusted": float(benjamini_hochberg(p_values)[order[0]]),
        "fraction": fraction,
        "off": off,
    }


def _foot(joint: Joint, kernel: int) -> tuple[float, float]:
    """Return where on the geodesic from the inputs to the first target a kernel is nearest, and how far from it."""
    inputs, targets = joint.points.of("input"), joint.points.of("target")
    if not inputs or not targets:
        return float("nan"), float("nan")
    foot = project(joint.arrangement, kernel, inputs[0], targets[0])
    return float(foot.fraction), float(foot.distance)


def _beyond_row(joint: Joint, errors: ProbeErrors, kernel: int, layer: int, target: int) -> dict[str, Any]:
    pairs = ((kernel, layer), (layer, target), (kernel, target))
    cosine, layer_cosine, kernel_cosine = (joint.cosine(*pair) for pair in pairs)
    beyond = float(partial_cosine(cosine, layer_cosine, kernel_cosine))
    se = float(jackknife_error(partial_cosine(*(errors.cosines(*pair) for pair in pairs))))
    corrected = partial_cosine(joint.corrected[kernel, layer], layer_cosine, joint.corrected[kernel, target])
    return {
        "target": joint.name(target),
        "kernel": joint.name(kernel),
        "layer": joint.name(layer),
        "cosine": cosine,
        "beyond": beyond,
        "se": se,
        "low": beyond - NORMAL * se,
        "high": beyond + NORMAL * se,
        "beyond_corrected": float(corrected),
    }


def _beyond_nulls(
    joint: Joint, errors: ProbeErrors, kernel: int, layers: Sequence[int], target: int
) -> list[dict[str, float]]:
    """Return the null and the p-values of one kernel's partial agreement with each layer."""
    rests = [_residual(errors, layer, target) for layer in layers]
    rest = _residual(errors, kernel, target)
    groups = errors.points.labels.get(joint.name(target))
    nulls = errors.nulls(rests, rest)  # one per layer
    within = None if groups is None else errors.nulls(rests, rest, groups)
    p_values = [_two_sided(null) for null in nulls]
    adjusted = benjamini_hochberg(p_values)
    return [
        {
            "null_low": null.quantile(0.05),
            "null_high": null.quantile(0.95),
            "p": p_values[row],
            "p_adjusted": float(adjusted[row]),
            "p_within": float("nan") if within is None else _two_sided(within[row]),
        }
        for row, null in enumerate(nulls)
    ]


def _two_sided(null: Null) -> float:
    """Return the share of relabellings as far from their mean as the observed cosine, itself counted."""
    middle = null.permuted.mean()
    as_far = np.abs(null.permuted - middle) >= abs(null.cosine - middle) - 1e-12
    return float((1 + as_far.sum()) / (1 + len(as_far)))


def _residual(errors: ProbeErrors, number: int, target: int) -> Point:
    """Return what is left of a centred kernel without its part along the target's."""
    few = errors.points
    kernel, labels = (SPACE.centred(few[item].point) for item in (number, target))
    labels = labels / np.linalg.norm(labels)  # [N, N], of length 1
    rest = kernel - (kernel * labels).sum() * labels
    # Rounding may leave it asymmetric. It is centred already, which `from_gram` cannot know.
    point = Point.from_gram((rest + rest.T) / 2, few.ids)
    return Point(point.ids, triangle=point.triangle, centring=SPACE.centring)
