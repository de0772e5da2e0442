"""A rooted tree over G leaves, as arrays: parents, heights, and the support of its branches."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from losskernel.errors import require, require_integer


@dataclass(frozen=True, eq=False)
class Tree:
    """A rooted tree whose nodes 0 to G - 1 are the leaves; every node comes before its parent, so the root is last.

    Attributes:
        ids: identifiers, [M].
        names: display names, [M].
        parents: number of each node's parent, -1 for the root, [M].
        heights: for drawing, 0 at leaves and never lower than a child's, [M]; without it, the levels above the
            deepest leaf below.
        support: share of resamples that hold the branch, NaN where unknown, [M]; without it, all unknown.

    Raises:
        InputError: shapes that do not fit, a node that comes after its parent, a leaf numbered after an inner
            node, more than one root, or heights that fall towards the root.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: np.ndarray
    heights: np.ndarray = field(default_factory=lambda: np.empty(0))
    support: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        parents = np.asarray(self.parents)
        count = len(parents)
        require(parents.ndim == 1 and count >= 1, f"tree.parents must be [M], not empty, got {parents.shape}")
        require(np.issubdtype(parents.dtype, np.integer), f"tree.parents must be integers, got {parents.dtype}")
        for key, values in (("ids", self.ids), ("names", self.names)):
            require(len(values) == count, f"tree.{key} must have one entry per node ({count}), got {len(values)}")
        _check_shape(parents)
        heights = self.heights if np.size(self.heights) else _levels(parents)
        support = self.support if np.size(self.support) else np.full(count, np.nan)
        for key, values in (("heights", heights), ("support", support)):
            shape = np.shape(values)
            require(shape == (count,), f"tree.{key} must have one number per node ({count}), got shape {shape}")
        heights = np.asarray(heights, dtype=float)
        require(bool(np.isfinite(heights).all()), "tree.heights must be finite; drop NaN and infinity")
        below = np.flatnonzero(heights[:-1] > heights[parents[:-1]])
        require(
            not len(below),
            f"tree.heights must not fall towards the root: node {below[0] if len(below) else ''} is above its parent; "
            "use a linkage without inversions, such as average",
        )
        # A frozen dataclass is filled once, here.
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "parents", parents)
        object.__setattr__(self, "heights", heights)
        object.__setattr__(self, "support", np.asarray(support, dtype=float))

    @property
    def leaves(self) -> int:
        """G."""
        return len(self.parents) - len(np.unique(self.parents[:-1]))

    @property
    def root(self) -> int:
        """Number of the root."""
        return len(self.parents) - 1

    def children(self, node: int) -> list[int]:
        """Return a node's children, in the order in which they are drawn."""
        return list(self._children[node])

    def depths(self) -> np.ndarray:
        """Return the edges between the root and every node, [M]."""
        depths = np.zeros(len(self.parents), dtype=int)  # parents come after children, so from the root down
        for node in range(self.root - 1, -1, -1):
            depths[node] = depths[self.parents[node]] + 1
        return depths

    def lca(self) -> np.ndarray:
        """Return the lowest common ancestor of every two leaves, [G, G]; of a leaf with itself, the leaf."""
        order, first, last = self._spans
        common = np.full((self.leaves, self.leaves), self.root)
        # Leaves below a node are neighbours in the order; from the root down, so that lower nodes overwrite higher.
        for node in range(self.root - 1, -1, -1):
            common[first[node] : last[node], first[node] : last[node]] = node
        result = np.empty_like(common)
        result[np.ix_(order, order)] = common
        return result

    def lca_depth(self) -> np.ndarray:
        """Return the depth of the lowest common ancestor of every two leaves, [G, G]."""
        return self.depths()[self.lca()]

    def groups(self, level: int) -> np.ndarray:
        """Return each leaf's ancestor [G] at a depth; the leaf itself where it is not as deep.

        Raises:
            InputError: a negative level.
        """
        require_integer("level", level, at_least=0)
        depths = self.depths()
        nodes = np.arange(self.leaves)  # climbs one level at a time
        while (deeper := depths[nodes] > level).any():
            nodes = np.where(deeper, self.parents[nodes], nodes)
        return nodes

    def clades(self) -> dict[int, frozenset[int]]:
        """Return the leaves below every inner node but the root."""
        order, first, last = self._spans
        inner = range(self.leaves, self.root)
        return {node: frozenset(order[first[node] : last[node]].tolist()) for node in inner}

    def order(self) -> np.ndarray:
        """Return the leaves [G] depth first, so that neighbours in the tree are neighbours in the order.

        Branches of a node come by the mean number of their leaves: leaves numbered along a known order stay near it.
        """
        return self._spans[0].copy()

    def positions(self) -> np.ndarray:
        """Return a position for each leaf in [0, 1], [G], along `order`.

        The gap between two neighbours is proportional to the height of their common ancestor.
        """
        order = self.order()
        if len(order) == 1:
            return np.zeros(1)
        gaps = self.heights[self.lca()[order[:-1], order[1:]]]  # [G - 1]
        if gaps.sum() == 0:
            gaps = np.ones(len(gaps))
        positions = np.empty(len(order))
        positions[order] = np.concatenate([[0.0], np.cumsum(gaps) / gaps.sum()])
        positions[order[-1]] = 1.0  # the sum of many gaps rounds
        return np.minimum(positions, 1.0)

    @classmethod
    def from_linkage(cls, linkage: np.ndarray, ids: Sequence[str], names: Sequence[str]) -> "Tree":
        """Turn scipy's linkage [G - 1, 4] into a tree; heights are the distances of the merges.

        Args:
            linkage: of scipy.cluster.hierarchy.
            ids: of the leaves, [G]; inner nodes have none.
            names: of the leaves, [G]; inner nodes have none.

        Raises:
            InputError: no linkage of as many leaves, or one with inversions.
        """
        linkage = np.asarray(linkage, dtype=float)
        merges = len(ids) - 1
        fits = linkage.shape == (merges, 4) and np.array_equal(
            np.sort(linkage[:, :2], axis=None), np.arange(2 * merges)
        )
        require(fits, f"linkage must be scipy's [G - 1, 4] for the {len(ids)} leaves, got shape {linkage.shape}")
        parents = np.full(2 * merges + 1, -1)
        # The k-th merge is node G + k.
        for merge, pair in enumerate(linkage[:, :2].astype(int)):
            parents[pair] = len(ids) + merge
        blank = ("",) * merges
        heights = np.concatenate([np.zeros(len(ids)), linkage[:, 2]])
        return cls((*ids, *blank), (*names, *blank), parents, heights)

    def with_support(self, support: np.ndarray) -> "Tree":
        """Return the same tree with the support [M] of its branches."""
        return replace(self, support=support)

    @cached_property
    def _sizes(self) -> np.ndarray:
        """Leaves at or below every node, [M]."""
        return self._summed(np.ones(self.leaves, dtype=int))

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over the leaves at or below every node, [M], of values of the leaves [G]."""
        sums = np.zeros(len(self.parents), dtype=values.dtype)
        sums[: self.leaves] = values
        for node in range(self.root):  # children come before parents
            sums[self.parents[node]] += sums[node]
        return sums

    @cached_property
    def _children(self) -> list[list[int]]:
        """Children of every node, in the order of the mean number of their leaves."""
        means = self._summed(np.arange(self.leaves)) / self._sizes
        children: list[list[int]] = [[] for _ in self.parents]
        for node in range(self.root):
            children[self.parents[node]].append(node)
        return [sorted(nodes, key=lambda node: (means[node], node)) for nodes in children]

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Leaves depth first [G], and the range of them below every node: from [M], up to [M]."""
        first = np.zeros(len(self.parents), dtype=int)
        for node in range(self.root, self.leaves - 1, -1):
            # From the root down, a node's range is divided among its children.
            starts = first[node] + np.cumsum([0, *self._sizes[self._children[node]]])
            first[self._children[node]] = starts[:-1]
        order = np.empty(self.leaves, dtype=int)
        order[first[: self.leaves]] = np.arange(self.leaves)
        return order, first, first + self._sizes


def _check_shape(parents: np.ndarray) -> None:
    numbers = np.arange(len(parents))
    require(
        parents[-1] == -1 and bool((parents[:-1] > numbers[:-1]).all()) and int(parents.max()) < len(parents),
        "tree.parents must name a later node for every node but the last, which is the root (-1)",
    )
    inner = np.unique(parents[:-1])
    leaves = len(parents) - len(inner)
    require(
        bool((inner >= leaves).all()),
        f"tree.parents must number the {leaves} leaves first, but node {inner[0] if len(inner) else ''} has children",
    )


def _levels(parents: np.ndarray) -> np.ndarray:
    """Edges above the deepest leaf below, [M]."""
    levels = np.zeros(len(parents))
    for node, parent in enumerate(parents[:-1]):
        levels[parent] = max(levels[parent], levels[node] + 1)
    return levels
