"""Similarities of classes in a taxonomy: the measures of NLTK, for all pairs at once.

Every measure takes the table of ancestors and returns similarities [G, G], larger = more alike, equal to NLTK's for
synsets. NLTK searches the graph pair by pair (minutes for 1,000 synsets); a table of distances up to ancestors gives
all pairs without a search. A node is an ancestor of itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from losskernel.errors import require

_Node = TypeVar("_Node")


class Ancestry(NamedTuple):
    """The leaves and all nodes above them.

    Attributes:
        leaves: number of each leaf among the A nodes, [G].
        up: edges of the shortest path up from the node of the row to that of the column, [A, A]; inf where none leads.
        min_depth: edges of the shortest path down from a root, [A].
        max_depth: edges of the longest path down from a root, [A].
    """

    leaves: np.ndarray
    up: np.ndarray
    min_depth: np.ndarray
    max_depth: np.ndarray

    def shortest(self, columns: np.ndarray) -> np.ndarray:
        """Return the edges [G, n] of the shortest path from each leaf up to a common ancestor and down to a node [n].

        A path that goes down before it goes up does not count: short cuts through a common descendant say nothing
        about the meaning of the two.
        """
        edges = np.full((len(self.leaves), len(columns)), np.inf)
        from_leaf, from_column = self.up[self.leaves], self.up[columns]  # [G, A], [n, A]
        for ancestor in range(len(self.up)):
            # Most pairs do not share an ancestor, so only the block of those below it is updated.
            block = np.ix_(np.isfinite(from_leaf[:, ancestor]), np.isfinite(from_column[:, ancestor]))
            via = from_leaf[block[0][:, 0], ancestor][:, None] + from_column[block[1][0], ancestor]
            edges[block] = np.minimum(edges[block], via)
        return edges

    def highest(self, values: np.ndarray) -> np.ndarray:
        """Return the common ancestor [G, G] with the largest of `values` [A]; of ties, the one numbered first.

        A node is an ancestor of itself. -1 where two leaves have no common ancestor.
        """
        best = np.full((len(self.leaves), len(self.leaves)), -1)
        below = np.isfinite(self.up[self.leaves])  # [G, A]
        # In rising order, so that what is written last is the highest; of ties the lowest number comes last.
        for ancestor in np.lexsort((-np.arange(len(values)), values)):
            members = np.flatnonzero(below[:, ancestor])
            best[np.ix_(members, members)] = ancestor
        return best


class Setting(NamedTuple):
    """What a measure may read: ancestors, the depth of the whole taxonomy, and how often each leaf occurs [G]."""

    ancestry: Ancestry
    depth: int
    counts: np.ndarray


def path(setting: Setting) -> np.ndarray:
    """1 / (edges + 1), along the shortest path through a common ancestor; in (0, 1]. Source: Rada et al. 1989."""
    return 1 / (1 + _edges(setting))


def wu_palmer(setting: Setting) -> np.ndarray:
    """2 d / (a + b + 2 d), in (0, 1]: d the nodes from the root to the subsumer, a and b the edges from it to the two.

    The subsumer is the common ancestor whose shortest path to the root is longest; of ties the first of the two
    itself, else the one listed first in the taxonomy. Its d counts the longest path to the root. Where a node has
    several parents, these rules of NLTK's may make (a, b) differ from (b, a), and (a, a) fall below 1.

    Source: Wu and Palmer 1994.
    """
    table = setting.ancestry
    leaf_depth = table.min_depth[table.leaves][:, None]
    subsumer = table.highest(table.min_depth)  # [G, G]
    is_above = np.isfinite(table.up[np.ix_(table.leaves, table.leaves)]).T
    subsumer = np.where(is_above & (leaf_depth == table.min_depth[subsumer]), table.leaves[:, None], subsumer)
    # Paths to the few distinct subsumers, and from these the entries of all pairs.
    columns, inverse = np.unique(subsumer, return_inverse=True)
    inverse = inverse.reshape(subsumer.shape)
    down = table.shortest(columns)
    first = np.take_along_axis(down, inverse, axis=1)
    second = np.take_along_axis(down, inverse.T, axis=1).T
    nodes = table.max_depth[subsumer] + 1
    return 2 * nodes / (first + second + 2 * nodes)


def leacock_chodorow(setting: Setting) -> np.ndarray:
    """-log((edges + 1) / 2 D), D the most edges from a root down to any node of the taxonomy; nats.

    Source: Leacock and Chodorow 1998.
    """
    require(
        setting.depth >= 1,
        "measure 'leacock_chodorow' needs a taxonomy with max_depth >= 1, got 0; give leaves parents",
    )
    return -np.log((1 + _edges(setting)) / (2 * setting.depth))


def lca_depth(setting: Setting) -> np.ndarray:
    """Largest `min_depth` of a common ancestor: edges from the root to the lowest one."""
    table = setting.ancestry
    return table.min_depth[table.highest(table.min_depth)].astype(float)


def resnik(setting: Setting) -> np.ndarray:
    """Information content of the most informative common ancestor; nats. Source: Resnik 1995."""
    content = _information(setting)
    return content[setting.ancestry.highest(content)]


def lin(setting: Setting) -> np.ndarray:
    """2 IC(common ancestor) / (IC of the one + IC of the other), in [0, 1]; 1 where neither has any information.

    Source: Lin 1998.
    """
    content = _information(setting)[setting.ancestry.leaves]
    total = content[:, None] + content
    return np.divide(2 * resnik(setting), total, out=np.ones_like(total), where=total > 0)


def _edges(setting: Setting) -> np.ndarray:
    return setting.ancestry.shortest(setting.ancestry.leaves)


def _information(setting: Setting) -> np.ndarray:
    """-log of the share of occurrences at or below each node, [A]: a leaf counts once however many paths lead down."""
    below = np.isfinite(setting.ancestry.up[setting.ancestry.leaves])  # [G, A]
    # A difference of logarithms, so that the root's is 0 and not -0.
    return np.log(setting.counts.sum()) - np.log(setting.counts @ below)


_SIMILARITIES: dict[str, Callable[[Setting], np.ndarray]] = {
    "path": path,
    "wu_palmer": wu_palmer,
    "leacock_chodorow": leacock_chodorow,
    "lca_depth": lca_depth,
    "resnik": resnik,
    "lin": lin,
}
MEASURES = tuple(_SIMILARITIES)


def similarity(ancestry: Ancestry, measure: str, depth: int, counts: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Return the similarities [G, G] of all leaves by one of MEASURES.

    Args:
        ancestry: of the leaves.
        measure: one of MEASURES.
        depth: edges from a root to the deepest node of the whole taxonomy.
        counts: how often each leaf occurs, [G], for the information content of resnik and lin; once by default.

    Raises:
        InputError: an unknown measure, counts that do not fit, or two leaves without a common ancestor.
    """
    require(measure in _SIMILARITIES, f"measure must be one of {', '.join(MEASURES)}, got {measure!r}; choose one")
    leaves = len(ancestry.leaves)
    counts = np.ones(leaves) if counts is None else np.asarray(counts, dtype=float)
    require(counts.shape == (leaves,), f"counts must be one per leaf ({leaves}), got {counts.shape}; drop the rest")
    usable = np.isfinite(counts) & (counts > 0)
    require(bool(usable.all()), f"counts must be > 0, got {counts[~usable][:1].tolist()}; leave out such leaves")
    return _SIMILARITIES[measure](Setting(ancestry, depth, counts))


def distance(similarities: np.ndarray, measure: str) -> np.ndarray:
    """Turn similarities [G, G] into distances: >= 0, symmetric, 0 between a leaf and itself.

    path: edges. wu_palmer and lin: 1 - similarity. leacock_chodorow, lca_depth and resnik: the largest similarity
    of any leaf with itself minus the similarity, so that ranks are exactly those of the measure.
    """
    # Only Wu and Palmer's rule for ties can make (a, b) differ from (b, a).
    similarities = np.maximum(similarities, similarities.T)
    if measure == "path":
        distances = np.rint(1 / similarities - 1)
    elif measure in ("wu_palmer", "lin"):
        distances = 1 - similarities
    else:
        distances = similarities.diagonal().max() - similarities
    np.fill_diagonal(distances, 0.0)
    return np.maximum(distances, 0.0)


def ancestry(
    parents: Mapping[str, Sequence[str]],
    min_depth: Mapping[str, int],
    max_depth: Mapping[str, int],
    leaves: Sequence[str],
) -> Ancestry:
    """Tabulate the leaves and all nodes above them, numbered in the order of `parents`."""
    above = with_ancestors(leaves, parents.__getitem__)
    nodes = [node for node in parents if node in above]
    number = {node: row for row, node in enumerate(nodes)}
    up = np.full((len(nodes), len(nodes)), np.inf)
    np.fill_diagonal(up, 0.0)
    # Parents first: a node's paths up are its parents' paths and one edge more.
    for node in sorted(nodes, key=lambda node: max_depth[node]):
        row = up[number[node]]
        for parent in parents[node]:
            np.minimum(row, up[number[parent]] + 1, out=row)
    return Ancestry(
        leaves=np.array([number[leaf] for leaf in leaves]),
        up=up,
        min_depth=np.array([min_depth[node] for node in nodes]),
        max_depth=np.array([max_depth[node] for node in nodes]),
    )


def with_ancestors(nodes: Iterable[_Node], parents: Callable[[_Node], Iterable[_Node]]) -> set[_Node]:
    """Return some nodes and all nodes above them."""
    seen: set[_Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(parents(node))
    return seen
