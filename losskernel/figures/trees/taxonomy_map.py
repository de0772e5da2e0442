"""Maps of the probes coloured by their place in a hierarchy, in the plane and in space."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from losskernel.data.taxonomy import Tree
from losskernel.figures.kernel.umap_maps import draw_views
from losskernel.figures.shared.style import DOUBLE, paper
from losskernel.figures.trees.map_regions import Region, draw_strips, mark_regions, strips_height, typical
from losskernel.figures.trees.tree_key import bare, key_below, key_beside
from losskernel.figures.trees.trees import tree_colours

_MAP = 4.15  # inches, of the square that holds the map
_RASTERISE = 3000
_EDGE = 0.05  # share of the map's extent left free at each side


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
    with paper():
        figure = Figure(figsize=(DOUBLE, _MAP + 0.2 + below), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # pyright: ignore
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
    points, leaf = np.asarray(points, dtype=float), np.asarray(leaf)
    if points.ndim != 2 or points.shape[1] != dimensions or len(points) == 0:
        raise ValueError(f"{name} must be [N, {dimensions}], not empty, got {points.shape}; pass one row per probe")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity; drop those probes first")
    if leaf.shape != (len(points),) or leaf.dtype.kind not in "iu":
        raise ValueError(f"leaf must be {len(points)} integers, got {leaf.dtype} {leaf.shape}; pass one per probe")
    if leaf.min() < 0 or leaf.max() >= tree.leaves:
        raise ValueError(
            f"leaf must lie in 0 to {tree.leaves - 1}, got {leaf.min()} to {leaf.max()}; number the leaves"
        )
    return points, leaf


def _points(axes: Axes, xy: np.ndarray, colours: np.ndarray) -> None:
    # Drawn in the given order, the last class would cover the others.
    order = np.random.default_rng(0).permutation(len(xy))
    axes.scatter(
        *xy[order].T,
        s=float(np.clip(6000 / len(xy), 1.6, 16.0)),
        c=colours[order],
        linewidths=0,
        alpha=0.9,
        rasterized=len(xy) > _RASTERISE,
    )
    middle, reach = (xy.max(0) + xy.min(0)) / 2, (0.5 + _EDGE) * float(np.ptp(xy, axis=0).max() or 1.0)
    axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
    axes.set(xticks=[], yticks=[], aspect="equal")


_VIEWS_HEIGHT = 2.45  # inches
_KEY_HEIGHT = 1.15


def taxonomy_orbit(xyz: np.ndarray, tree: Tree, leaf: np.ndarray) -> Figure:
    """One map in space from three sides, 60 degrees apart, near leaves of the tree in near hues; the tree as the key.

    xyz: [N, 3], in arbitrary units. leaf: [N], each probe's leaf of the tree.

    Raises:
        ValueError: a shape is wrong, a coordinate is not finite, or a leaf is not the tree's.
    """
    xyz, leaf = located(xyz, 3, "xyz", tree, leaf)
    drawn, cut = shortened(xyz)
    with paper():
        figure = Figure(figsize=(DOUBLE, _VIEWS_HEIGHT + _KEY_HEIGHT + 0.15), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # pyright: ignore
        grid = GridSpec(2, 3, figure=figure, height_ratios=[_VIEWS_HEIGHT, _KEY_HEIGHT])
        views = [figure.add_subplot(grid[0, place], projection="3d") for place in range(3)]
        draw_views(views, drawn, tree_colours(tree)[leaf], float(np.clip(4000 / len(xyz), 1.0, 14.0)))
        key = figure.add_subplot(grid[1, :])
        key_below(key, tree, (DOUBLE - 0.1, _KEY_HEIGHT))
        note = "; empty stretches of the map are shortened" if cut else ""
        key.set_title(f"place in the hierarchy{note}", fontsize=7, pad=4)
    return figure


_LONGEST = 0.03  # of the map's extent, of a stretch without points along an axis


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
    places = np.concatenate([np.zeros((1, points.shape[1])), np.cumsum(np.minimum(gaps, longest), axis=0)])
    result = np.empty_like(points)
    np.put_along_axis(result, order, places, axis=0)
    return result + points.min(axis=0), True
