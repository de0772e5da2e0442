"""Trees as drawings: where their nodes stand, which branches deserve a name, and their lines."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from losskernel.data.taxonomy import Tree

_WORTH_NAMING = 0.015  # share of the leaves below which a branch is left unnamed
_SMALL_ENOUGH = 2.0  # times an equal share of the leaves: such a branch is not split further
_STANDS_FOR = 0.7  # share of a branch's leaves that its named parts must hold
_RASTERISE = 400  # leaves


def children_of(tree: Tree) -> list[list[int]]:
    """Return the children of every node, M lists, by number."""
    children: list[list[int]] = [[] for _ in tree.ids]
    for node, parent in enumerate(tree.parents[:-1]):
        children[parent].append(node)
    return children


def leaves_below(tree: Tree) -> list[np.ndarray]:
    """Return the leaves below every node, itself where it is one: M arrays."""
    below: list[np.ndarray] = []
    for node, children in enumerate(children_of(tree)):  # a node stands before its parent
        below.append(np.concatenate([below[child] for child in children]) if children else np.array([node]))
    return below


def main_branches(tree: Tree, most: int) -> list[int]:
    """Return at most `most` nodes, none above another, that name the tree best: the largest branch is split first.

    Branches of less than 1.5 % of the leaves are left out. The order is that of the leaves.

    Raises:
        ValueError: most < 1.
    """
    if most < 1:
        raise ValueError(f"most must be >= 1, got {most}; allow at least one branch")
    below, children = leaves_below(tree), children_of(tree)
    least = max(1.0, _WORTH_NAMING * tree.leaves)
    cut, whole = [tree.root], set[int]()
    while splittable := [node for node in cut if node not in whole and children[node]]:
        largest = max(splittable, key=lambda node: (len(below[node]), node))
        if largest != tree.root and len(below[largest]) < _SMALL_ENOUGH * tree.leaves / most:
            break
        parts = [child for child in children[largest] if len(below[child]) >= least]
        covered = sum(len(below[child]) for child in parts)
        # Named parts must stand for their branch, and fit beside the names there are.
        if len(cut) - 1 + len(parts) > most or covered < _STANDS_FOR * len(below[largest]):
            whole.add(largest)
            continue
        cut = [node for node in cut if node != largest] + parts
    rank = np.argsort(tree.order())
    return sorted(cut, key=lambda node: rank[below[node]].min())


def node_places(tree: Tree, leaf_places: np.ndarray) -> np.ndarray:
    """Return where the nodes [M] stand along the leaves [G]: inner nodes midway between their outermost children."""
    places = np.zeros(len(tree.ids))
    places[: len(leaf_places)] = leaf_places
    for node, children in enumerate(children_of(tree)):
        if children:
            places[node] = (places[children].min() + places[children].max()) / 2
    return places


def draw_tree(
    axes: Axes,
    tree: Tree,
    leaf_places: np.ndarray,
    levels: np.ndarray,
    colours: np.ndarray | Sequence[str],
    upright: bool,
    linewidth: float = 0.7,
) -> np.ndarray:
    """Draw a tree's elbows and return where its nodes stand along the leaves, [M].

    leaf_places: [G] along the leaves' axis. levels: [M] across it. colours: [M], of each node's line to its parent.
    upright: the leaves lie along x and the levels along y, else the other way.
    """
    places = node_places(tree, leaf_places)
    lines, looks = [], []
    for node, children in enumerate(children_of(tree)):
        if node != tree.root:
            lines.append([(places[node], levels[node]), (places[node], levels[tree.parents[node]])])
            looks.append(colours[node])
        if children:
            lines.append([(places[children].min(), levels[node]), (places[children].max(), levels[node])])
            looks.append(colours[node])
    points = np.array(lines)
    axes.add_collection(
        LineCollection(
            list(points if upright else points[..., ::-1]),
            colors=looks,
            linewidths=linewidth,
            capstyle="projecting",
            rasterized=len(leaf_places) > _RASTERISE,
        ),
        autolim=False,
    )
    return places
