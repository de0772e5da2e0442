"""Two trees over the same leaves, face to face, with a line from each leaf to itself."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.data.taxonomy import Tree
from losskernel.errors import require
from losskernel.figures.shared.lettering import fit, legend_below, mark_sample, width
from losskernel.figures.shared.panels import new_figure
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, paper
from losskernel.figures.trees.trees import draw_tree, leaves_below, position_colours, tree_colours

_MOST_NAMED = 80
_LINE = 0.1  # inches per leaf
_LEAST, _MOST = 2.2, 5.5  # inches of height
_SIZE = 6.0  # points
_PALE = "#B3B3B3"
_WIDTHS = (1.7, 3.5, 1.7)  # inches: tree, names and lines, tree
_NAME = 1.1  # inches at most, of a leaf's name
# Least support, size and face of the mark at a branch.
_MARKS = ((0.95, 4.6, INK), (0.75, 3.6, MUTED), (0.5, 3.0, "white"))


@paper()
def tanglegram(derived: Tree, known: Tree, title_known: str = "WordNet") -> Figure:
    """A derived tree beside the known one, its branches turned so that the fewest lines between the leaves cross.

    Leaves are the same in both, in the same numbering. The derived tree's heights are those of its merges; branches
    that the known tree has too are in its colours, and those whose support is at least 0.5 are marked. More than 80
    leaves are drawn without names and marks.

    Raises:
        InputError: other leaves, or fewer than 3.

    Source: Fernau, Kaufmann & Poths 2010 (one tree fixed: each branching of a binary tree is settled by itself).
    """
    count = known.leaves
    alike = derived.leaves == count and derived.ids[:count] == known.ids[:count]
    require(alike, f"derived must have the {count} leaves of known in the same order, got {derived.leaves}")
    require(count >= 3, f"known must have >= 3 leaves, got {count}; smaller trees cannot differ")
    left, right = np.empty(count), np.empty(count)
    right[known.order()] = np.arange(count)
    order = untangled(derived, right)
    left[order] = np.arange(count)
    named = count <= _MOST_NAMED
    height = float(np.clip(_LINE * count, _LEAST, _MOST if not named else _LINE * _MOST_NAMED))
    figure = new_figure(DOUBLE, height + 0.75, w_pad=0.01, h_pad=0.02, wspace=0.0)
    panels = figure.subplots(1, 3, width_ratios=_WIDTHS, sharey=True)
    panels[0].set_ylim(count - 0.4, -0.6)
    _derived(panels[0], derived, known, left)
    _lines(panels[1], known, left, right)
    draw_tree(panels[2], known, right, known.heights, tree_colours(known), upright=False, linewidth=_thickness(count))
    panels[2].set_xlim(0, 1.04 * known.heights[known.root])
    panels[2].set_axis_off()
    panels[0].set_title("read off the kernel")
    panels[2].set_title(title_known)
    crossings = f"{crossed(left, right):,} of {count * (count - 1) // 2:,} pairs of lines cross"
    note = crossings if named else f"{count:,} leaves, too many to name; {crossings}"
    panels[1].set_title(note, fontsize=6.5, color=MUTED)
    legend_below(figure, _handles(derived, title_known), columns=5)
    return figure


def untangled(tree: Tree, target: np.ndarray) -> np.ndarray:
    """Return the leaves [G] in the order of the tree that crosses fewest lines to positions `target` [G].

    Exact where every branching has two branches, each of which is settled by itself; others by their mean position.
    """
    target = np.asarray(target, dtype=float)
    below = leaves_below(tree)
    ordered = below[: tree.leaves]  # of every node, in the order of its branches
    for node in range(tree.leaves, len(tree.ids)):
        parts = sorted(tree.children(node), key=lambda child: (target[below[child]].mean(), child))
        if len(parts) == 2:
            first, second = (np.sort(target[below[part]]) for part in parts)
            upside_down = int(np.searchsorted(second, first, side="left").sum())
            if 2 * upside_down > first.size * second.size:
                parts.reverse()
        ordered.append(np.concatenate([ordered[part] for part in parts]))
    return ordered[tree.root]


def crossed(left: np.ndarray, right: np.ndarray) -> int:
    """Return how many pairs of lines from places `left` [G] to places `right` [G] cross."""
    order = np.asarray(right)[np.argsort(left)]
    return int((order[:, None] > order)[np.triu_indices(len(order), 1)].sum())


def _derived(axes: Axes, tree: Tree, known: Tree, rows: np.ndarray) -> None:
    """Draw the derived tree, root at the left, with a scale of its merges and the support of its branches."""
    inner = tree.heights[tree.leaves :]
    low, high = float(inner.min()), float(inner.max())
    span = high - low or 1.0
    # Merges often begin far above the leaves; the empty stretch below them would waste the panel.
    levels = np.maximum(tree.heights, low - 0.12 * span)
    shared = set(known.clades().values())
    colours = np.tile(to_rgba(_PALE), (len(tree.ids), 1))
    hues = known.positions()
    colours[: tree.leaves] = position_colours(hues)
    below = leaves_below(tree)
    for node in range(tree.leaves, tree.root):
        if frozenset(below[node].tolist()) in shared:
            colours[node] = position_colours(hues[below[node]].mean(keepdims=True))[0]
    positions = draw_tree(axes, tree, rows, levels, colours, upright=False, linewidth=_thickness(len(rows)))
    for node in range(tree.leaves, tree.root) if len(rows) <= _MOST_NAMED else ():
        for _, size, face in [mark for mark in _MARKS if tree.support[node] >= mark[0]][:1]:
            look: dict[str, Any] = {"markersize": size, "markerfacecolor": face, "markeredgewidth": 0.6}
            axes.plot(levels[node], positions[node], "o", color=INK, zorder=4, **look)
    axes.set(xlim=(high + 0.04 * span, low - 0.13 * span), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=6.5)
    axes.set_xlabel("distance of the merge", fontsize=7)


def _lines(axes: Axes, tree: Tree, left: np.ndarray, right: np.ndarray) -> None:
    """Draw a line from each leaf on the left to itself on the right, from name to name where there is room."""
    across, count = _WIDTHS[1], len(left)
    axes.set_xlim(0, across)
    axes.set_axis_off()
    named, ends = count <= _MOST_NAMED, np.zeros(count)
    if named:
        names = [fit(tree.names[leaf], _NAME, _SIZE) for leaf in range(count)]
        ends = np.array([width(name, _SIZE) + 0.07 for name in names])
        for name, start, stop in zip(names, left, right, strict=True):
            axes.text(0.03, start, name, fontsize=_SIZE, va="center_baseline")
            axes.text(across - 0.03, stop, name, fontsize=_SIZE, ha="right", va="center_baseline")
    bend = _NAME + 0.12 if named else 0.1
    lines = [
        [(end, start), (bend, start), (across - bend, stop), (across - end, stop)]
        for end, start, stop in zip(ends, left, right, strict=True)
    ]
    look = {"linewidths": _thickness(count), "rasterized": not named}
    axes.add_collection(LineCollection(lines, colors=list(position_colours(tree.positions())), **look), autolim=False)


def _thickness(count: int) -> float:
    return float(np.clip(70 / count, 0.3, 0.8))


def _handles(derived: Tree, title_known: str) -> list[Line2D]:
    handles = [
        Line2D([], [], color=position_colours(np.array([0.3]))[0], label=f"branch of {title_known} too, or one class"),
        Line2D([], [], color=_PALE, label="other branch"),
    ]
    if np.isfinite(derived.support).any() and derived.leaves <= _MOST_NAMED:
        handles += [mark_sample(f"support ≥ {least:g}", "o", INK, size, face=face) for least, size, face in _MARKS]
    return handles
