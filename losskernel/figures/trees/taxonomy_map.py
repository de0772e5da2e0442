"""Maps of the probes coloured by their place in a hierarchy, in the plane and in space, with the tree as the key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patheffects import withStroke

from losskernel.data.taxonomy import Tree
from losskernel.figures.kernel.umap_maps import draw_views
from losskernel.figures.shared.lettering import LINE, fit, spread, width
from losskernel.figures.shared.style import DOUBLE, MUTED, RASTERISE, new_figure, paper, points_of, shuffled
from losskernel.figures.trees.map_regions import Region, draw_strips, mark_regions, strips_height, typical
from losskernel.figures.trees.trees import (
    draw_tree,
    leaves_below,
    main_branches,
    node_positions,
    position_colours,
    tree_colours,
)

_MAP = 4.15  # inches, of the square that holds the map
_VIEWS_HEIGHT, _KEY_HEIGHT = 2.45, 1.15  # inches
_LONGEST = 0.03  # of the map's extent, of a stretch without points along an axis
_EDGE = 0.05  # share of the map's extent left free at each side
_SIZE = 6.5  # points
_TRUNK_SIZE = 6.0
_STRIP = 0.09  # inches
_LEADER = 0.14
_STEPS = 512
_MOST_NAMES = 18


@paper()
def taxonomy_map(
    xy: np.ndarray, tree: Tree, leaf: np.ndarray, images: np.ndarray | None, regions: Sequence[Region]
) -> Figure:
    """Probes in the plane, near leaves of the tree in near hues, the tree as the key; below, what is in the regions.

    xy: [N, 2], in arbitrary units. leaf: [N], each probe's leaf of the tree. images: uint8 [N, h, w, c] with c = 1 or
    3, or None for names alone. regions: outlined and numbered on the map; up to 4 members of each are shown.

    Raises:
        ValueError: a shape is wrong, a coordinate is not finite, or a leaf or a region's member is not there.
    """
    xy, leaf = located(xy, 2, "xy", tree, leaf)
    if images is not None and (np.ndim(images) != 4 or len(images) != len(xy) or images.shape[-1] not in (1, 3)):
        raise ValueError(f"images must be [{len(xy)}, h, w, 1 or 3], got {np.shape(images)}; pass one per probe")
    for region in regions:
        if len(region.members) == 0 or np.min(region.members) < 0 or np.max(region.members) >= len(xy):
            raise ValueError(f"region {region.number} must hold some of the {len(xy)} probes; pass their indices")
    colours = tree_colours(tree)[leaf]
    below = strips_height(len(regions), DOUBLE - 0.14, images is not None)
    figure = new_figure(DOUBLE, _MAP + 0.2 + below, w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    rows = [_MAP, below] if regions else [_MAP]
    grid = GridSpec(len(rows), 2, figure=figure, width_ratios=[_MAP, DOUBLE - _MAP], height_ratios=rows)
    axes = figure.add_subplot(grid[0, 0])
    drawn, cut = shortened(xy)
    _points(axes, drawn, colours)
    note = " (empty stretches shortened)" if cut else ""
    axes.set(xlabel=f"map axis 1{note}", ylabel=f"map axis 2{note}")
    mark_regions(axes, drawn, regions, _MAP - 0.3)
    key = figure.add_subplot(grid[0, 1])
    key_beside(key, tree, (DOUBLE - _MAP - 0.1, _MAP))
    key.set_title("place in the hierarchy", fontsize=7, pad=4)
    if regions:
        strips = figure.add_subplot(grid[1, :])
        bare(strips, (DOUBLE - 0.14, below))
        shown = [typical(region, xy, leaf) for region in regions]
        draw_strips(strips, regions, shown, colours, images, (DOUBLE - 0.14, below))
    return figure


def located(
    points: np.ndarray, dimensions: int, name: str, tree: Tree, leaf: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return points [N, dimensions] and leaves [N] of the tree as arrays, checked.

    Raises:
        ValueError: a shape is wrong, a coordinate is not finite, or a leaf is not the tree's.
    """
    points, leaf = points_of(points, dimensions, name), np.asarray(leaf)
    if leaf.shape != (len(points),) or leaf.dtype.kind not in "iu":
        raise ValueError(f"leaf must be {len(points)} integers, got {leaf.dtype} {leaf.shape}; pass one per probe")
    if leaf.min() < 0 or leaf.max() >= tree.leaves:
        raise ValueError(f"leaf must lie in 0 to {tree.leaves - 1}, got {leaf.min()} to {leaf.max()}; count from 0")
    return points, leaf


def _points(axes: Axes, xy: np.ndarray, colours: np.ndarray) -> None:
    order = shuffled(len(xy))
    look: dict[str, Any] = {"linewidths": 0, "alpha": 0.9, "rasterized": len(xy) > RASTERISE}
    axes.scatter(*xy[order].T, s=float(np.clip(6000 / len(xy), 1.6, 16.0)), c=colours[order], **look)
    middle, reach = (xy.max(0) + xy.min(0)) / 2, (0.5 + _EDGE) * float(np.ptp(xy, axis=0).max() or 1.0)
    axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
    axes.set(xticks=[], yticks=[], aspect="equal")


@paper()
def taxonomy_orbit(xyz: np.ndarray, tree: Tree, leaf: np.ndarray) -> Figure:
    """One map in space from three sides, 60 degrees apart, near leaves of the tree in near hues; the tree as the key.

    xyz: [N, 3], in arbitrary units. leaf: [N], each probe's leaf of the tree.

    Raises:
        ValueError: a shape is wrong, a coordinate is not finite, or a leaf is not the tree's.
    """
    xyz, leaf = located(xyz, 3, "xyz", tree, leaf)
    drawn, cut = shortened(xyz)
    figure = new_figure(DOUBLE, _VIEWS_HEIGHT + _KEY_HEIGHT + 0.15, w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = GridSpec(2, 3, figure=figure, height_ratios=[_VIEWS_HEIGHT, _KEY_HEIGHT])
    views = [figure.add_subplot(grid[0, index], projection="3d") for index in range(3)]
    draw_views(views, drawn, tree_colours(tree)[leaf], float(np.clip(4000 / len(xyz), 1.0, 14.0)))
    key = figure.add_subplot(grid[1, :])
    key_below(key, tree, (DOUBLE - 0.1, _KEY_HEIGHT))
    note = "; empty stretches of the map are shortened" if cut else ""
    key.set_title(f"place in the hierarchy{note}", fontsize=7, pad=4)
    return figure


def shortened(points: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the points [N, d] with long empty stretches of each axis shortened, and whether there were any.

    A stretch between neighbours along an axis is at most 3 % of the largest resulting extent. The order along every
    axis stays, and so does every shape without such a stretch.
    """
    order = np.argsort(points, axis=0, kind="stable")
    gaps = np.diff(np.take_along_axis(points, order, axis=0), axis=0)
    longest = float(np.ptp(points, axis=0).max())
    # The extent that the limit refers to shrinks with it: a contraction, so it settles.
    for _ in range(60):
        extent = float(np.minimum(gaps, longest).sum(axis=0).max(initial=0.0))
        if longest <= _LONGEST * extent * 1.001:
            break
        longest = _LONGEST * extent
    cut = gaps > longest
    # Where so few points lie that most stretches are long, nothing is an island.
    if not cut.any() or len(points) < 2 / _LONGEST:
        return points, False
    positions = np.concatenate([np.zeros((1, points.shape[1])), np.cumsum(np.minimum(gaps, longest), axis=0)])
    result = np.empty_like(points)
    np.put_along_axis(result, order, positions, axis=0)
    return result + points.min(axis=0), True


@dataclass(frozen=True)
class _Branches:
    """The B branches to name."""

    nodes: list[int]  # [B]
    ends: np.ndarray  # [B, 2], first and last position in 0..1
    colours: np.ndarray  # [B, 4]

    @classmethod
    def of(cls, tree: Tree, most: int) -> "_Branches":
        nodes, below, positions = main_branches(tree, most), leaves_below(tree), tree.positions()
        ends = np.array([[positions[below[node]].min(), positions[below[node]].max()] for node in nodes])
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
    positions = np.sort(tree.positions())
    steps = np.linspace(0, 1, _STEPS)
    # the two leaves around each step of the strip
    after = np.clip(np.searchsorted(positions, steps), 1, max(len(positions) - 1, 1))
    pairs = np.stack(
        [positions[np.minimum(after - 1, len(positions) - 1)], positions[np.minimum(after, len(positions) - 1)]]
    )
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
    leaf_positions = leaf_span[0] + (leaf_span[1] - leaf_span[0]) * tree.positions()
    positions = draw_tree(axes, tree, leaf_positions, levels, tree_colours(tree), upright)
    _name_trunk(axes, tree, branches.nodes, positions, levels, upright)


def _key_depths(tree: Tree, named: list[int]) -> np.ndarray:
    """Return how far each node lies from the root, [M], 0 to 1: what is above the named branches takes most room."""
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
    above = []
    while (node := int(tree.parents[node])) >= 0:
        above.append(node)
    return above


def _name_trunk(
    axes: Axes, tree: Tree, named: list[int], positions: np.ndarray, levels: np.ndarray, upright: bool
) -> None:
    """Write the names of the nodes above the named branches along their lines, where there is room."""
    above = {node for branch in named for node in _ancestors(tree, branch)} - {tree.root}
    outline = [withStroke(linewidth=1.8, foreground="white")]
    taken: list[tuple[float, float, float]] = []  # level, from, to
    for node in sorted(above, reverse=True):
        ends_below, size = positions[np.flatnonzero(tree.parents == node)], width(tree.names[node], _TRUNK_SIZE) + 0.04
        # Beside the node's own stem, on the longer side.
        ends = [(ends_below.min(), positions[node]), (positions[node], ends_below.max())]
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
