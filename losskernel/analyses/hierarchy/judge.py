"""How far one similarity over probes follows the taxonomy: the numbers that every kernel is compared by."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from losskernel.analyses import rank_tests as agreement
from losskernel.analyses import tree_comparison as clustering
from losskernel.analyses.hierarchy.classes import Classes, Pairs, over_relations
from losskernel.analyses.hierarchy.similarities import View


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
