"""The numbers that sum a comparison up: what a run reports."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from losskernel.analyses.hierarchy.kernels import Comparison
from losskernel.analyses.hierarchy.scores import Score
from losskernel.kernel.error_bars import replicate_mean
from losskernel.kernel.loss_kernel import LossKernel

# Endings of a number with its error and interval.
ENDS = ("", "_se", "_low", "_high")
# Numbers that each level has.
LEVEL_NUMBERS = ("knn", "ami", "nmi", "purity", "dendrogram_purity")
# Shifts between chains that show the floor of |R|.
_SHIFTS = 4


def with_ends(score: Score, number: str, name: str) -> dict[str, float]:
    """Return a number of a score, and its error and interval where it has them, under another name."""
    return {f"{name}{end}": score[f"{number}{end}"] for end in ENDS if f"{number}{end}" in score}


def summary(comparison: Comparison) -> dict[str, float]:
    """Return the finite numbers that sum a comparison up.

    `spearman_classes_x` of every kernel x with its Mantel p, `partial_x` given the features and `reverse_x` of the
    features given x; of the loss kernel's views also means by relation and what more draws would bring; of the best
    of these what clusters and neighbours recover at the middle level.
    """
    scores, numbers = comparison.scores, {}
    for name, tests in comparison.tests.items():
        for number, test in tests.items():
            numbers |= {f"{number}_{name}": test.correlation, f"{number}_{name}_p": test.p}
            numbers |= with_ends(scores[name], number, f"{number}_{name}")
    for name in comparison.own:
        for number in ("kendall_classes", "spearman_images", "kendall_images"):
            numbers |= with_ends(scores[name], number, f"{number}_{name}")
        for place, relation in enumerate(comparison.classes.relations):
            numbers |= with_ends(scores[name], f"relation {place}", f"{name}_{relation.replace(' ', '_')}")
        reach = comparison.reach.get(name, {})
        numbers |= {f"{number}_{name}": value for number, value in reach.items() if value != "never"}
    best = scores[comparison.own[0]]
    for number in LEVEL_NUMBERS:
        numbers |= with_ends(best, f"{number} {comparison.classes.middle.name}", number)
    for number in ("cophenetic", "tree_fit"):
        numbers |= with_ends(best, number, number)
    numbers |= falling(best, len(comparison.classes.relations)) | noise_floor(comparison.part[0])
    numbers |= {"classes": len(comparison.classes.ids), "probes": comparison.kernel.probes}
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def falling(score: Score, count: int) -> dict[str, float]:
    """Return whether a mean falls from each relation to the next, and between how many the intervals part.

    Args:
        score: of one view, with `relation 0` to `relation count - 1`.
        count: of relations.

    Returns:
        monotone (1 or 0), levels_apart (neighbouring relations with disjoint 90 % intervals), and leading_levels_apart
        (how many from the same class onwards before two first overlap).
    """
    present = [f"relation {number}" for number in range(count) if f"relation {number}" in score]
    steps = list(pairwise(present))
    numbers = {"monotone": float(all(score[near] > score[far] for near, far in steps))}
    if all(f"{name}_low" in score for name in present):
        numbers |= _apart([score[f"{near}_low"] > score[f"{far}_high"] for near, far in steps])
    return numbers


def noise_floor(kernel: LossKernel) -> dict[str, float]:
    """Return the mean |R| of probes that know nothing of each other, with its error over shifts of the chains."""
    shifts = range(1, max(2, min(_SHIFTS + 1, kernel.chains)))
    return replicate_mean(
        "noise_floor", np.array([np.abs(kernel.null_correlation(shift=shift)).mean() for shift in shifts])
    )


def _apart(steps: Sequence[bool]) -> dict[str, float]:
    leading = next((place for place, each in enumerate(steps) if not each), len(steps))
    return {"levels_apart": float(sum(steps)), "leading_levels_apart": float(leading)}
