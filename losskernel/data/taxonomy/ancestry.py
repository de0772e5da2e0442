"""Distances up to ancestors, as one table, from which every measure between two nodes follows without a search."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Ancestry(NamedTuple):
    """The leaves and all nodes above them.

    Attributes:
        leaves: number of each leaf among the A nodes, [G].
        up: edges on the shortest way up from the node of the row to that of the column, inf where none leads, [A, A].
        min_depth: edges on the shortest way down from a root, [A].
        max_depth: edges on the longest way down from a root, [A].
    """

    leaves: np.ndarray
    up: np.ndarray
    min_depth: np.ndarray
    max_depth: np.ndarray

    def shortest(self, columns: np.ndarray) -> np.ndarray:
        """Return the edges [G, n] of the shortest way from each leaf up to a common ancestor and down to a node [n].

        A way that turns downwards before it turns up is none: such short cuts through a common descendant say
        nothing about the meaning of the two.
        """
        ways = np.full((len(self.leaves), len(columns)), np.inf)
        from_leaf, from_column = self.up[self.leaves], self.up[columns]
        for ancestor in range(len(self.up)):
            block = np.ix_(np.isfinite(from_leaf[:, ancestor]), np.isfinite(from_column[:, ancestor]))
            via = from_leaf[block[0][:, 0], ancestor][:, None] + from_column[block[1][0], ancestor]
            ways[block] = np.minimum(ways[block], via)
        return ways

    def highest(self, values: np.ndarray) -> np.ndarray:
        """Return the common ancestor [G, G] with the largest of `values` [A]; of equals, the one numbered first.

        A node is an ancestor of itself. -1 where two leaves have no common ancestor.
        """
        best = np.full((len(self.leaves), len(self.leaves)), -1)
        below = np.isfinite(self.up[self.leaves])
        for ancestor in np.lexsort((-np.arange(len(values)), values)):
            members = np.flatnonzero(below[:, ancestor])
            best[np.ix_(members, members)] = ancestor
        return best


def ancestry(
    parents: Mapping[str, Sequence[str]],
    min_depth: Mapping[str, int],
    max_depth: Mapping[str, int],
    leaves: Sequence[str],
) -> Ancestry:
    """Tabulate the leaves and all nodes above them, numbered in the order of `parents`."""
    above: set[str] = set()
    stack = list(leaves)
    while stack:
        node = stack.pop()
        if node not in above:
            above.add(node)
            stack.extend(parents[node])
    nodes = [node for node in parents if node in above]
    number = {node: place for place, node in enumerate(nodes)}
    up = np.full((len(nodes), len(nodes)), np.inf)
    np.fill_diagonal(up, 0.0)
    # Parents first: a node's ways up are its parents' ways and one edge more.
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
