"""The linear datamodelling score: do summed influences foretell what retraining on a subset does to each query?"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from losskernel.analyses.attribution.methods import Joint, Method
from losskernel.errors import require
from losskernel.kernel.estimators import inverse


class Retrainings(NamedTuple):
    """What retraining on m random subsets of the training set made of the queries, R times each.

    Outputs are such that more is better: minus the loss, and of classes the margin log p / (1 - p).
    """

    members: np.ndarray  # [T, m], 1 where the subset holds the training sample
    outputs: dict[str, np.ndarray]  # name -> [Q, m, R]

    @classmethod
    def of(cls, baselines: Mapping[str, np.ndarray], name: str, joint: Joint) -> "Retrainings | None":
        """Read the rows `name_members`, `name_losses` and `name_margins` of a run; None where it has none.

        Raises:
            InputError: the rows do not fit each other.
        """
        if f"{name}_members" not in baselines or f"{name}_losses" not in baselines:
            return None
        members = np.asarray(baselines[f"{name}_members"], dtype=np.float64)[joint.train]
        subsets, outputs = members.shape[1], {}
        for key, sign, output in (("losses", -1.0, "loss"), ("margins", 1.0, "margin")):
            if f"{name}_{key}" in baselines:
                rows = sign * np.asarray(baselines[f"{name}_{key}"], dtype=np.float64)[joint.queries]
                fits = rows.shape[1] > 0 and rows.shape[1] % subsets == 0
                require(fits, f"{name}_{key} has {rows.shape[1]} columns for {subsets} subsets; retrain again")
                outputs[output] = rows.reshape(len(rows), subsets, -1)
        return cls(members, outputs)


def predictions(method: Method, members: np.ndarray) -> np.ndarray:
    """Return the summed influence of each subset's members on each query, part by part, [parts, Q, m].

    Influences are centred over the training samples of each query, so that those of unknown influence, which have no
    row, count as average ones. Parts sum to the prediction.
    """
    centred = members - members.mean(axis=0)
    pairs = zip(method.query, method.train, strict=True)
    return np.stack([query @ (train.T @ centred) for query, train in pairs])


def settled(predicted: np.ndarray) -> np.ndarray:
    """Return predictions [Q, m], each query's largest 1, without their last bits, which depend on the order of sums."""
    return np.round(predicted * inverse(np.abs(predicted).max(axis=-1, keepdims=True)), 10)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation along the last axis, ties at their mean rank; 0 where one is constant."""
    return (unit_ranks(first) * unit_ranks(second)).sum(-1)


def unit_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis, ties at their mean, centred and of length 1; 0 where all are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=-1)
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    return ranks * inverse(np.linalg.norm(ranks, axis=-1, keepdims=True))


def reliability(outputs: np.ndarray) -> np.ndarray:
    """Return how well one retraining foretells another of the same subset: each query's rank correlation, [Q].

    outputs: [Q, m, R]; the mean over pairs of repeats.

    Raises:
        InputError: there is one repeat.
    """
    repeats = outputs.shape[2]
    require(repeats >= 2, "a noise ceiling needs repeats >= 2 of each subset, got 1; raise repeats")
    ranks = unit_ranks(np.moveaxis(outputs, 2, 0))  # [R, Q, m]
    pairs = np.square(ranks.sum(0)).sum(-1) - np.square(ranks).sum((0, 2))
    return pairs / (repeats * (repeats - 1))


def ceiling(single: float, repeats: int) -> float:
    """Return the score of a method that knew the mean over endless repeats, given the reliability of one retraining.

    The mean of R repeats has reliability R r / (1 + (R - 1) r), and correlates with what it estimates by its root.

    Source: Spearman 1910 and Brown 1910 (prophecy formula); Spearman 1904 (attenuation).
    """
    return float(np.sqrt(of_mean(single, repeats)))


def of_mean(single: float, repeats: int) -> float:
    """Return the reliability of a mean of repeats, given that of one; 0 where that is not positive."""
    return repeats * single / (1 + (repeats - 1) * single) if single > 0 else 0.0
