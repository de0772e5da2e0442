"""One loss kernel and other kernels over the same probes, compared with a taxonomy; the numbers that a run reports."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from losskernel.analyses import rank_tests
from losskernel.analyses.hierarchy import taxonomy_scores
from losskernel.analyses.hierarchy.taxonomy_scores import ENDS, LEVEL_NUMBERS, Reader, Score, Scorer, Similarity
from losskernel.analyses.rank_tests import Permuted
from losskernel.analyses.taxonomy_classes import Classes, TaxonomyAnalysis
from losskernel.kernel import LossKernel, noise_floor
from losskernel.traces.loss_traces import LossTraces

# Two kernels that know nothing of the images: the classes alone, and noise.
LABELS, RANDOM = "labels", "random"
# Image pairs at most for rank correlations between images.
_PAIRS = 200_000


@dataclass(frozen=True)
class HierarchySettings(TaxonomyAnalysis):
    """How a kernel is compared with a taxonomy.

    Attributes:
        measure: of the distance in the taxonomy, one of losskernel.data.taxonomy.MEASURES.
        features: baseline for which the partial Mantel test controls.
        permutations: of the classes, for p-values.
        neighbours: k of the k-NN precision.
        limit: probes at most behind error bars and trees of probes, evenly from every class; matrices are N × N.
        seed: fixes permutations, sampled pairs, choices among equals and the random baseline.
    """

    measure: str = "path"
    features: str = "penultimate"
    permutations: int = 999
    neighbours: int = 10
    limit: int = 2000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that tables and figures of the hierarchy show, computed at first use.

    Attributes:
        kernel: the loss kernel.
        traces: what it was built from, with baselines.
        classes: of the probes.
        distance: of every two classes in the taxonomy, [G, G].
        settings: of the comparison.
    """

    kernel: LossKernel
    traces: LossTraces
    classes: Classes
    distance: np.ndarray
    settings: HierarchySettings

    @cached_property
    def similarities(self) -> dict[str, Similarity]:
        """Every kernel, the loss kernel's similarities first."""
        read = self._reader.read(taxonomy_scores.in_blocks(self.kernel))
        for name, rows in self._baselines.items():
            read |= self._reader.of_features(name, rows)
        return read

    @property
    def kernel_names(self) -> list[str]:
        """Names of the loss kernel's similarities: the coupling first, which has no noise floor, if there is one."""
        return [name for name in self.similarities if name not in self._baselines]

    @cached_property
    def scorer(self) -> Scorer:
        """What compares a similarity with the taxonomy."""
        return Scorer(self.classes, self.distance, self._reader.pairs, self._given)

    @cached_property
    def subset(self) -> tuple[LossKernel, Classes]:
        """The kernel of the probes behind errors, and their classes."""
        if self._chosen is None:
            return self.kernel, self.classes
        traces = LossTraces(self.traces.dataset.isel(probe=self._chosen))
        return LossKernel.from_traces(traces), self.classes.at(self._chosen)

    @cached_property
    def scores(self) -> dict[str, Score]:
        """The numbers of every kernel; the loss kernel's with errors over chains."""
        kernel, classes = self.subset
        reader = self._reader_of(classes)
        scorer = Scorer(classes, self.distance, reader.pairs, self._given)
        exact = taxonomy_scores.values(self.scorer, self.similarities)
        rough = taxonomy_scores.with_errors(kernel, reader, scorer)
        if self._chosen is None:
            return exact | rough
        # The values are those of all probes, the errors those of the subset.
        for name, rows in self._baselines.items():
            rough |= taxonomy_scores.values(scorer, reader.of_features(name, rows[self._chosen]))
        return {name: taxonomy_scores.centred_on(rough[name], score) for name, score in exact.items()}

    @cached_property
    def tests(self) -> dict[str, dict[str, Permuted]]:
        """Permutation tests of every kernel: spearman_classes, partial and reverse."""
        fixed = (self.settings.permutations, self.settings.seed)
        given = {self.settings.features: None}  # the features themselves
        return {
            name: taxonomy_scores.tests(similarity, self.distance, given.get(name, self._given), *fixed)
            for name, similarity in self.similarities.items()
        }

    @cached_property
    def reliability(self) -> dict[str, dict[str, Any]]:
        """Reliability, ceiling and the draws in all that double the correlation over classes, per similarity."""
        draws = self.kernel.chains * self.kernel.draws
        limits: dict[str, dict[str, Any]] = {}
        for name, value in taxonomy_scores.reliability(self.kernel, self._reader).items():
            correlation = self.scores[name].get("spearman_classes", 0.0)
            times = rank_tests.doubling(value) if correlation > 0 else np.inf  # as many draws as now
            needed = float(np.ceil(times * draws)) if np.isfinite(times) else "never"
            ceiling = rank_tests.ceiling(correlation, value)
            limits[name] = {"reliability": value, "ceiling": ceiling, "draws_to_double": needed}
        return limits

    @cached_property
    def _baselines(self) -> dict[str, np.ndarray]:
        draws = self.kernel.chains * self.kernel.draws
        # A baseline of one column is a score, such as the margin: probes with the same score are not alike.
        kernels = {name: rows for name, rows in self.traces.baselines.items() if rows.shape[1] > 1}
        return kernels | reference_kernels(self.classes.leaf, draws, self.settings.seed)

    @cached_property
    def _given(self) -> np.ndarray | None:
        return self.similarities[self.settings.features].means if self.settings.features in self._baselines else None

    @cached_property
    def _chosen(self) -> np.ndarray | None:
        return self.classes.evenly(self.settings.limit) if self.kernel.probes > self.settings.limit else None

    @cached_property
    def _reader(self) -> Reader:
        return self._reader_of(self.classes)

    def _reader_of(self, classes: Classes) -> Reader:
        return Reader(classes, classes.pairs(_PAIRS, self.settings.seed), self.settings.neighbours, self.settings.seed)


def reference_kernels(leaf: np.ndarray, columns: int, seed: int) -> dict[str, np.ndarray]:
    """Return a kernel of labels alone and a random one, name -> rows [N, d].

    Args:
        leaf: number of each probe's class, [N].
        columns: of the random rows: as many as the loss kernel has draws.
        seed: of the random rows.
    """
    one_hot = np.eye(leaf.max() + 1, dtype=np.float32)[leaf]  # [N, G]
    # A stream of its own: permutations and choices of pairs start from the same seed.
    stream = np.random.SeedSequence(seed).spawn(1)[0]
    noise = np.random.default_rng(stream).standard_normal((len(leaf), columns), dtype=np.float32)
    return {LABELS: one_hot, RANDOM: noise}


def with_ends(score: Score, number: str, name: str | None = None) -> dict[str, float]:
    """Return a number of a score, and its error and interval where it has them, under another name if one is given."""
    return {f"{name or number}{end}": score[f"{number}{end}"] for end in ENDS if f"{number}{end}" in score}


def summary(comparison: Comparison) -> dict[str, float]:
    """Return the finite numbers that sum a comparison up.

    `spearman_classes_x` of every kernel x with its Mantel p, `partial_x` given the features and `reverse_x` of the
    features given x; of the loss kernel's similarities also means by relation and what more draws would bring; of the
    best of these what clusters and neighbours recover at the middle level.
    """
    scored, numbers = comparison.scores, {}
    relations = comparison.classes.relations
    for name, tests in comparison.tests.items():
        for number, test in tests.items():
            numbers |= {f"{number}_{name}": test.correlation, f"{number}_{name}_p": test.p}
            numbers |= with_ends(scored[name], number, f"{number}_{name}")
    for name in comparison.kernel_names:
        for number in ("kendall_classes", "spearman_images", "kendall_images"):
            numbers |= with_ends(scored[name], number, f"{number}_{name}")
        for index, relation in enumerate(relations):
            numbers |= with_ends(scored[name], f"relation {index}", f"{name}_{relation.replace(' ', '_')}")
        limits = comparison.reliability.get(name, {})
        numbers |= {f"{number}_{name}": value for number, value in limits.items() if value != "never"}
    best = scored[comparison.kernel_names[0]]
    for number in LEVEL_NUMBERS:
        numbers |= with_ends(best, f"{number} {comparison.classes.middle.name}", number)
    numbers |= with_ends(best, "cophenetic") | with_ends(best, "tree_fit")
    numbers |= falling(best, len(relations)) | noise_floor(comparison.subset[0])
    numbers |= {"classes": len(comparison.classes.ids), "probes": comparison.kernel.probes}
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def falling(score: Score, count: int) -> dict[str, float]:
    """Return whether a mean falls from each relation to the next, and between how many the intervals part.

    Args:
        score: of one similarity, with `relation 0` to `relation count - 1`.
        count: of relations.

    Returns:
        monotone (1 or 0), levels_apart (neighbouring relations with disjoint 90 % intervals), and leading_levels_apart
        (how many from the same class onwards before two first overlap).
    """
    present = [f"relation {number}" for number in range(count) if f"relation {number}" in score]
    steps = list(pairwise(present))  # from each relation to the next farther
    numbers = {"monotone": float(all(score[near] > score[far] for near, far in steps))}
    if all(f"{name}_low" in score for name in present):
        apart = [score[f"{near}_low"] > score[f"{far}_high"] for near, far in steps]
        leading = next((index for index, disjoint in enumerate(apart) if not disjoint), len(apart))
        numbers |= {"levels_apart": float(sum(apart)), "leading_levels_apart": float(leading)}
    return numbers
