"""Scores of every kernel against the taxonomy: values, errors over chains, permutation tests, draws it would take."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice
from typing import NamedTuple

import numpy as np

from losskernel.analyses import rank_tests, tree_comparison
from losskernel.analyses.taxonomy_classes import Classes, Pairs, over_relations
from losskernel.analyses.tree_comparison import average_linkage
from losskernel.kernel import LossKernel, Matrices, bootstrap

# Rows [n, N] of every similarity, and which.
Block = tuple[slice, Mapping[str, np.ndarray]]
_NO_PAIRS = Pairs(np.array([], dtype=int), np.array([], dtype=int))


class Similarity(NamedTuple):
    """One similarity over probes, as far as the hierarchy needs it.

    Attributes:
        means: over pairs of different probes of every two classes, [G, G]; NaN for a class of one probe with itself.
        pairs: the similarities of the chosen pairs of probes, [P].
        nearest: the most similar other probes of each, in no order; ties are broken at random, [N, k].
        linkage: average-linkage tree of the probes, [N - 1, 4], where all rows were read in one block.
    """

    means: np.ndarray
    pairs: np.ndarray
    nearest: np.ndarray
    linkage: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads similarities over the same probes.

    Attributes:
        classes: of the probes.
        pairs: of probes to read.
        neighbours: k.
        seed: breaks ties.
    """

    classes: Classes
    pairs: Pairs = _NO_PAIRS
    neighbours: int = 1
    seed: int = 0

    def of_features(self, name: str, features: np.ndarray) -> dict[str, Similarity]:
        """Read the cosines of rows [N, d]."""
        kernel = LossKernel.from_features(features)
        return self.read((block, {name: kernel.correlation(block)}) for block in kernel.blocks())

    def read(self, blocks: Iterable[Block]) -> dict[str, Similarity]:
        """Read similarities from `in_blocks` of a loss kernel, or from `whole` of a kernel or a resample of it."""
        count = len(self.classes.leaf)
        shuffled = np.random.default_rng(self.seed).permutation(count)  # [N]
        parts: dict[str, list[Similarity]] = {}
        for block, similarities in blocks:
            probes = np.arange(count)[block]
            for name, rows in similarities.items():
                linkage = average_linkage(rows) if len(probes) == count else None
                nearest = self._nearest(rows, probes, shuffled)  # [n, k]
                part = Similarity(self._sums(rows, probes), self._chosen(rows, probes), nearest, linkage)
                parts.setdefault(name, []).append(part)
        joined: dict[str, Similarity] = {}
        for name, members in parts.items():
            sums, pairs, near, linkages = zip(*members, strict=True)
            means = self._mean(np.sum(sums, axis=0))
            joined[name] = Similarity(means, np.concatenate(pairs), np.concatenate(near), linkages[0])
        return joined

    def means(self, blocks: Iterable[Block]) -> dict[str, np.ndarray]:
        """Return only the means over classes [G, G] of the similarities."""
        sums: dict[str, np.ndarray] = {}
        for block, similarities in blocks:
            probes = np.arange(len(self.classes.leaf))[block]
            for name, rows in similarities.items():
                sums[name] = sums.get(name, 0.0) + self._sums(rows, probes)
        return {name: self._mean(total) for name, total in sums.items()}

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        weights = self.classes.weights  # [G, G]
        return np.divide(sums, weights, out=np.full(weights.shape, np.nan), where=weights > 0)

    def _sums(self, rows: np.ndarray, probes: np.ndarray) -> np.ndarray:
        """Return what rows [n, N] add to the sums over classes [G, G], a probe's similarity with itself left out."""
        leaf, count = self.classes.leaf, len(self.classes.ids)
        order = np.argsort(leaf, kind="stable")  # [N], by class
        starts = np.searchsorted(leaf[order], np.arange(count))  # [G], first column of each class
        # Where the probes are sorted by class already, a copy of all rows is saved.
        is_sorted = np.array_equal(order, np.arange(len(order)))
        sums = np.add.reduceat(rows if is_sorted else rows[:, order], starts, axis=1)  # [n, G]
        sums[np.arange(len(probes)), leaf[probes]] -= rows[np.arange(len(probes)), probes]
        return (leaf[probes] == np.arange(count)[:, None]).astype(float) @ sums

    def _chosen(self, rows: np.ndarray, probes: np.ndarray) -> np.ndarray:
        # Pairs are sorted by their first probe, so that those of a block are a slice.
        low, high = np.searchsorted(self.pairs.first, [probes[0], probes[-1] + 1])
        return rows[self.pairs.first[low:high] - probes[0], self.pairs.second[low:high]]

    def _nearest(self, rows: np.ndarray, probes: np.ndarray, shuffled: np.ndarray) -> np.ndarray:
        k = min(self.neighbours, len(shuffled) - 1)
        # Of equal columns argpartition keeps any: in shuffled order none is favoured, by class or otherwise.
        apart = -rows[:, shuffled]  # [n, N]
        apart[np.arange(len(probes)), np.argsort(shuffled)[probes]] = np.inf  # no probe is its own neighbour
        return shuffled[np.argpartition(apart, k - 1, axis=1)[:, :k]]


def in_blocks(kernel: LossKernel) -> Iterator[Block]:
    """Yield a loss kernel's "coupling" (of two chains or more), "abs_r" and "r" in blocks of rows."""
    for block in kernel.blocks():
        yield block, _named(kernel.correlation(block), kernel.coupling(block) if kernel.chains >= 2 else None)


def whole(matrices: Matrices) -> list[Block]:
    """Return the same of a kernel or a resample of it as one block, through its whole matrices [N, N]."""
    correlation = matrices.correlation()
    return [(slice(0, len(correlation)), _named(correlation, matrices.coupling() if matrices.chains >= 2 else None))]


def _named(correlation: np.ndarray, coupling: np.ndarray | None) -> dict[str, np.ndarray]:
    named = {} if coupling is None else {"coupling": coupling}
    return named | {"abs_r": np.abs(correlation), "r": correlation}


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
        numbers = self._ranks(similarity)
        for level, groups in zip(self.classes.levels, self._probe_groups, strict=True):
            numbers[f"knn {level.name}"] = (groups[similarity.nearest] == groups[:, None]).mean()
        if np.ptp(rank_tests.upper(similarity.means)) > 0:
            numbers |= self._class_tree(similarity.means)
        if similarity.linkage is not None:
            clusters = tree_comparison.cuts(similarity.linkage, [len(self.classes.ids)])[:, 0]
            parents = tree_comparison.parents_of(similarity.linkage)
            numbers |= _recovered("class", self.classes.leaf, clusters, parents)
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
        numbers: dict[str, float] = {}
        for over, alike, apart in (("classes", means, classes), ("images", similarity.pairs, images)):
            numbers[f"spearman_{over}"] = rank_tests.spearman(alike, apart)
            numbers[f"kendall_{over}"] = rank_tests.kendall(alike, apart)
        if self.given is not None:
            numbers["partial"] = rank_tests.partial(means, classes, rank_tests.upper(self.given))
        return numbers

    def _class_tree(self, means: np.ndarray) -> dict[str, float]:
        from scipy.cluster.hierarchy import cophenet

        tree = tree_comparison.average_linkage(means)  # [G - 1, 4]
        heights = np.asarray(cophenet(tree))  # [pairs], at which every two classes meet
        numbers = {"cophenetic": tree_comparison.pearson(heights, self._known[0])}
        numbers["tree_fit"] = tree_comparison.pearson(heights, -rank_tests.upper(means))
        levels = self.classes.levels[1:]
        # Cut into as many clusters as the level has groups, so that neither number rewards a finer partition.
        partitions = tree_comparison.cuts(tree, [level.size for level in levels])
        for level, clusters in zip(levels, partitions.T, strict=True):
            numbers |= _recovered(level.name, level.groups, clusters, tree_comparison.parents_of(tree))
        return numbers


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
        scored = values(scorer, reader.read(whole(part)))
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
        parts = [reader.means(in_blocks(kernel.only(chains))) for chains in (first, second)]
        for name in parts[0]:
            left, right = (rank_tests.upper(part[name]) for part in parts)
            # `spearman` compares a similarity with a distance; here both are similarities.
            correlations.setdefault(name, []).append(rank_tests.spearman(left, -right))
    growth = kernel.chains / half  # 2, or more where an odd chain is left out
    means = {name: float(np.mean(halves)) for name, halves in correlations.items()}
    return {name: rank_tests.full_length(mean, growth) for name, mean in means.items() if np.isfinite(mean)}
