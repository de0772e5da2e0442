"""How well scores find what is known to be wrong: AUROC, average precision, recall at the noise rate."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from losskernel.kernel.error_bars import interval

NUMBERS = ("auroc", "ap", "recall")


class Found(NamedTuple):
    """How well one score finds the probes that are wrong, each [B] for B resamples of the probes.

    Attributes:
        auroc: chance that a wrong probe's score exceeds a right one's, ties counting half.
        ap: average precision, as scikit-learn has it.
        recall: share of the m wrong probes among the m highest scores; among equal scores, by chance.
    """

    auroc: np.ndarray
    ap: np.ndarray
    recall: np.ndarray


def detect(score: np.ndarray, wrong: np.ndarray, counts: np.ndarray | None = None) -> Found:
    """Judge one score.

    Args:
        score: [N], higher = more suspicious.
        wrong: [N] bool, with both values.
        counts: how often each probe counts, [B, N]; None counts each once. Of the wrong ones as many in all as they
            are, and likewise of the right ones.
    """
    counts = np.ones((1, len(score))) if counts is None else counts
    order = np.argsort(-score, kind="stable")
    firsts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])  # where equal scores begin
    # [B, groups of equal scores], from the most suspicious on
    hits = np.add.reduceat(np.where(wrong[order], counts[:, order], 0.0), firsts, axis=1)
    misses = np.add.reduceat(np.where(wrong[order], 0.0, counts[:, order]), firsts, axis=1)
    above, seen = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    positives, negatives = float(wrong.sum()), float((~wrong).sum())
    auroc = (misses * (above - hits / 2)).sum(axis=1) / (positives * negatives)
    precision = np.divide(above, seen, out=np.zeros_like(above), where=seen > 0)
    taken = np.clip((positives - (seen - hits - misses)) / np.maximum(hits + misses, 1.0), 0.0, 1.0)
    return Found(auroc, (hits * precision).sum(axis=1) / positives, (hits * taken).sum(axis=1) / positives)


def resampled_counts(wrong: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Return how often each probe stands in each bootstrap resample, [replicates, N], wrong and right ones apart."""
    rng = np.random.default_rng(seed)
    counts = np.empty((replicates, len(wrong)))
    for stratum in (wrong, ~wrong):
        size = int(stratum.sum())
        counts[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=replicates)
    return counts


class Draws(NamedTuple):
    """Scores of resampled draws, for the Monte-Carlo error of what they find.

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
        found = [detect(score, self.wrong) for score in self.scores[name]]
        # Exponential weights vary by less than their own mean's share, as in losskernel.kernel.error_bars.
        factor = np.sqrt((self.pieces + 1) / (self.pieces - 1))
        return {
            number: float(factor * np.std([getattr(each, number)[0] for each in found], ddof=1)) for number in NUMBERS
        }

    def freedom(self, name: str, replicates: int) -> float:
        """Return the degrees of freedom of a combined error, the smaller of those of its parts."""
        return float(min(replicates, self.pieces if name in self.scores else replicates) - 1)


NO_DRAWS = Draws({}, np.zeros(0, dtype=bool), 2)


def detection(
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
    counts = resampled_counts(wrong, replicates, seed)
    values = {name: detect(score, wrong) for name, score in scores.items()}
    scatter = {name: detect(score, wrong, counts) for name, score in scores.items()}
    rivals = [name for name in scores if name not in draws.scores]
    best = max(rivals, key=lambda name: values[name].auroc[0], default=None)
    rows: list[dict[str, Any]] = []
    for name in scores:
        own, freedom = draws.errors(name), draws.freedom(name, replicates)
        row: dict[str, Any] = {"score": name, "kind": "kernel" if name in draws.scores else "baseline"}
        for number in NUMBERS:
            error = float(np.hypot(np.std(getattr(scatter[name], number), ddof=1), own[number]))
            row |= _bounded(interval(number, float(getattr(values[name], number)[0]), error, freedom), 0.0, 1.0)
            row |= {f"{number}_draws_se": own[number]}
        for column, other in (("minus_loss", "loss"), ("minus_rival", best)):
            if name in draws.scores and other in rivals:
                difference = float(values[name].auroc[0] - values[other].auroc[0])
                error = float(np.hypot(np.std(scatter[name].auroc - scatter[other].auroc, ddof=1), own["auroc"]))
                row |= _bounded(interval(column, difference, error, freedom), -1.0, 1.0)
        if name in draws.scores and best is not None:
            row["rival"] = best
        rows.append(row)
    return rows


def _bounded(numbers: dict[str, float], least: float, most: float) -> dict[str, float]:
    return {key: value if key.endswith("_se") else min(max(value, least), most) for key, value in numbers.items()}
