"""How well scores detect what is known to be wrong, with errors over probes and draws; how marked probes cluster."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel.analyses.kernel_scores import Losses, groups_of, scores_of, surroundings
from losskernel.kernel import LossKernel, Resample, correlation_of, interval, pieces, replicate_mean, stretch_grams
from losskernel.traces.loss_traces import LossTraces

NUMBERS = ("auroc", "ap", "recall")


def detect(score: np.ndarray, wrong: np.ndarray, counts: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return how well one score ranks wrong probes above right ones, each [B] for B resamples of the probes.

    auroc: chance that a wrong probe's score exceeds a right one's, ties counting half. ap: average precision, as
    scikit-learn has it. recall: share of the m wrong probes among the m highest scores; among equal scores, by chance.

    Args:
        score: [N], higher = more suspicious.
        wrong: [N] bool, with both values.
        counts: how often each probe counts, [B, N]; None counts each once. Of the wrong ones as many in all as they
            are, and likewise of the right ones.
    """
    counts = np.ones((1, len(score))) if counts is None else counts  # [B, N]
    order = np.argsort(-score, kind="stable")  # [N], the most suspicious first
    firsts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])  # where equal scores begin
    # [B, groups of equal scores], from the most suspicious on
    hits = np.add.reduceat(np.where(wrong[order], counts[:, order], 0.0), firsts, axis=1)
    misses = np.add.reduceat(np.where(wrong[order], 0.0, counts[:, order]), firsts, axis=1)
    above, seen = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)  # [B, groups of equal scores]
    positives, negatives = float(wrong.sum()), float((~wrong).sum())
    auroc = (misses * (above - hits / 2)).sum(axis=1) / (positives * negatives)
    precision = np.divide(above, seen, out=np.zeros_like(above), where=seen > 0)
    # Of a group of equal scores that straddles the first m, a random part is among them.
    taken = np.clip((positives - (seen - hits - misses)) / np.maximum(hits + misses, 1.0), 0.0, 1.0)
    ap, recall = ((hits * part).sum(axis=1) / positives for part in (precision, taken))
    return {"auroc": auroc, "ap": ap, "recall": recall}


def resampled_counts(wrong: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Return how often each probe occurs in each bootstrap resample, [replicates, N], wrong and right ones apart."""
    rng = np.random.default_rng(seed)
    counts = np.empty((replicates, len(wrong)))
    for stratum in (wrong, ~wrong):
        size = int(stratum.sum())
        counts[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=replicates)
    return counts


class Draws(NamedTuple):
    """Scores of resampled draws, for the Monte-Carlo error of what they detect.

    Attributes:
        scores: name -> [replicates, n], of some of the probes.
        wrong: which of those are wrong, [n].
        pieces: of chains that were resampled.
    """

    scores: Mapping[str, np.ndarray]
    wrong: np.ndarray
    pieces: int

    def errors(self, name: str) -> dict[str, float]:
        """Return the standard error of each number of a score that the draws leave; 0 for one without draws."""
        if name not in self.scores:
            return dict.fromkeys(NUMBERS, 0.0)
        detected = [detect(score, self.wrong) for score in self.scores[name]]
        # Exponential weights vary by less than their own mean's share, as in losskernel.kernel.error_bars.
        factor = np.sqrt((self.pieces + 1) / (self.pieces - 1))
        return {number: float(factor * np.std([part[number][0] for part in detected], ddof=1)) for number in NUMBERS}

    def freedom(self, name: str, replicates: int) -> float:
        """Return the degrees of freedom of a combined error, the smaller of those of its parts."""
        return float(min(replicates, self.pieces if name in self.scores else replicates) - 1)


NO_DRAWS = Draws({}, np.zeros(0, dtype=bool), 2)


def detection_rows(
    scores: Mapping[str, np.ndarray], wrong: np.ndarray, draws: Draws, replicates: int, seed: int
) -> list[dict[str, Any]]:
    """Return a row per score: its numbers with errors, and AUROC against that of plain loss and of the best rival.

    Errors are of two kinds, added in quadrature: over probes (bootstrap, wrong and right ones apart) and, for scores of
    the kernel, over draws. Differences are paired over probes. Rivals are the scores without draws; the best is chosen
    by its AUROC on these very probes, which favours it. Intervals end at the numbers' own bounds.

    Args:
        scores: name -> [N]; plain loss, where known, is called loss.
        wrong: [N] bool, with both values.
        draws: resampled scores of the kernel.
        replicates: bootstrap resamples of the probes.
        seed: of them.
    """
    counts = resampled_counts(wrong, replicates, seed)  # [B, N]
    values = {name: detect(score, wrong) for name, score in scores.items()}
    scatter = {name: detect(score, wrong, counts) for name, score in scores.items()}
    rivals = [name for name in scores if name not in draws.scores]
    best = max(rivals, key=lambda name: values[name]["auroc"][0], default=None)
    rows: list[dict[str, Any]] = []
    for name in scores:
        draw_errors, freedom = draws.errors(name), draws.freedom(name, replicates)
        row: dict[str, Any] = {"score": name, "kind": "kernel" if name in draws.scores else "baseline"}
        for number in NUMBERS:
            error = float(np.hypot(np.std(scatter[name][number], ddof=1), draw_errors[number]))
            row |= _bounded(interval(number, float(values[name][number][0]), error, freedom), 0.0, 1.0)
            row |= {f"{number}_draws_se": draw_errors[number]}
        for column, other in (("minus_loss", "loss"), ("minus_rival", best)):
            if name in draws.scores and other in rivals:
                difference = float(values[name]["auroc"][0] - values[other]["auroc"][0])
                spread = np.std(scatter[name]["auroc"] - scatter[other]["auroc"], ddof=1)
                error = float(np.hypot(spread, draw_errors["auroc"]))
                row |= _bounded(interval(column, difference, error, freedom), -1.0, 1.0)
        if name in draws.scores and best is not None:
            row["rival"] = best
        rows.append(row)
    return rows


def _bounded(numbers: dict[str, float], least: float, most: float) -> dict[str, float]:
    return {key: value if key.endswith("_se") else min(max(value, least), most) for key, value in numbers.items()}


_RESAMPLES = 40


def resampled_draws(
    traces: LossTraces, given: np.ndarray, wrong: np.ndarray, k: int, limit: int, seed: int
) -> Draws | None:
    """Return scores of kernels whose pieces of chains are reweighted, as in `kernel.error_bars`.

    They are of at most `limit` probes, wrong and right ones in the proportion of all; None where those are not of both
    kinds, or where the chains make fewer than two pieces.

    Args:
        traces: of all probes.
        given: label of each probe, [N].
        wrong: [N] bool.
        k: neighbours, opponents and friends.
        limit: probes at most; the matrices are N x N.
        seed: of the weights.
    """
    chosen = proportional(wrong, limit)  # [n]
    part = LossTraces(traces.dataset.isel(probe=chosen))
    kernel = LossKernel.from_traces(part)
    count = kernel.chains * pieces(kernel.chains, kernel.draws)
    if count < 2 or len(set(wrong[chosen].tolist())) < 2:
        return None
    groups, start = groups_of(kernel, given[chosen]), part.record("start_losses")
    rows: dict[str, list[np.ndarray]] = {}
    for covariance, mean in _resamples(kernel, part, seed):
        variance, block = np.diagonal(covariance).copy(), (slice(0, len(mean)), correlation_of(covariance))
        around = surroundings([block], variance, groups, min(k, len(mean) - 1))
        for name, values in scores_of(Losses(variance, covariance.sum(axis=1), mean, start), around).items():
            rows.setdefault(name, []).append(values)
    return Draws({name: np.stack(values) for name, values in rows.items()}, wrong[chosen], count)


def proportional(wrong: np.ndarray, limit: int) -> np.ndarray:
    """Return at most `limit` probes in order, wrong and right ones in the proportion of all, evenly spaced."""
    if len(wrong) <= limit:
        return np.arange(len(wrong))
    return np.sort(np.argsort(wrong, kind="stable")[np.linspace(0, len(wrong) - 1, limit).astype(int)])


def _resamples(kernel: LossKernel, traces: LossTraces, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield K [N, N] and the mean losses [N] of resamples, weights being those of the Bayesian bootstrap."""
    per_chain = pieces(kernel.chains, kernel.draws)  # pieces of each chain, B
    grams = stretch_grams(kernel, per_chain)
    losses = np.array_split(traces.losses.transpose("chain", "draw", "probe").values, per_chain, axis=1)
    sums = np.stack([part.sum(axis=1, dtype=np.float64) for part in losses], axis=1)  # [C, B, N]
    lengths = np.array([part.shape[1] for part in losses])  # [B] draws of each piece
    rng = np.random.default_rng(seed)
    for _ in range(_RESAMPLES):
        weights = rng.exponential(size=grams.shape[:2])  # [C, B]
        weights /= weights.mean()
        mean = np.tensordot(weights, sums, 2) / (weights * lengths).sum()  # [N]
        yield Resample(grams, weights).covariance(), mean


_ROWS = 500  # of R at once


def clustering(name: str, nearest: np.ndarray, marked: np.ndarray, permutations: int, seed: int) -> dict[str, float]:
    """Return the share of marked probes among the nearest of marked probes, `name`, with its error over those.

    `name_chance` is the share among all others, `name_p` the chance that as many or more of another choice of probes,
    as many at random, are nearest to each other: (1 + count) / (1 + permutations).

    Args:
        name: of the numbers.
        nearest: the k nearest probes of each, [N, k].
        marked: [N] bool.
        permutations: of the marks.
        seed: of them.
    """
    shares = marked[nearest[marked]].mean(axis=1)  # [marked]
    rng = np.random.default_rng(seed)
    observed, count = int(marked[nearest[marked]].sum()), 0
    for _ in range(permutations):
        other = rng.permutation(marked)  # as many marks, elsewhere
        count += int(other[nearest[other]].sum()) >= observed
    chance = (int(marked.sum()) - 1) / (len(marked) - 1)
    return replicate_mean(name, shares) | {f"{name}_chance": chance, f"{name}_p": (1 + count) / (1 + permutations)}


def find_twins(kernel: LossKernel, numbers: np.ndarray) -> pd.DataFrame | None:
    """Return a row per twin, from each probe's pair number, [N], below 0 for none; None where there is no pair.

    Only pairs of which both are among the probes count. Columns: ids of the probes and of their twins; ranks of the
    twin among all other probes by R, 1 = nearest, equals counting in its favour; correlations, R with the twin; pairs,
    the number of the pair.
    """
    pairs, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    members = np.flatnonzero(np.isin(numbers, pairs[counts == 2]))
    if members.size == 0:
        return None
    members = members[np.argsort(numbers[members], kind="stable")]
    # Sorted by pair, each probe's twin is the other of its two.
    others = members.reshape(-1, 2)[:, ::-1].ravel()
    ranks, correlations = [], []
    for start in range(0, len(members), _ROWS):
        probes, twins = members[start : start + _ROWS], others[start : start + _ROWS]
        rows, index = kernel.correlation(probes), np.arange(len(probes))
        rows[index, probes] = -np.inf
        with_twin = rows[index, twins]
        correlations.append(with_twin)
        ranks.append(1 + (rows > with_twin[:, None]).sum(axis=1))
    ids = np.asarray(kernel.ids)
    columns = {"ids": ids[members], "twins": ids[others], "ranks": np.concatenate(ranks)}
    return pd.DataFrame(columns | {"correlations": np.concatenate(correlations), "pairs": numbers[members]})


def twin_numbers(twins: pd.DataFrame) -> dict[str, float]:
    """Return the share of twins whose nearest probe is their twin, and its mean rank, with errors over pairs."""
    ranks = twins["ranks"].to_numpy().reshape(-1, 2)  # [pairs, 2]
    numbers = replicate_mean("twin_nearest", (ranks == 1).mean(axis=1))
    return numbers | replicate_mean("twin_rank", ranks.mean(axis=1)) | {"twin_pairs": float(len(ranks))}
