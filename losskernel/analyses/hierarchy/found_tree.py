"""A tree read off the kernel beside the known one: what of the known tree it holds, and what chance would."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from losskernel.analyses import tree_comparison as clustering
from losskernel.analyses.hierarchy.classes import Classes
from losskernel.data.taxonomy import Tree


@dataclass(frozen=True, eq=False)
class Found:
    """An average-linkage tree over classes.

    Attributes:
        classes: with their known tree.
        linkage: as scipy's, [G - 1, 4].
    """

    classes: Classes
    linkage: np.ndarray

    @classmethod
    def of(cls, classes: Classes, similarity: np.ndarray) -> "Found":
        """Build the tree of a similarity of every two classes [G, G]."""
        return cls(classes, clustering.average_linkage(similarity))

    @cached_property
    def tree(self) -> Tree:
        """The tree, whose heights are how much less alike its branches are than the most alike two classes."""
        return Tree.from_linkage(self.linkage, self.classes.ids, self.classes.names)

    @cached_property
    def clades(self) -> list[frozenset[int]]:
        """Classes below every inner node but the root, in the order of the nodes."""
        return list(self.tree.clades().values())

    @cached_property
    def overlaps(self) -> np.ndarray:
        """Jaccard index of every clade with every known one, [A, B]."""
        return clustering.overlaps(self._members, self._known)

    def numbers(self) -> dict[str, float]:
        """Return how much of the known tree the found one holds; what is undefined is left out.

        dendrogram_purity at the middle level; robinson_foulds and robinson_foulds_normalised, 1 where no clade is
        shared; clades_recovered, the share of the known clades that are found exactly, and clade_overlap, the mean
        Jaccard index of the known clades with the nearest found one.
        """
        purity = self.purity(self.classes.middle.groups)
        found = {"dendrogram_purity": purity} if np.isfinite(purity) else {}
        if len(self._known):
            apart, share = clustering.robinson_foulds(self._members, self._known)
            found |= {"robinson_foulds": float(apart), "robinson_foulds_normalised": share} | _held(self.overlaps)
        return found

    def purity(self, groups: np.ndarray) -> float:
        """Return the dendrogram purity of groups of classes, [G]."""
        return clustering.dendrogram_purity(self.tree.parents, groups)

    def by_chance(self, permutations: int, seed: int) -> dict[str, np.ndarray]:
        """Return the numbers, each [permutations], of trees of the same shape with permuted leaves."""
        rng = np.random.default_rng(seed)
        found: dict[str, list[float]] = {}
        for _ in range(permutations):
            order = rng.permutation(len(self.classes.ids))
            for name, value in self._permuted(order).numbers().items():
                found.setdefault(name, []).append(value)
        return {name: np.array(values) for name, values in found.items()}

    def _permuted(self, order: np.ndarray) -> "Found":
        linkage = self.linkage.copy()
        leaves = linkage[:, :2] < len(order)
        linkage[:, :2][leaves] = order[linkage[:, :2][leaves].astype(int)]
        return Found(self.classes, linkage)

    @cached_property
    def _members(self) -> np.ndarray:
        return clustering.members_of(self.clades, len(self.classes.ids))

    @cached_property
    def _known(self) -> np.ndarray:
        return clustering.members_of(self.classes.tree.clades().values(), len(self.classes.ids))


def _held(overlaps: np.ndarray) -> dict[str, float]:
    best = overlaps.max(0)
    return {"clades_recovered": float((best == 1).mean()), "clade_overlap": float(best.mean())}
