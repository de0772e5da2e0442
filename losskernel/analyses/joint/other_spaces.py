"""What does not follow from angular CKA of correlations: another space, and how few probes carry a kernel."""

from typing import Any

import numpy as np

from losskernel.analyses.joint.kernels import SPACE, Joint
from losskernel.errors import InputError
from losskernel.geometry import Bures, Point
from losskernel.representations.points import TRAINED

_BURES = Bures()


def other_space(joint: Joint, limit: int = 200) -> tuple[list[int], np.ndarray, float]:
    """Return numbers of points, their Bures angles [n, n] over `limit` probes, and how these rank beside angular CKA's.

    Of the trained network's points, inputs and targets; the placebo, whose kernel is another's, and points that are no
    positive kernel are left out. The last number is Spearman's correlation over pairs, both over the same probes.
    """
    from scipy.stats import spearmanr

    chosen = [*joint.points.of("input", "target"), *joint.points.path()[1:], *joint.kernels(TRAINED)]
    few = joint.points.only(list(dict.fromkeys(chosen))).evenly(limit)
    numbers = [joint.points.number(name) for name in few.names]
    points = [each.point for each in few.placed]
    kept = [place for place, point in enumerate(points) if _is_shape(point)]
    angles = _BURES.distances([_thin(points[place]) for place in kept])
    reference = SPACE.distances([points[place] for place in kept])
    pairs = np.triu_indices(len(kept), 1)
    rank: Any = spearmanr(angles[pairs], reference[pairs])[0] if len(kept) >= 3 else np.nan
    return [numbers[place] for place in kept], angles, float(rank)


def closed_numbers(point: Point) -> dict[str, float]:
    """Return how many probes carry a kernel, and how much of it is all probes together.

    participation: (tr K)² / (N Σ K_ii²), 1 where all probes vary alike and 1 / N where one alone does. share_together:
    1ᵀ K 1 / (N tr K), 1 where all losses move together, and taken away by centring.
    """
    diagonal = point.diagonal()
    trace, count = float(diagonal.sum()), point.inputs
    if trace == 0:
        return {"participation": float("nan"), "share_together": float("nan")}
    return {
        "participation": trace**2 / (count * float(np.square(diagonal).sum())),
        "share_together": float(point.sums().sum()) / (count * trace),
    }


def _is_shape(point: Point) -> bool:
    try:
        _BURES.arrangement([point])
    except InputError:
        return False
    return True


def _thin(point: Point) -> Point:
    """Return the same kernel with at most N features."""
    if point.factor is None or point.factor.shape[1] <= point.inputs:
        return point
    return Point(point.ids, factor=np.asarray(np.linalg.qr(point.factor.T, mode="r")).T)
