"""How trees are drawn: coordinates of nodes, branches to name, lines, and colours by position among the leaves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from losskernel.data.taxonomy import Tree
from losskernel.errors import require

_WORTH_NAMING = 0.015  # share of the leaves below which a branch is left unnamed
_SMALL_ENOUGH = 2.0  # times an equal share of the leaves: such a branch is not split further
_STANDS_FOR = 0.7  # share of a branch's leaves that its named parts must hold
_RASTERISE = 400  # leaves
# Hue turns by less than a circle, so that the first and the last branch differ. Seen by a deuteranope a circle of hues
# folds onto one line from blue to yellow; lightness that is high at the greens and low at the reds unfolds it, and
# falling along the way makes its ends differ in grey. The numbers are those of a random search for the path whose least
# ratio of Oklab distance to distance along it (above 0.3 of its length: to 0.3) is greatest over normal, deuteranope
# and protanope vision (Machado 2009): 0.69, 0.52, 0.67.
_FIRST_HUE, _TURN = 250.0, -295.0  # degrees in Oklab: blue, green, yellow, red, purple
_LIGHTNESS, _FALL = 0.683, 0.10
_TILT, _LIGHTEST_HUE = 0.115, 165.0
_CHROMA = 0.16
_LINEAR_OF_CONES = (  # from the responses of the long, medium and short cones to linear RGB
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def leaves_below(tree: Tree) -> list[np.ndarray]:
    """Return the leaves below every node, itself where it is one: M arrays."""
    inner = [np.array(sorted(leaves)) for leaves in tree.clades().values()]
    return [*np.arange(tree.leaves)[:, None], *inner, np.arange(tree.leaves)][: len(tree.ids)]


def main_branches(tree: Tree, most: int) -> list[int]:
    """Return at most `most` nodes, none above another, that name the tree best: the largest branch is split first.

    Branches of less than 1.5 % of the leaves are left out. The order is that of the leaves.

    Raises:
        InputError: most < 1.
    """
    require(most >= 1, f"most must be >= 1, got {most}; allow at least one branch")
    below = leaves_below(tree)
    least = max(1.0, _WORTH_NAMING * tree.leaves)
    cut, whole = [tree.root], set[int]()
    while splittable := [node for node in cut if node not in whole and node >= tree.leaves]:
        largest = max(splittable, key=lambda node: (len(below[node]), node))
        if largest != tree.root and len(below[largest]) < _SMALL_ENOUGH * tree.leaves / most:
            break
        parts = [child for child in tree.children(largest) if len(below[child]) >= least]
        covered = sum(len(below[child]) for child in parts)
        # Named parts must hold most of their branch, and their names must fit beside the others.
        if len(cut) - 1 + len(parts) > most or covered < _STANDS_FOR * len(below[largest]):
            whole.add(largest)
            continue
        cut = [node for node in cut if node != largest] + parts
    rank = np.argsort(tree.order())
    return sorted(cut, key=lambda node: rank[below[node]].min())


def node_midpoints(tree: Tree, leaf_positions: np.ndarray) -> np.ndarray:
    """Return the nodes' coordinates [M] along the leaves [G]: inner nodes midway between their outermost children."""
    positions = np.zeros(len(tree.ids))
    positions[: len(leaf_positions)] = leaf_positions
    for node in range(tree.leaves, len(tree.ids)):
        children = positions[tree.children(node)]
        positions[node] = (children.min() + children.max()) / 2
    return positions


def draw_tree(
    axes: Axes,
    tree: Tree,
    leaf_positions: np.ndarray,
    levels: np.ndarray,
    colours: np.ndarray | Sequence[str],
    upright: bool,
    linewidth: float = 0.7,
) -> np.ndarray:
    """Draw a tree's elbows and return the coordinates of its nodes along the leaves, [M].

    leaf_positions: [G] along the leaves' axis. levels: [M] across it. colours: [M], of each node's line to its parent.
    upright: the leaves lie along x and the levels along y, else the other way.
    """
    positions = node_midpoints(tree, leaf_positions)
    lines, looks = [], []
    for node in range(len(tree.ids)):
        if node != tree.root:
            lines.append([(positions[node], levels[node]), (positions[node], levels[tree.parents[node]])])
            looks.append(colours[node])
        if node >= tree.leaves:
            ends = positions[tree.children(node)]
            lines.append([(ends.min(), levels[node]), (ends.max(), levels[node])])
            looks.append(colours[node])
    points = np.array(lines)
    look: dict[str, Any] = {"linewidths": linewidth, "rasterized": len(leaf_positions) > _RASTERISE}
    elbows = LineCollection(list(points if upright else points[..., ::-1]), colors=looks, capstyle="projecting", **look)
    axes.add_collection(elbows, autolim=False)
    return positions


def tree_colours(tree: Tree) -> np.ndarray:
    """Return a colour per node, [M, 4] rgba in 0..1: hue by `tree.positions()`, inner nodes at their leaves' mean.

    Source: Ottosson 2020 (Oklab).
    """
    return position_colours(node_positions(tree))


def node_positions(tree: Tree) -> np.ndarray:
    """Return the position of every node in [0, 1], [M]: of a leaf its position, of an inner node its leaves' mean."""
    leaves = tree.positions()
    positions = np.full(len(tree.ids), leaves.mean())
    positions[: len(leaves)] = leaves
    for node, below in tree.clades().items():
        positions[node] = leaves[list(below)].mean()
    return positions


def position_colours(positions: np.ndarray) -> np.ndarray:
    """Return the colours [n, 4] of positions in [0, 1], each as saturated as the screen's gamut holds, to a bound."""
    positions = np.asarray(positions, dtype=float)
    hue = np.deg2rad(_FIRST_HUE + _TURN * positions)
    lightness = _LIGHTNESS - _FALL * (positions - 0.5) + _TILT * np.cos(hue - np.deg2rad(_LIGHTEST_HUE))
    least, most = np.zeros_like(hue), np.full_like(hue, _CHROMA)
    for _ in range(24):  # bisection: the gamut is convex along a ray of hue at these lightnesses
        middle = (least + most) / 2
        linear = _linear_rgb(lightness, middle, hue)
        inside = ((linear >= 0) & (linear <= 1)).all(-1)
        least, most = np.where(inside, middle, least), np.where(inside, most, middle)
    linear = np.clip(_linear_rgb(lightness, least, hue), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.concatenate([encoded, np.ones((len(encoded), 1))], axis=1)


def _linear_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return np.stack([long, medium, short], axis=-1) @ np.transpose(_LINEAR_OF_CONES)
