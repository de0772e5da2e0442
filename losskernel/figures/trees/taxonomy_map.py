"""A map of the probes coloured by their place in a hierarchy, its coherent regions shown by examples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from losskernel.data.taxonomy import Tree
from losskernel.figures.shared.style import DOUBLE, paper
from losskernel.figures.trees.region_marks import mark_regions
from losskernel.figures.trees.region_strips import Region, draw_strips, strips_height, typical
from losskernel.figures.trees.shortened_gaps import shortened
from losskernel.figures.trees.tree_colours import tree_colours
from losskernel.figures.trees.tree_key import bare, key_beside

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
