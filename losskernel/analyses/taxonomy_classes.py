"""Probes as members of the leaves of a known tree: who is related to whom, and how closely."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from losskernel.data.taxonomy import Taxonomy, Tree, read_taxonomy, wordnet
from losskernel.errors import require


class Level(NamedTuple):
    """The classes in groups.

    Attributes:
        name: "class", each class by itself, or "depth d", by the ancestor that many branchings below the root.
        groups: number of each class' group, [G].
    """

    name: str
    groups: np.ndarray

    @property
    def size(self) -> int:
        """Number of the groups."""
        return int(self.groups.max() + 1)


class Pairs(NamedTuple):
    """Pairs of probes of different classes, the first ones ascending."""

    first: np.ndarray  # [P] int
    second: np.ndarray  # [P] int


@dataclass(frozen=True, eq=False)
class Classes:
    """The leaves of a known tree, and the leaf of every probe.

    Attributes:
        taxonomy: where the tree was taken from.
        tree: the tree over the leaves.
        ids: of the leaves, [G].
        leaf: number of each probe's leaf, [N].
    """

    taxonomy: Taxonomy
    tree: Tree
    ids: tuple[str, ...]
    leaf: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, taxonomy: str) -> "Classes":
        """Look up the probes' labels [N] in WordNet ("wordnet") or in a file that holds a taxonomy.

        Raises:
            InputError: fewer than three classes, a class that the taxonomy does not know, or no such file.
        """
        ids, leaf = np.unique(np.asarray(labels).astype(str), return_inverse=True)
        require(len(ids) >= 3, f"a hierarchy needs probes of >= 3 classes, got {len(ids)}; choose another label")
        names = tuple(map(str, ids))
        known = wordnet(names) if taxonomy == "wordnet" else read_taxonomy(taxonomy)
        return cls(known, known.tree(names), names, leaf)

    @property
    def names(self) -> list[str]:
        """Names of the leaves to display, [G]."""
        return [self.taxonomy.name(identity) for identity in self.ids]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Probes of each class, [G]."""
        return np.bincount(self.leaf, minlength=len(self.ids))

    @cached_property
    def weights(self) -> np.ndarray:
        """Ordered pairs of different probes of every two classes, [G, G]."""
        return np.outer(self.sizes, self.sizes) - np.diag(self.sizes)

    def distance(self, measure: str) -> np.ndarray:
        """Return the distance of every two classes in the taxonomy, [G, G]; probes count for information content."""
        return self.taxonomy.distance(self.ids, measure, self.sizes)

    @cached_property
    def kinship(self) -> np.ndarray:
        """Number of the relation of every two classes, [G, G]: 0 the same class, then ever farther."""
        depth = self.tree.lca_depth()  # [G, G]
        farthest = depth.max(where=~np.eye(len(depth), dtype=bool), initial=0)
        return np.where(np.eye(len(depth), dtype=bool), 0, 1 + farthest - depth)

    @cached_property
    def relations(self) -> list[str]:
        """Names of the relations, [L], by the depth of the lowest common ancestor, the root being depth 0."""
        return ["same class", *(f"depth {depth}" for depth in range(self.kinship.max() - 1, -1, -1))]

    @cached_property
    def levels(self) -> list[Level]:
        """The classes themselves, then their groups from the deepest to those right below the root."""
        deepest = self.kinship.max() - 1  # depth of the lowest common ancestor of two classes
        classes = Level("class", np.arange(len(self.ids)))
        groups = {depth: np.unique(self.tree.groups(depth), return_inverse=True)[1] for depth in range(deepest, 0, -1)}
        return [classes, *(Level(f"depth {depth}", numbers) for depth, numbers in groups.items())]

    @property
    def middle(self) -> Level:
        """The level whose number of groups is nearest to √G by ratio; above the classes, unless there is none."""
        aim = np.log(len(self.ids)) / 2  # log √G
        return min(self.levels[1:] or self.levels, key=lambda level: abs(np.log(level.size) - aim))

    def at(self, probes: np.ndarray) -> "Classes":
        """Return the same tree with some of the probes."""
        return Classes(self.taxonomy, self.tree, self.ids, self.leaf[probes])

    def evenly(self, limit: int) -> np.ndarray:
        """Return numbers of about `limit` probes, ascending: evenly spaced within each class, two of each at least."""
        share = max(2, limit // len(self.ids))  # probes of each class
        chosen: list[np.ndarray] = []
        for number, size in enumerate(self.sizes):
            members = np.flatnonzero(self.leaf == number)
            chosen.append(members[np.linspace(0, size - 1, min(share, size)).astype(int)])
        return np.sort(np.concatenate(chosen))

    def pairs(self, limit: int, seed: int = 0) -> Pairs:
        """Return all pairs of probes of different classes, or about `limit` of them drawn at random."""
        count = len(self.leaf)
        rng = np.random.default_rng(seed)
        if count * (count - 1) // 2 <= 2 * limit:
            first, second = np.triu_indices(count, 1)
        else:
            first, second = np.sort(rng.integers(count, size=(2, 3 * limit)), axis=0)
        # A pair as one whole number: `unique` then drops what was drawn twice, and sorts by the first probe.
        apart = self.leaf[first] != self.leaf[second]
        codes = np.unique(first[apart].astype(np.int64) * count + second[apart])
        if len(codes) > limit:
            codes = np.sort(rng.choice(codes, limit, replace=False))
        return Pairs(*np.divmod(codes, count))


@dataclass(frozen=True)
class TaxonomyAnalysis:
    """What analyses share that compare a kernel with a known taxonomy of the probes' classes.

    Attributes:
        label: names each probe's class as the taxonomy does.
        taxonomy: "wordnet", or the path of a file that holds a tree.
    """

    label: str = "wnid"
    taxonomy: str = "wordnet"

    def check(self, labels: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where the taxonomy does not know the probes' classes."""
        self.classes(labels[self.label])

    def classes(self, labels: np.ndarray) -> Classes:
        """Return the probes' classes from their labels [N]."""
        return Classes.of(labels, self.taxonomy)


def over_relations(means: np.ndarray, weights: np.ndarray, kinship: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of probes of each relation, [L], from means and counts over classes [G, G].

    NaN where no pair of probes is so related.
    """
    present = weights > 0  # [G, G]
    counts = np.bincount(kinship[present], weights[present], minlength=kinship.max() + 1)  # [L]
    sums = np.bincount(kinship[present], (means * weights)[present], minlength=kinship.max() + 1)  # [L]
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
