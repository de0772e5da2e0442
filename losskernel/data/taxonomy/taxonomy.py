"""A rooted is-a graph: every class and what it is a kind of; and rooted trees over some classes, as arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import numpy as np

from losskernel.data.taxonomy import similarity as measures
from losskernel.data.taxonomy.similarity import ancestry
from losskernel.errors import InputError, require, require_integer


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
        return {node: frozenset(order[first[node] : last[node]].tolist()) for node in range(self.leaves, self.root)}

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


class Taxonomy:
    """Classes under more general classes; a node may have several parents, and a class may itself be above another.

    Args:
        parents: parents of every node; none for a root.
        names: display names; a node without one shows its identifier.
        max_depth: edges from a root to the deepest node, for Leacock and Chodorow's measure, where the nodes given
            are only part of a deeper taxonomy; by default of those given.

    Attributes:
        parents: nodes directly above every node.
        min_depth: edges of the shortest path from a root down to every node.
        max_depth: of the longest.

    Raises:
        InputError: no nodes, a parent or a name of an unknown node, a cycle, or a max_depth below that of the nodes.
    """

    def __init__(
        self,
        parents: Mapping[str, Sequence[str]],
        names: Mapping[str, str] | None = None,
        max_depth: int | None = None,
    ) -> None:
        require(len(parents) > 0, "taxonomy.parents must hold at least one node, got none; add a root")
        for node, above in parents.items():
            require(not isinstance(above, str), f"taxonomy.parents[{node!r}] must be a list, got the text {above!r}")
            unknown = [parent for parent in above if parent not in parents]
            require(not unknown, f"taxonomy.parents[{node!r}] names {unknown[:1]}, which is no node; add it")
        unknown = [node for node in names or {} if node not in parents]
        require(not unknown, f"taxonomy.names holds {unknown[:1]}, which is no node; drop it")
        # Listed twice, a parent still counts once.
        self.parents = {node: tuple(dict.fromkeys(above)) for node, above in parents.items()}
        self._names = dict(names or {})
        self.min_depth, self.max_depth = _depths(self.parents)
        deepest = max(self.max_depth.values())
        if max_depth is not None:
            require_integer("taxonomy.max_depth", max_depth, at_least=deepest, why="(depth of its deepest node)")
        self._depth = deepest if max_depth is None else max_depth

    @property
    def roots(self) -> list[str]:
        """Nodes without parents."""
        return [node for node, above in self.parents.items() if not above]

    def name(self, node: str) -> str:
        """Return the display name of a node."""
        return self._names.get(self._known(node), node)

    def similarity(
        self, leaves: Sequence[str], measure: str = "path", counts: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Return how alike every two leaves are, [G, G], as NLTK defines it; larger = more alike.

        Args:
            leaves: nodes, [G].
            measure: one of MEASURES: path and wu_palmer in (0, 1], leacock_chodorow and resnik in nats, lca_depth in
                edges, lin in [0, 1]; formulas and sources are in `losskernel.data.taxonomy.similarity`.
            counts: how often each leaf occurs, [G], for resnik and lin; once by default.

        Raises:
            InputError: no leaves, unknown or repeated ones, or what `measures.similarity` refuses.
        """
        self._check(leaves)
        table = ancestry(self.parents, self.min_depth, self.max_depth, leaves)
        apart = np.argwhere(table.highest(table.min_depth) < 0)
        if len(apart):
            first, second = (leaves[number] for number in apart[0])
            raise InputError(f"leaves {first!r} and {second!r} have no common ancestor; put one root above both")
        return measures.similarity(table, measure, self._depth, counts)

    def distance(
        self, leaves: Sequence[str], measure: str = "path", counts: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Return how far apart every two leaves are, [G, G], >= 0, symmetric, 0 on the diagonal.

        path: edges. wu_palmer, lin: 1 - similarity. leacock_chodorow, lca_depth, resnik: the largest similarity of
        any of the leaves with itself minus the similarity. Arguments and errors as of `similarity`.
        """
        return measures.distance(self.similarity(leaves, measure, counts), measure)

    def tree(self, leaves: Sequence[str]) -> Tree:
        """Return the tree over the leaves.

        Each node keeps the one of its parents that is deepest by its longest path from a root, hence most specific
        (of ties the first listed). Nodes at which no two leaves branch are left out; the root is where the first two
        branch. A leaf above another leaf occurs twice: as an inner node, and as a leaf right below it.

        Raises:
            InputError: fewer than two leaves, unknown or repeated ones, or leaves without a common root.
        """
        self._check(leaves)
        require(len(leaves) >= 2, f"a tree needs at least 2 leaves, got {len(leaves)}; add one")
        deepest = self.max_depth.__getitem__
        return _contracted(leaves, lambda node: max(self.parents[node], key=deepest, default=None), self.name)

    def _known(self, node: str) -> str:
        example = next(iter(self.parents))
        require(node in self.parents, f"the taxonomy has no node {node!r}; nodes are such as {example!r}")
        return node

    def _check(self, leaves: Sequence[str]) -> None:
        require(len(leaves) > 0, "leaves must not be empty; name at least one node of the taxonomy")
        seen: set[str] = set()
        for leaf in leaves:
            require(self._known(leaf) not in seen, f"leaves must differ, got {leaf!r} twice; drop one")
            seen.add(leaf)


def _depths(parents: Mapping[str, Sequence[str]]) -> tuple[dict[str, int], dict[str, int]]:
    try:
        order = list(TopologicalSorter(parents).static_order())  # parents before children
    except CycleError as error:
        cycle = " -> ".join(map(str, error.args[1]))
        raise InputError(f"taxonomy.parents must have no cycle, got {cycle}; drop one of these links") from error
    shortest: dict[str, int] = {}
    longest: dict[str, int] = {}
    for node in order:
        above = parents[node]
        shortest[node] = 1 + min((shortest[parent] for parent in above), default=-1)
        longest[node] = 1 + max((longest[parent] for parent in above), default=-1)
    return shortest, longest


def _contracted(leaves: Sequence[str], parent: Callable[[str], str | None], name: Callable[[str], str]) -> Tree:
    """Return the tree over the leaves; inner nodes are those at which two of them branch.

    Args:
        leaves: nodes, [G]. A leaf above another one is also an inner node: as a leaf it is below itself, by the same
            id.
        parent: of a node in a tree or, for a root, None.
        name: of a node, for display.

    Raises:
        InputError: leaves under different roots.
    """
    chains = {leaf: _upwards(leaf, parent) for leaf in leaves}
    roots = {chain[-1]: leaf for leaf, chain in reversed(chains.items())}
    pair = " and ".join(f"{leaf!r} (under {root!r})" for root, leaf in list(roots.items())[-1:-3:-1])
    require(len(roots) == 1, f"leaves {pair} have no common root; put one above both")
    # What is below a node: its children on the way to leaves, and None for the leaf that it is itself.
    branches: dict[str, set[str | None]] = {leaf: {None} for leaf in leaves}
    depth: dict[str, int] = {}
    for chain in chains.values():
        for below, above in pairwise(chain):
            branches.setdefault(above, set()).add(below)
        depth |= {node: len(chain) - step for step, node in enumerate(chain)}
    inner = [node for node, below in branches.items() if len(below) > 1]
    inner.sort(key=lambda node: -depth[node])  # children before parents, as Tree wants them
    number = {node: len(leaves) + row for row, node in enumerate(inner)}
    parents = [
        *(_nearest(chains[leaf], number) for leaf in leaves),
        *(_nearest(_upwards(node, parent)[1:], number) for node in inner),
    ]
    ids = (*leaves, *inner)
    return Tree(ids, tuple(map(name, ids)), np.array(parents))


def _upwards(node: str, parent: Callable[[str], str | None]) -> list[str]:
    """Return a node and all above it, up to the root."""
    chain = [node]
    while (above := parent(chain[-1])) is not None:
        chain.append(above)
    return chain


def _nearest(chain: list[str], number: dict[str, int]) -> int:
    """Return the number of the first inner node of a chain; -1 above the root."""
    return next((number[node] for node in chain if node in number), -1)
