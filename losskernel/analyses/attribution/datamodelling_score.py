"""The linear datamodelling score: do summed influences predict what retraining on a subset does to each query?"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from losskernel.analyses.attribution.methods import Method, Roles
from losskernel.errors import require
from losskernel.kernel import interval, inverse


class Retrainings(NamedTuple):
    """What retraining on m random subsets of the training set made of the queries, R times each.

    Outputs are such that more is better: minus the loss, and of classes the margin log p / (1 - p).
    """

    members: np.ndarray  # [T, m], 1 where the subset holds the training sample
    outputs: dict[str, np.ndarray]  # name -> [Q, m, R]

    @classmethod
    def of(cls, baselines: Mapping[str, np.ndarray], name: str, roles: Roles) -> "Retrainings | None":
        """Read the rows `name_members`, `name_losses` and `name_margins` of a run; None where it has none.

        Raises:
            InputError: the rows do not fit each other.
        """
        if f"{name}_members" not in baselines or f"{name}_losses" not in baselines:
            return None
        members = np.asarray(baselines[f"{name}_members"], dtype=np.float64)[roles.train]
        subsets, outputs = members.shape[1], {}
        for key, sign, output in (("losses", -1.0, "loss"), ("margins", 1.0, "margin")):
            if f"{name}_{key}" in baselines:
                rows = sign * np.asarray(baselines[f"{name}_{key}"], dtype=np.float64)[roles.queries]
                fits = rows.shape[1] > 0 and rows.shape[1] % subsets == 0
                require(fits, f"{name}_{key} has {rows.shape[1]} columns for {subsets} subsets; retrain again")
                outputs[output] = rows.reshape(len(rows), subsets, -1)
        return cls(members, outputs)


def predictions(method: Method, members: np.ndarray) -> np.ndarray:
    """Return the summed influence of each subset's members on each query, part by part, [parts, Q, m].

    Influences are centred over the training samples of each query, so that those of unknown influence, which have no
    row, count as average ones. Parts sum to the prediction.
    """
    centred = members - members.mean(axis=0)  # [T, m]
    pairs = zip(method.query, method.train, strict=True)
    return np.stack([query @ (train.T @ centred) for query, train in pairs])


def rounded(predicted: np.ndarray) -> np.ndarray:
    """Return predictions [Q, m], each query's largest 1, without their last bits, which depend on the order of sums."""
    return np.round(predicted * inverse(np.abs(predicted).max(axis=-1, keepdims=True)), 10)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation along the last axis, ties at their mean rank; 0 where one is constant."""
    return (unit_ranks(first) * unit_ranks(second)).sum(-1)


def unit_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis, ties at their mean, centred and of length 1; 0 where all are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=-1)  # [..., m]
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    return ranks * inverse(np.linalg.norm(ranks, axis=-1, keepdims=True))


def reliability(outputs: np.ndarray) -> np.ndarray:
    """Return how well one retraining predicts another of the same subset: each query's rank correlation, [Q].

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
    return float(np.sqrt(reliability_of_mean(single, repeats)))


def reliability_of_mean(single: float, repeats: int) -> float:
    """Return the reliability of a mean of repeats, given that of one; 0 where that is not positive."""
    return repeats * single / (1 + (repeats - 1) * single) if single > 0 else 0.0


Scores = dict[str, float]
Arrays = Mapping[str, np.ndarray]  # name of a method or an output -> its array
_ENDS = (0.05, 0.95)


class MethodScores(NamedTuple):
    """Linear datamodelling scores of all methods.

    Attributes:
        numbers: name -> number, with _se, _low and _high: `lds_<method>` of the loss; `lead_over_<method>`, by how much
            the first method is ahead; `margin_lds_<method>` and `margin_lead_over_<method>` of the margin;
            `reliability` of one retraining and `ceiling`, of the loss. Without errors: `repeatability_<method>`, of a
            kernel's predictions by those of another run of as many draws.
        chance: name of each score -> (low, high) between which 90 % of permutations lie, and p, one-sided.
        predicted: method -> predicted output of every query and subset, [Q, m], centred and scaled.
        actual: output -> [Q, m], the mean of the repeats.
    """

    numbers: Scores
    chance: dict[str, tuple[float, float, float]]
    predicted: dict[str, np.ndarray]
    actual: dict[str, np.ndarray]

    def of_queries(self, method: str, output: str) -> np.ndarray:
        """Return a method's rank correlation for each query, [Q]."""
        return rank_correlation(self.predicted[method], self.actual[output])


def score_methods(
    methods: Iterable[Method], retrainings: Retrainings, *, replicates: int = 500, seed: int = 0
) -> MethodScores:
    """Return the linear datamodelling scores: the mean over queries of Spearman's correlation over subsets.

    It correlates the summed influences of a subset's members with minus the loss, and with the margin, averaged over
    the repeats. Errors: queries and subsets are resampled together, and with them stretches of a kernel's chains, by
    random weights; only the scatter of the resamples is used. As queries share subsets the error is an upper bound.

    Args:
        methods: the first is the reference of all leads.
        retrainings: the truth.
        replicates: resamples, and permutations of the subsets for p-values.
        seed: of both.

    Raises:
        InputError: fewer than three subsets.

    Source: Park et al. 2023, arXiv 2303.14186; Owen 2007 (both sides of a table resampled), arXiv 0712.1111; Rubin
    1981 (random weights).
    """
    count, subsets = next(iter(retrainings.outputs.values())).shape[:2]
    require(subsets >= 3, f"a rank correlation over subsets needs >= 3 of them, got {subsets}; raise subsets")
    parts = {method.name: predictions(method, retrainings.members) for method in methods}
    predicted = {name: rounded(part.sum(0)) for name, part in parts.items()}  # [Q, m] each
    values = _scores(predicted, retrainings.outputs, np.full(count, 1 / count))
    rng = np.random.default_rng(seed)
    resampled = [_resampled_scores(parts, retrainings.outputs, rng) for _ in range(replicates)]
    # Both sides of the table, queries and subsets, limit how well the scatter is known.
    freedom = 1 / (1 / (min(subsets, max(count, 2)) - 1) + 1 / (replicates - 1))
    numbers: Scores = {}
    for name, value in values.items():
        numbers |= interval(name, value, float(np.std([scores[name] for scores in resampled], ddof=1)), freedom)
    actual = {name: output.mean(-1) for name, output in retrainings.outputs.items()}
    chance = _chance(predicted, actual, replicates, rng)
    return MethodScores(numbers | _repeatability(parts), chance, predicted, actual)


def score_name(output: str, score: str) -> str:
    """Return the name of a score of an output; those of the loss have no prefix."""
    return score if output == "loss" else f"{output}_{score}"


def _scores(predicted: Arrays, outputs: Arrays, weights: np.ndarray) -> Scores:
    """Return all scores of predictions [Q, m] for outputs [Q, m, R], queries weighted [Q]."""
    predicted_ranks = {name: unit_ranks(values) for name, values in predicted.items()}
    numbers: Scores = {}
    for output, values in outputs.items():
        actual = unit_ranks(values.mean(-1))  # [Q, m]
        scores = {name: float(weights @ (ranks * actual).sum(-1)) for name, ranks in predicted_ranks.items()}
        first, *others = scores
        numbers |= {score_name(output, f"lds_{name}"): score for name, score in scores.items()}
        numbers |= {score_name(output, f"lead_over_{name}"): scores[first] - scores[name] for name in others}
    values = next(iter(outputs.values()))
    if values.shape[2] >= 2:
        numbers["reliability"] = float(weights @ reliability(values))
        numbers["ceiling"] = ceiling(numbers["reliability"], values.shape[2])
    return numbers


def _resampled_scores(parts: Arrays, outputs: Arrays, rng: np.random.Generator) -> Scores:
    """Return all scores of resampled subsets and queries, with the parts of each method reweighted."""
    count, subsets = next(iter(outputs.values())).shape[:2]
    chosen = rng.integers(subsets, size=subsets)
    queries = np.bincount(rng.integers(count, size=count), minlength=count) / count  # [Q] weights
    drawn = {name: rounded(_reweighted(part, rng))[:, chosen] for name, part in parts.items()}
    return _scores(drawn, {name: output[:, chosen] for name, output in outputs.items()}, queries)


def _reweighted(parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return predictions [Q, m] in which the parts [P, Q, m] count more or less than once."""
    count = len(parts)
    if count == 1:
        return parts[0]
    weights = rng.exponential(size=count)  # the Bayesian bootstrap's
    # Exponential weights vary by less than their own mean's share: the factor makes a mean's error the classical one.
    factor = np.sqrt((count + 1) / (count - 1))
    return np.tensordot(1 + factor * (weights / weights.mean() - 1), parts, 1)


def _chance(
    predicted: Arrays, actual: Arrays, permutations: int, rng: np.random.Generator
) -> dict[str, tuple[float, float, float]]:
    """Return what is left of each score where subsets are permuted, the same way for all queries."""
    orders = [rng.permutation(next(iter(actual.values())).shape[1]) for _ in range(permutations)]  # of subsets
    chance = {}
    for output, values in actual.items():
        truth = unit_ranks(values)  # [Q, m]
        for name, prediction in predicted.items():
            ranks = unit_ranks(prediction)
            # A permutation pairs other columns: the products [m, m] of all columns hold every permuted score.
            products = ranks.T @ truth / len(ranks)
            rows = np.arange(len(products))
            null = np.array([products[rows, order].sum() for order in orders])
            low, high = np.quantile(null, _ENDS)
            p = (1 + np.sum(null >= np.trace(products))) / (1 + permutations)
            chance[score_name(output, f"lds_{name}")] = (float(low), float(high), float(p))
    return chance


def _repeatability(parts: Arrays) -> Scores:
    """Return how predictions from draws agree with those of another run of as many, by halves of the chains."""
    numbers = {}
    for name, part in parts.items():
        if len(part) >= 2:  # what comes from no draws has one part
            half = len(part) // 2
            first, second = (unit_ranks(side.sum(0)) for side in (part[:half], part[half:]))  # [Q, m]
            agreement = float((first * second).sum(-1).mean())
            numbers[f"repeatability_{name}"] = reliability_of_mean(agreement, 2)
    return numbers
