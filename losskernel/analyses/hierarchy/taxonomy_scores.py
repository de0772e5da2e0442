"""Scores of every kernel against the taxonomy: values, errors over chains, permutation tests, draws it would take."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice

import numpy as np

from losskernel.analyses import rank_tests, tree_comparison
from losskernel.analyses.hierarchy.similarities import Reader, Similarity
from losskernel.analyses.taxonomy_classes import Classes, Pairs, over_relations
from losskernel.kernel.error_bars import Matrices, bootstrap
from losskernel.kernel.loss_kernel import LossKernel

# Name of a number -> its value; with the endings of the bootstrap its error and interval.
Score = dict[str, float]
ENDS = ("", "_se", "_low", "_high")
# Numbers that each level has.
LEVEL_NUMBERS = ("knn", "ami", "nmi", "purity", "dendrogram_purity")
# Ways to split the chains in halves; more would hardly tell more, for they share chains.
_SPLITS = 3


@dataclass(frozen=True, eq=False)
class Scorer:
    """Compares similarities over the same probes with the taxonomy; numbers that are undefined are left out.

    Attributes:
        classes: of the probes.
        distance: of every two classes in the taxonomy, [G, G].
        pairs: of probes whose similarities are known.
        given: similarity of every two classes under the features to control for, [G, G], or None.
    """

    classes: Classes
    distance: np.ndarray
    pairs: Pairs
    given: np.ndarray | None = None

    def __call__(self, similarity: Similarity) -> dict[str, float]:
        """Return rank correlations, the class tree's fidelity, and per level what neighbours and clusters recover.

        Numbers of a level are called `knn class`, `ami depth 2` and so on.
        """
        numbers = self._ranks(similarity) | self._neighbours(similarity)
        if np.ptp(rank_tests.upper(similarity.means)) > 0:
            numbers |= self._class_tree(similarity.means)
        if similarity.linkage is not None:
            numbers |= self._probe_tree(similarity.linkage)
        return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}

    def relations(self, similarity: Similarity) -> np.ndarray:
        """Return the mean similarity of pairs of probes of each relation, [L]."""
        return over_relations(similarity.means, self.classes.weights, self.classes.kinship)

    def chance(self) -> np.ndarray:
        """Return the k-NN precision of random neighbours at each level, [levels]."""
        # Of a probe's len(groups) - 1 others, those of its own group but for itself.
        sharing = [np.bincount(groups)[groups] - 1 for groups in self._probe_groups]
        return np.array([(others / (len(others) - 1)).mean() for others in sharing])

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of pairs of classes and of the chosen pairs of probes."""
        leaf = self.classes.leaf  # [N]
        return rank_tests.upper(self.distance), self.distance[leaf[self.pairs.first], leaf[self.pairs.second]]

    @cached_property
    def _probe_groups(self) -> list[np.ndarray]:
        return [level.groups[self.classes.leaf] for level in self.classes.levels]

    def _ranks(self, similarity: Similarity) -> dict[str, float]:
        means, (classes, images) = rank_tests.upper(similarity.means), self._known
        numbers = {
            "spearman_classes": rank_tests.spearman(means, classes),
            "kendall_classes": rank_tests.kendall(means, classes),
            "spearman_images": rank_tests.spearman(similarity.pairs, images),
            "kendall_images": rank_tests.kendall(similarity.pairs, images),
        }
        if self.given is not None:
            numbers["partial"] = rank_tests.partial(means, classes, rank_tests.upper(self.given))
        return numbers

    def _neighbours(self, similarity: Similarity) -> dict[str, float]:
        return {
            f"knn {level.name}": (groups[similarity.nearest] == groups[:, None]).mean()
            for level, groups in zip(self.classes.levels, self._probe_groups, strict=True)
        }

    def _class_tree(self, means: np.ndarray) -> dict[str, float]:
        tree = tree_comparison.average_linkage(means)  # [G - 1, 4]
        heights = tree_comparison.cophenetic_distances(tree)  # [pairs]
        numbers = {
            "cophenetic": tree_comparison.pearson(heights, self._known[0]),
            "tree_fit": tree_comparison.pearson(heights, -rank_tests.upper(means)),
        }
        levels = self.classes.levels[1:]
        # Cut into as many clusters as the level has groups, so that neither number rewards a finer partition.
        partitions = tree_comparison.cuts(tree, [level.size for level in levels])
        for level, clusters in zip(levels, partitions.T, strict=True):
            numbers |= _recovered(level.name, level.groups, clusters, tree_comparison.parents_of(tree))
        return numbers

    def _probe_tree(self, linkage: np.ndarray) -> dict[str, float]:
        leaf = self.classes.leaf
        clusters = tree_comparison.cuts(linkage, [len(self.classes.ids)])[:, 0]
        return _recovered("class", leaf, clusters, tree_comparison.parents_of(linkage))


def _recovered(name: str, groups: np.ndarray, clusters: np.ndarray, parents: np.ndarray) -> dict[str, float]:
    numbers = tree_comparison.recovery(groups, clusters)._asdict()
    numbers["dendrogram_purity"] = tree_comparison.dendrogram_purity(parents, groups)
    return {f"{key} {name}": value for key, value in numbers.items()}


def values(scorer: Scorer, similarities: Mapping[str, Similarity]) -> dict[str, Score]:
    """Return each similarity's numbers, with the mean of each relation as `relation 0` (the same class) and so on."""
    scored: dict[str, Score] = {}
    for name, similarity in similarities.items():
        means = scorer.relations(similarity)
        relations = {f"relation {number}": float(mean) for number, mean in enumerate(means) if np.isfinite(mean)}
        scored[name] = scorer(similarity) | relations
    return scored


def with_errors(kernel: LossKernel, reader: Reader, scorer: Scorer) -> dict[str, Score]:
    """Return the numbers of a loss kernel's similarities with errors over its chains; it holds matrices [N, N]."""

    def statistic(part: Matrices) -> Score:
        scored = values(scorer, reader.of_matrices(part))
        return {f"{kind}|{name}": value for kind, score in scored.items() for name, value in score.items()}

    # The bootstrap knows flat names alone: they are joined for it and split again.
    result: dict[str, Score] = {}
    for key, value in bootstrap(kernel, statistic).items():
        kind, name = key.split("|", 1)
        result.setdefault(kind, {})[name] = value
    return result


def centred_on(score: Score, exact: Score) -> Score:
    """Return a score whose values are the exact ones where these are known, its intervals moved along."""
    moved = dict(score)
    for name, value in exact.items():
        moved[name] = value
        for end in (f"{name}_low", f"{name}_high"):
            if end in score:
                moved[end] = value + score[end] - score[name]
    return moved


def tests(
    similarity: Similarity, distance: np.ndarray, given: np.ndarray | None, permutations: int, seed: int
) -> dict[str, rank_tests.Permuted]:
    """Test a similarity's class means against the distances [G, G] of a taxonomy: what is undefined is left out.

    Args:
        similarity: of one kernel.
        distance: in the taxonomy.
        given: similarity of every two classes under the features [G, G], or None.
        permutations: of the classes.
        seed: fixes them.

    Returns:
        spearman_classes (Mantel), partial (the kernel given the features), reverse (the features given the kernel).
    """
    results = {"spearman_classes": rank_tests.mantel(similarity.means, distance, permutations, seed)}
    if given is not None:
        results["partial"] = rank_tests.partial_mantel(similarity.means, distance, given, permutations, seed)
        results["reverse"] = rank_tests.partial_mantel(given, distance, similarity.means, permutations, seed)
    return {name: test for name, test in results.items() if np.isfinite(test.correlation)}


def reliability(kernel: LossKernel, reader: Reader) -> dict[str, float]:
    """Return similarity -> reliability of its class means, from disjoint halves of the chains, for as many as have it.

    The rank correlation of the halves is brought to the length of all chains. A coupling needs two chains in each
    half. Its noise, and that of |R|, falls faster than as 1 / draws where it drowns the signal: their reliability is
    then higher than this, and fewer draws do than it makes believe.

    Source: Spearman 1910; Brown 1910.
    """
    half = kernel.chains // 2
    if half < 1:
        return {}
    correlations: dict[str, list[float]] = {}
    for first in islice(combinations(range(kernel.chains), half), _SPLITS):
        second = [chain for chain in range(kernel.chains) if chain not in first][:half]
        parts = [reader.means_of_kernel(kernel.only(chains)) for chains in (first, second)]
        for name in parts[0]:
            left, right = (rank_tests.upper(part[name]) for part in parts)
            # `spearman` compares a similarity with a distance; here both are similarities.
            correlations.setdefault(name, []).append(rank_tests.spearman(left, -right))
    growth = kernel.chains / half  # 2, or more where an odd chain is left out
    means = {name: float(np.mean(halves)) for name, halves in correlations.items()}
    return {name: rank_tests.full_length(mean, growth) for name, mean in means.items() if np.isfinite(mean)}
