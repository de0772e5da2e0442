"""A rooted is-a graph: every class and what it is a kind of."""

from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import numpy as np

from losskernel.data.taxonomy import similarity as measures
from losskernel.data.taxonomy.similarity import ancestry
from losskernel.data.taxonomy.tree import Tree
from losskernel.errors import InputError, require, require_integer


class Taxonomy:
    """Classes under more general classes; a node may have several parents, and a class may itself be above another.

    Args:
        parents: parents of every node; none for a root.
        names: display names; a node without one shows its identifier.
        max_depth: edges from a root to the deepest node, for Leacock and Chodorow's measure, where the nodes given
            are only part of a deeper taxonomy; by default of those given.

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
        self._parents = {node: tuple(dict.fromkeys(above)) for node, above in parents.items()}
        self._names = dict(names or {})
        self._min_depth, self._max_depth = _depths(self._parents)
        deepest = max(self._max_depth.values())
        if max_depth is not None:
            require_integer("taxonomy.max_depth", max_depth, at_least=deepest, why="(depth of its deepest node)")
        self._depth = deepest if max_depth is None else max_depth

    @property
    def nodes(self) -> list[str]:
        """Identifiers, in the order given."""
        return list(self._parents)

    @property
    def roots(self) -> list[str]:
        """Nodes without parents."""
        return [node for node, above in self._parents.items() if not above]

    def name(self, node: str) -> str:
        """Return the display name of a node."""
        return self._names.get(self._known(node), node)

    def parents(self, node: str) -> tuple[str, ...]:
        """Return the nodes directly above a node."""
        return self._parents[self._known(node)]

    def min_depth(self, node: str) -> int:
        """Return the edges of the shortest path from a root down to a node."""
        return self._min_depth[self._known(node)]

    def max_depth(self, node: str) -> int:
        """Return the edges of the longest path from a root down to a node."""
        return self._max_depth[self._known(node)]

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
        table = ancestry(self._parents, self._min_depth, self._max_depth, leaves)
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
        return _contracted(leaves, self._deepest_parent, self.name)

    def _deepest_parent(self, node: str) -> str | None:
        return max(self._parents[node], key=lambda parent: self._max_depth[parent], default=None)

    def _known(self, node: str) -> str:
        example = next(iter(self._parents))
        require(node in self._parents, f"the taxonomy has no node {node!r}; nodes are such as {example!r}")
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
