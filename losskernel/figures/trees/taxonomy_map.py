"""Maps of the probes coloured by their place in a hierarchy, in the plane and in space, with the tree as the key."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patheffects import withStroke

from losskernel.data.taxonomy import Tree
from losskernel.errors import require
from losskernel.figures.kernel.probe_maps import draw_views
from losskernel.figures.shared.checks import points_of
from losskernel.figures.shared.lettering import LINE, fit, spread, width
from losskernel.figures.shared.panels import draw_points, new_figure
from losskernel.figures.shared.style import DOUBLE, MUTED, paper
from losskernel.figures.trees.map_regions import Region, draw_strips, mark_regions, strips_height, typical
from losskernel.figures.trees.trees import draw_tree, leaves_below, main_branches, position_colours, tree_colours

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
        InputError: a shape is wrong, a coordinate is not finite, or a leaf or a region's member is not there.
    """
    xy, leaf = located(xy, 2, "xy", tree, leaf)
    if images is not None:
        fits = images.ndim == 4 and len(images) == len(xy) and images.shape[-1] in (1, 3)
        require(fits, f"images must be [{len(xy)}, h, w, 1 or 3], got {images.shape}; pass one per probe")
    for region in regions:
        inside = len(region.members) > 0 and bool(((region.members >= 0) & (region.members < len(xy))).all())
        require(inside, f"region {region.number} must hold some of the {len(xy)} probes; pass their indices")
    colours = tree_colours(tree)[leaf]
    below = strips_height(len(regions), DOUBLE - 0.14, images is not None)
    figure = new_figure(DOUBLE, _MAP + 0.2 + below, w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    rows = [_MAP, below] if regions else [_MAP]
    grid = GridSpec(len(rows), 2, figure=figure, width_ratios=[_MAP, DOUBLE - _MAP], height_ratios=rows)
    axes = figure.add_subplot(grid[0, 0])
    drawn, cut = shortened(xy)
    draw_points(axes, drawn, colours, float(np.clip(6000 / len(xy), 1.6, 16.0)), 0.9)
    middle, reach = (drawn.max(0) + drawn.min(0)) / 2, (0.5 + _EDGE) * float(np.ptp(drawn, axis=0).max() or 1.0)
    limits = dict(zip(("xlim", "ylim"), np.stack([middle - reach, middle + reach], axis=1), strict=True))
    axes.set(xticks=[], yticks=[], aspect="equal", **limits)
    note = " (empty stretches shortened)" if cut else ""
    axes.set(xlabel=f"map axis 1{note}", ylabel=f"map axis 2{note}")
    mark_regions(axes, drawn, regions, _MAP - 0.3)
    key = figure.add_subplot(grid[0, 1])
    _draw_key(key, tree, (DOUBLE - _MAP - 0.1, _MAP), upright=False)
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
        InputError: a shape is wrong, a coordinate is not finite, or a leaf is not the tree's.
    """
    points, leaf = points_of(points, dimensions, name), np.asarray(leaf)
    fits = leaf.shape == (len(points),) and leaf.dtype.kind in "iu"
    require(fits, f"leaf must be {len(points)} integers, got {leaf.dtype} {leaf.shape}; pass one per probe")
    inside = bool(leaf.min() >= 0 and leaf.max() < tree.leaves)
    require(inside, f"leaf must lie in 0 to {tree.leaves - 1}, got {leaf.min()} to {leaf.max()}; count from 0")
    return points, leaf


@paper()
def taxonomy_orbit(xyz: np.ndarray, tree: Tree, leaf: np.ndarray) -> Figure:
    """One map in space from three sides, 60 degrees apart, near leaves of the tree in near hues; the tree as the key.

    xyz: [N, 3], in arbitrary units. leaf: [N], each probe's leaf of the tree.

    Raises:
        InputError: a shape is wrong, a coordinate is not finite, or a leaf is not the tree's.
    """
    xyz, leaf = located(xyz, 3, "xyz", tree, leaf)
    drawn, cut = shortened(xyz)
    figure = new_figure(DOUBLE, _VIEWS_HEIGHT + _KEY_HEIGHT + 0.15, w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = GridSpec(2, 3, figure=figure, height_ratios=[_VIEWS_HEIGHT, _KEY_HEIGHT])
    views = [figure.add_subplot(grid[0, index], projection="3d") for index in range(3)]
    draw_views(views, drawn, tree_colours(tree)[leaf])
    key = figure.add_subplot(grid[1, :])
    _draw_key(key, tree, (DOUBLE - 0.1, _KEY_HEIGHT), upright=True)
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


def _draw_key(axes: Axes, tree: Tree, inches: tuple[float, float], upright: bool) -> None:
    """Draw the tree and the names of its branches on bare axes.

    upright: the root at the top and the names on two lines at the bottom, else the root and the names side by side.
    """
    bare(axes, inches)
    along, across = inches if upright else inches[::-1]  # inches along the leaves, and from the root to the names

    def at(leaves: Any, levels: Any) -> tuple[Any, Any]:
        return (leaves, across - levels) if upright else (levels, along - leaves)

    fitting = along / 0.62 if upright else along / (_SIZE * LINE) / 1.6
    nodes, below = main_branches(tree, int(np.clip(fitting, 1, _MOST_NAMES))), leaves_below(tree)
    foot = across - 2 * _SIZE * LINE - _LEADER - _STRIP - 0.04 if upright else 0.36 * across  # level of the leaves
    strip, beside, named = foot + 0.02, foot + _STRIP + 0.04, foot + _STRIP + _LEADER + 0.06
    leaves, depths, first = 0.02 + (along - 0.04) * tree.positions(), _key_depths(tree, nodes), 0.1 if upright else 0.03
    levels = at(0.0, first + (foot - first) * depths)[upright]
    positions = draw_tree(axes, tree, at(leaves, 0.0)[not upright], levels, tree_colours(tree), upright)
    _name_trunk(axes, tree, nodes, positions, levels, upright)
    x, y = at(np.array([0.02, along - 0.02]), np.array([strip, strip + _STRIP]))
    ramp = _ramp(tree)[None] if upright else _ramp(tree)[:, None]
    axes.imshow(ramp, extent=(*np.sort(x), *np.sort(y)), aspect="auto", zorder=2)
    labels, sizes = _key_labels([tree.names[node] for node in nodes], along if upright else across - named, upright)
    ends = np.array([[leaves[below[node]].min(), leaves[below[node]].max()] for node in nodes])
    look: dict[str, Any] = {"ha": "center", "va": "top"} if upright else {"va": "center_baseline"}
    centres, colours = spread(ends.mean(1), sizes, 0.0, along), tree_colours(tree)[nodes]
    for label, colour, (start, stop), centre in zip(labels, colours, ends, centres, strict=True):
        edge, leader = np.array([start + 0.01, stop - 0.01]), np.array([(start + stop) / 2, centre])
        axes.plot(*at(edge, np.full(2, beside)), color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot(*at(leader, np.array([beside + 0.01, named - 0.04])), color=colour, linewidth=0.7)
        axes.text(*at(centre, named), label, fontsize=_SIZE, **look)


def _key_labels(names: Sequence[str], inches: float, upright: bool) -> tuple[list[str], np.ndarray]:
    """Return the names as they fit side by side into so many inches, or below each other, and their sizes."""
    if not upright:
        return [fit(name, inches, _SIZE) for name in names], np.full(len(names), _SIZE * LINE)
    longest = max((width(word, _SIZE) for name in names for word in name.split()), default=0.0)
    labels = [fit(name, max(0.94 * inches / len(names), min(longest, 0.9)), _SIZE, lines=2) for name in names]
    return labels, np.array([max(width(line, _SIZE) for line in label.split("\n")) for label in labels]) + 0.08


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
    pairs = positions[np.minimum([after - 1, after], len(positions) - 1)]
    return position_colours(pairs[np.abs(pairs - steps).argmin(0), np.arange(_STEPS)])


def _key_depths(tree: Tree, named: list[int]) -> np.ndarray:
    """Return how far each node lies from the root, [M], 0 to 1: what is above the named branches takes most room."""
    above = _above(tree, named)
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


def _above(tree: Tree, named: Sequence[int]) -> set[int]:
    """Return the nodes above some of the named ones."""
    above = set[int]()
    for node in named:
        while (node := int(tree.parents[node])) >= 0:
            above.add(node)
    return above


def _name_trunk(
    axes: Axes, tree: Tree, named: list[int], positions: np.ndarray, levels: np.ndarray, upright: bool
) -> None:
    """Write the names of the nodes above the named branches along their lines, where there is room."""
    outline = [withStroke(linewidth=1.8, foreground="white")]
    taken: list[tuple[float, float, float]] = []  # level, from, to
    for node in sorted(_above(tree, named) - {tree.root}, reverse=True):
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
