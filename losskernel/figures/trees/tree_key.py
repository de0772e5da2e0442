"""The key to colours by place in a tree: the tree itself, small, its leaves coloured, its main branches named."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from losskernel.data.taxonomy import Tree
from losskernel.figures.shared.lettering import LINE, fit, spread, width
from losskernel.figures.shared.style import MUTED
from losskernel.figures.trees.trees import (
    draw_tree,
    leaves_below,
    main_branches,
    node_positions,
    position_colours,
    tree_colours,
)

_SIZE = 6.5  # points
_TRUNK_SIZE = 6.0
_STRIP = 0.09  # inches
_LEADER = 0.14
_STEPS = 512
_MOST_NAMES = 18


@dataclass(frozen=True)
class _Branches:
    """The branches to name: their nodes [B], first and last place in 0..1 [B, 2], and colours [B, 4]."""

    nodes: list[int]
    ends: np.ndarray
    colours: np.ndarray

    @classmethod
    def of(cls, tree: Tree, most: int) -> "_Branches":
        nodes, below, places = main_branches(tree, most), leaves_below(tree), tree.positions()
        ends = np.array([[places[below[node]].min(), places[below[node]].max()] for node in nodes])
        return cls(nodes, ends, position_colours(node_positions(tree)[nodes]))


def key_beside(axes: Axes, tree: Tree, inches: tuple[float, float]) -> None:
    """Draw the tree with its root at the left and the names of its branches at the right, on bare axes."""
    across, along = inches
    bare(axes, inches)
    branches = _Branches.of(tree, most=int(np.clip(along / (_SIZE * LINE) / 1.6, 1, _MOST_NAMES)))
    trunk = 0.36 * across
    _draw(axes, tree, branches, (along - 0.02, 0.02), (0.03, trunk), upright=False)
    x, y = trunk + 0.02, along - 0.02 - (along - 0.04) * branches.ends
    at = trunk + 0.03 + _STRIP
    axes.imshow(_ramp(tree)[:, None], extent=(x, x + _STRIP, 0.02, along - 0.02), aspect="auto", zorder=2)
    room = across - at - _LEADER - 0.06
    labels = [fit(tree.names[node], room, _SIZE) for node in branches.nodes]
    centres = along - spread(along - y.mean(1), np.full(len(labels), _SIZE * LINE), 0.0, along)
    for label, colour, ends, centre in zip(labels, branches.colours, y, centres, strict=True):
        axes.plot([at + 0.01] * 2, [ends[0] + 0.01, ends[1] - 0.01], color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot([at + 0.02, at + _LEADER], [ends.mean(), centre], color=colour, linewidth=0.7)
        axes.text(at + _LEADER + 0.03, centre, label, fontsize=_SIZE, va="center_baseline")


def key_below(axes: Axes, tree: Tree, inches: tuple[float, float]) -> None:
    """Draw the tree with its root at the top and the names of its branches, on two lines, beneath; on bare axes."""
    along, across = inches
    bare(axes, inches)
    branches = _Branches.of(tree, most=int(np.clip(along / 0.62, 1, _MOST_NAMES)))
    foot = 2 * _SIZE * LINE + _LEADER + 0.02
    _draw(axes, tree, branches, (0.02, along - 0.02), (across - 0.1, foot + _STRIP + 0.02), upright=True)
    axes.imshow(_ramp(tree)[None], extent=(0.02, along - 0.02, foot, foot + _STRIP), aspect="auto", zorder=2)
    words = [word for node in branches.nodes for word in tree.names[node].split()]
    longest = max((width(word, _SIZE) for word in words), default=0.0)
    room = max(0.94 * along / len(branches.nodes), min(longest, 0.9))
    labels = [fit(tree.names[node], room, _SIZE, lines=2) for node in branches.nodes]
    sizes = np.array([max(width(line, _SIZE) for line in label.split("\n")) for label in labels]) + 0.08
    x = 0.02 + (along - 0.04) * branches.ends
    centres = spread(x.mean(1), sizes, 0.0, along)
    for label, colour, ends, centre in zip(labels, branches.colours, x, centres, strict=True):
        axes.plot([ends[0] + 0.01, ends[1] - 0.01], [foot - 0.02] * 2, color=colour, linewidth=1.4)
        axes.plot([ends.mean(), centre], [foot - 0.03, foot - _LEADER + 0.02], color=colour, linewidth=0.7)
        for row, line in enumerate(label.split("\n")):
            y = foot - _LEADER - (row + 0.8) * _SIZE * LINE
            axes.text(centre, y, line, fontsize=_SIZE, ha="center", va="baseline")


def bare(axes: Axes, inches: tuple[float, float]) -> None:
    """Make axes a sheet of paper: no frame, and coordinates that are inches."""
    axes.set(xlim=(0, inches[0]), ylim=(0, inches[1]), aspect="equal", xticks=[], yticks=[])
    axes.set_axis_off()


def _ramp(tree: Tree) -> np.ndarray:
    # a stretch of the strip has the colour of the leaf that is nearest
    places = np.sort(tree.positions())
    steps = np.linspace(0, 1, _STEPS)
    after = np.clip(np.searchsorted(places, steps), 1, max(len(places) - 1, 1))
    pairs = np.stack([places[np.minimum(after - 1, len(places) - 1)], places[np.minimum(after, len(places) - 1)]])
    return position_colours(pairs[np.abs(pairs - steps).argmin(0), np.arange(_STEPS)])


def _draw(
    axes: Axes,
    tree: Tree,
    branches: _Branches,
    leaf_span: tuple[float, float],
    level_span: tuple[float, float],
    upright: bool,
) -> None:
    """Draw the tree; level_span: where the root is, and where the leaves are."""
    depth = _key_depths(tree, branches.nodes)
    levels = level_span[0] + (level_span[1] - level_span[0]) * depth
    leaf_places = leaf_span[0] + (leaf_span[1] - leaf_span[0]) * tree.positions()
    places = draw_tree(axes, tree, leaf_places, levels, tree_colours(tree), upright)
    _name_trunk(axes, tree, branches.nodes, places, levels, upright)


def _key_depths(tree: Tree, named: list[int]) -> np.ndarray:
    """Return how far each node stands from the root, [M], 0 to 1: what is above the named branches takes most room."""
    above = {int(node) for branch in named for node in _ancestors(tree, branch)}
    steps = np.zeros(len(tree.ids))  # above the named branches
    for node in range(len(tree.ids) - 1):
        if node in above or node in named:
            parent = tree.parents[node]
            steps[parent] = max(steps[parent], steps[node] + 1)
    depth = np.ones(len(tree.ids))
    trunk = 0.72 if max(tree.heights[named], default=0) > 0 else 1.0
    for node in range(tree.root, -1, -1):
        if node in above:
            depth[node] = trunk * (1 - steps[node] / steps[tree.root])
        elif node in named or tree.parents[node] in above:
            depth[node] = trunk if tree.heights[node] > 0 else 1.0
        elif node != tree.root:
            top = node
            while top not in named and tree.parents[top] not in above and tree.parents[top] >= 0:
                top = int(tree.parents[top])
            depth[node] = 1 - (1 - trunk) * tree.heights[node] / max(tree.heights[top], 1e-12)
        else:
            depth[node] = 0.0
    return depth


def _ancestors(tree: Tree, node: int) -> list[int]:
    found = []
    while (node := int(tree.parents[node])) >= 0:
        found.append(node)
    return found


def _name_trunk(
    axes: Axes, tree: Tree, named: list[int], places: np.ndarray, levels: np.ndarray, upright: bool
) -> None:
    """Write the names of the nodes above the named branches along their lines, where there is room."""
    above = {node for branch in named for node in _ancestors(tree, branch)} - {tree.root}
    outline = [withStroke(linewidth=1.8, foreground="white")]
    taken: list[tuple[float, float, float]] = []  # level, from, to
    for node in sorted(above, reverse=True):
        own, size = places[np.flatnonzero(tree.parents == node)], width(tree.names[node], _TRUNK_SIZE) + 0.04
        # Beside the node's own stem, on the longer side.
        ends = [(own.min(), places[node]), (places[node], own.max())]
        start, stop = max(ends, key=lambda end: end[1] - end[0])
        middle = (start + stop) / 2
        span = (middle - size / 2, middle + size / 2)
        if not tree.names[node] or size > stop - start:
            continue
        if any(abs(levels[node] - level) < 0.12 and span[0] < to and at < span[1] for level, at, to in taken):
            continue
        taken.append((levels[node], *span))
        at = (middle, levels[node] + 0.02) if upright else (levels[node] - 0.02, middle)
        text = axes.text(*at, tree.names[node], fontsize=_TRUNK_SIZE, color=MUTED, path_effects=outline)
        text.set(ha="center" if upright else "right", va="bottom" if upright else "center", rotation=90 * (not upright))
