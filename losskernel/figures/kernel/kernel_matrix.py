"""The kernel as a picture of its matrix."""

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from losskernel.errors import require
from losskernel.figures.shared.checks import require_finite, require_shape
from losskernel.figures.shared.colouring import Colouring, colour_by, colour_key
from losskernel.figures.shared.panels import colour_bar, new_figure
from losskernel.figures.shared.style import DIVERGING, DOUBLE, INK, paper

_MAX_ROWS = 1000
_MAX_HANDLES = 10
_CLIP_PERCENTILE = 95


@paper()
def kernel_matrix(
    correlation: np.ndarray,
    groups: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    group_name: str = "task",
) -> Figure:
    """The same matrix twice, its rows ordered by known group (left) and by clustering (right).

    correlation: [N, N], symmetric. groups: [N] labels, or None to keep the given order on the left. clusters:
    [N] integers kept contiguous on the right, or None; within a cluster, or overall, rows follow the leaves of an
    average-linkage tree on the distance sqrt(2 (1 - R)), ordered so that neighbours are close. Colours are
    clipped at the 95th percentile of |R| off the diagonal, so that weak structure shows. Beyond 1,000 rows an
    even subset is drawn, and the axis says so.

    Raises:
        InputError: a shape is wrong, N < 2, or correlation holds a value that is not finite.

    Source: Bar-Joseph, Gifford & Jaakkola 2001 for the order of the leaves (scipy's optimal_leaf_ordering).
    """
    correlation = np.asarray(correlation, dtype=float)
    count = len(correlation)
    square = correlation.shape == (count, count) and count >= 2
    require(square, f"correlation must be [N, N] with N >= 2, got {correlation.shape}; pass a square matrix")
    colouring = None if groups is None else colour_by(groups, "groups", count)
    rows = np.arange(count) if colouring is None else colouring.order
    rows = rows[np.linspace(0, count - 1, min(count, _MAX_ROWS)).round().astype(int)]
    shown = correlation[np.ix_(rows, rows)]
    require_finite("correlation", shown, "drop those probes first")
    if clusters is not None:
        require_shape("clusters", clusters, (count,), "pass one per probe")
    blocks = np.zeros(len(rows), dtype=int) if clusters is None else np.asarray(clusters)[rows]
    leaves = _leaf_order(shown, blocks)
    limit = float(np.percentile(np.abs(shown[~np.eye(len(shown), dtype=bool)]), _CLIP_PERCENTILE)) or 1.0

    # inches; the panels are as wide as the page allows, and the key of the groups comes beneath them
    keyed = colouring is not None and len(colouring.names) <= _MAX_HANDLES
    figure = new_figure(DOUBLE, 3.45 + 0.6 * keyed)
    panels = figure.subplots(1, 2)
    titles = (f"Ordered by {group_name}" if colouring else "In the given order", "Ordered by clustering")
    for axes, title, order in zip(panels, titles, (np.arange(len(rows)), leaves), strict=True):
        axes.imshow(shown[np.ix_(order, order)], cmap=DIVERGING, vmin=-limit, vmax=limit)
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, pad=12)
        axes.set_xlabel("probe" if len(rows) == count else f"probe (an even {len(rows):,} of {count:,})")
        axes.spines[:].set_visible(False)
        if colouring is not None:
            _edge_bars(axes, colouring.rgba[rows][order])
    if clusters is not None:
        _outline_clusters(panels[1], blocks[leaves])
    if colouring is not None:
        _name_groups(figure, panels[0], colouring, rows, group_name)
    clip = f"clipped at ±{limit:.2g}, the {_CLIP_PERCENTILE}th percentile of |R| off the diagonal"
    image = panels[1].images[0]
    colour_bar(figure, image, list(panels), f"R\n({clip})", shrink=0.9, aspect=28, pad=0.015, extend="both")
    return figure


def _leaf_order(matrix: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    # [M] row order: blocks stay contiguous, similar blocks and similar rows are neighbours
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    between = np.array([[matrix[np.ix_(a, b)].mean() for b in members] for a in members])
    inner = [rows[_leaves(matrix[np.ix_(rows, rows)])] for rows in members]
    return np.concatenate([inner[block] for block in _leaves(between)])


def _leaves(matrix: np.ndarray) -> np.ndarray:
    if len(matrix) < 3:
        return np.arange(len(matrix))
    # Rounding can push R past 1, and a single asymmetric bit makes squareform refuse.
    distance = np.sqrt(np.clip(2 * (1 - (matrix + matrix.T) / 2), 0, None))
    np.fill_diagonal(distance, 0.0)
    condensed = squareform(distance, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(condensed, method="average"), condensed))


def _edge_bars(axes: Axes, rgba: np.ndarray) -> None:
    for bounds, strip in (((0, 1.012, 1, 0.025), rgba[None, :]), ((-0.037, 0, 0.025, 1), rgba[:, None])):
        bar = axes.inset_axes(bounds)
        bar.imshow(strip, aspect="auto", interpolation="nearest")
        bar.set_axis_off()


def _outline_clusters(axes: Axes, blocks: np.ndarray) -> None:
    edges = np.concatenate([[0], np.flatnonzero(np.diff(blocks)) + 1, [len(blocks)]]) - 0.5
    for start, stop in pairwise(edges):
        box = np.array([[start, start], [stop, start], [stop, stop], [start, stop], [start, start]])
        axes.plot(*box.T, color=INK, linewidth=0.6, clip_on=False)


def _name_groups(figure: Figure, axes: Axes, colouring: Colouring, rows: np.ndarray, group_name: str) -> None:
    if colouring.scale is not None or len(colouring.names) <= _MAX_HANDLES:
        colour_key(figure, figure.axes[:2], colouring, group_name)
        return
    # Names are written beside their rows, where even the smallest group has room for a line of type (6 points).
    sizes = np.bincount(colouring.codes[rows], minlength=len(colouring.names))
    points_per_row = 2.7 * 72 / len(rows)
    if sizes.min() * points_per_row < 6:
        axes.set_ylabel(f"{len(colouring.names)} groups of {group_name}", labelpad=14)
        return
    axes.set_yticks(np.cumsum(sizes) - sizes / 2 - 0.5, colouring.names, fontsize=5.5)
    axes.tick_params(axis="y", length=0, pad=9)
