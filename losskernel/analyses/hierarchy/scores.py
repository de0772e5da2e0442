"""Scores of every kernel against the taxonomy: values, errors over chains, permutation tests, draws it would take."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice

import numpy as np

from losskernel.analyses import rank_tests as agreement
from losskernel.analyses import tree_comparison as clustering
from losskernel.analyses.hierarchy.similarities import Reader, View
from losskernel.analyses.taxonomy_classes import Classes, Pairs, over_relations
from losskernel.kernel.error_bars import Matrices, bootstrap
from losskernel.kernel.loss_kernel import LossKernel


@dataclass(frozen=True, eq=False)
class Judge:
    """Compares views of the same probes with the taxonomy; numbers that are undefined are left out.

    Attributes:
        classes: of the probes.
        distance: of every two classes in the taxonomy, [G, G].
        pairs: of probes that the views hold.
        given: similarity of every two classes under the features to control for, [G, G], or None.
    """

    classes: Classes
    distance: np.ndarray
    pairs: Pairs
    given: np.ndarray | None = None

    def __call__(self, view: View) -> dict[str, float]:
        """Return rank correlations, the class tree's fidelity, and per level what neighbours and clusters recover.

        Numbers of a level are called `knn class`, `ami depth 2` and so on.
        """
        numbers = self._ranks(view) | self._neighbours(view)
        if np.ptp(agreement.upper(view.means)) > 0:
            numbers |= self._class_tree(view.means)
        if view.linkage is not None:
            numbers |= self._probe_tree(view.linkage)
        return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}

    def relations(self, view: View) -> np.ndarray:
        """Return the mean similarity of pairs of probes of each relation, [L]."""
        return over_relations(view.means, self.classes.weights, self.classes.kinship)

    def chance(self) -> np.ndarray:
        """Return the k-NN precision of random neighbours at each level, [levels]."""
        return np.array([(self._sharing(groups) / (len(groups) - 1)).mean() for groups in self._probe_groups])

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of pairs of classes and of the chosen pairs of probes."""
        leaf = self.classes.leaf
        return agreement.upper(self.distance), self.distance[leaf[self.pairs.first], leaf[self.pairs.second]]

    @cached_property
    def _probe_groups(self) -> list[np.ndarray]:
        return [level.groups[self.classes.leaf] for level in self.classes.levels]

    def _ranks(self, view: View) -> dict[str, float]:
        means, (classes, images) = agreement.upper(view.means), self._known
        numbers = {
            "spearman_classes": agreement.spearman(means, classes),
            "kendall_classes": agreement.kendall(means, classes),
            "spearman_images": agreement.spearman(view.pairs, images),
            "kendall_images": agreement.kendall(view.pairs, images),
        }
        if self.given is not None:
            numbers["partial"] = agreement.partial(means, classes, agreement.upper(self.given))
        return numbers

    def _neighbours(self, view: View) -> dict[str, float]:
        return {
            f"knn {level.name}": (groups[view.nearest] == groups[:, None]).mean()
            for level, groups in zip(self.classes.levels, self._probe_groups, strict=True)
        }

    def _class_tree(self, means: np.ndarray) -> dict[str, float]:
        tree = clustering.average_linkage(means)
        heights = clustering.cophenetic_distances(tree)
        numbers = {
            "cophenetic": clustering.pearson(heights, self._known[0]),
            "tree_fit": clustering.pearson(heights, -agreement.upper(means)),
        }
        levels = self.classes.levels[1:]
        found = clustering.cuts(tree, [level.groups.max() + 1 for level in levels])
        for level, clusters in zip(levels, found.T, strict=True):
            numbers |= _recovered(level.name, level.groups, clusters, clustering.parents_of(tree))
        return numbers

    def _probe_tree(self, linkage: np.ndarray) -> dict[str, float]:
        leaf = self.classes.leaf
        clusters = clustering.cuts(linkage, [len(self.classes.ids)])[:, 0]
        return _recovered("class", leaf, clusters, clustering.parents_of(linkage))

    def _sharing(self, groups: np.ndarray) -> np.ndarray:
        """Return the number of other probes in each probe's group, [N]."""
        return np.bincount(groups)[groups] - 1


def _recovered(name: str, groups: np.ndarray, clusters: np.ndarray, parents: np.ndarray) -> dict[str, float]:
    found = clustering.recovery(groups, clusters)._asdict()
    purity = clustering.dendrogram_purity(parents, groups)
    return {f"{key} {name}": value for key, value in found.items()} | {f"dendrogram_purity {name}": purity}


# Name of a number -> its value; with the endings of the bootstrap its error and interval.
Score = dict[str, float]

# Ways to part the chains in halves; more would hardly tell more, for they share chains.
_SPLITS = 3


def values(judge: Judge, views: Mapping[str, View]) -> dict[str, Score]:
    """Return each view's numbers, with the mean of each relation as `relation 0` (the same class) and so on."""
    found: dict[str, Score] = {}
    for name, view in views.items():
        means = judge.relations(view)
        relations = {f"relation {number}": float(mean) for number, mean in enumerate(means) if np.isfinite(mean)}
        found[name] = judge(view) | relations
    return found


def with_errors(kernel: LossKernel, reader: Reader, judge: Judge) -> dict[str, Score]:
    """Return the numbers of a loss kernel's views with errors over its chains; it holds matrices [N, N]."""

    def statistic(part: Matrices) -> Score:
        found = values(judge, reader.of_matrices(part))
        return {f"{view}|{name}": value for view, score in found.items() for name, value in score.items()}

    result: dict[str, Score] = {}
    for key, value in bootstrap(kernel, statistic).items():
        view, name = key.split("|", 1)
        result.setdefault(view, {})[name] = value
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
    view: View, distance: np.ndarray, given: np.ndarray | None, permutations: int, seed: int
) -> dict[str, agreement.Permuted]:
    """Test a view's class means against the distances [G, G] of a taxonomy: what is undefined is left out.

    Args:
        view: of one kernel.
        distance: in the taxonomy.
        given: similarity of every two classes under the features [G, G], or None.
        permutations: of the classes.
        seed: fixes them.

    Returns:
        spearman_classes (Mantel), partial (the kernel given the features), reverse (the features given the kernel).
    """
    found = {"spearman_classes": agreement.mantel(view.means, distance, permutations, seed)}
    if given is not None:
        found["partial"] = agreement.partial_mantel(view.means, distance, given, permutations, seed)
        found["reverse"] = agreement.partial_mantel(given, distance, view.means, permutations, seed)
    return {name: test for name, test in found.items() if np.isfinite(test.correlation)}


def reliability(kernel: LossKernel, reader: Reader) -> dict[str, float]:
    """Return view -> reliability of its class means, from disjoint halves of the chains, for as many as have it.

    The rank correlation of the halves is brought to the length of all chains. A coupling needs two chains in each
    half. Its noise, and that of |R|, falls faster than as 1 / draws where it drowns the signal: their reliability is
    then higher than this, and fewer draws do than it makes believe.

    Source: Spearman 1910; Brown 1910.
    """
    half = kernel.chains // 2
    if half < 1:
        return {}
    found: dict[str, list[float]] = {}
    for first in islice(combinations(range(kernel.chains), half), _SPLITS):
        second = [chain for chain in range(kernel.chains) if chain not in first][:half]
        parts = [reader.means_of_kernel(kernel.only(chains)) for chains in (first, second)]
        for name in parts[0]:
            own, other = (agreement.upper(part[name]) for part in parts)
            found.setdefault(name, []).append(agreement.spearman(own, -other))
    growth = kernel.chains / half
    means = {name: float(np.mean(halves)) for name, halves in found.items()}
    return {name: agreement.full_length(mean, growth) for name, mean in means.items() if np.isfinite(mean)}
