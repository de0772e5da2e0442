"""The kernel as a picture of its matrix."""

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.shared.style import DIVERGING, DOUBLE, INK, paper

_MAX_ROWS = 1000
_MAX_HANDLES = 10
_CLIP_PERCENTILE = 95


def kernel_matrix(
    correlation: np.ndarray,
    groups: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    group_name: str = "task",
    value_label: str = "R",
) -> Figure:
    """The same matrix twice, its rows ordered by known group (left) and by clustering (right).

    correlation: [N, N], symmetric. groups: [N] labels, or None to keep the given order on the left. clusters:
    [N] integers kept contiguous on the right, or None; within a cluster, or overall, rows follow the leaves of an
    average-linkage tree on the distance sqrt(2 (1 - R)), ordered so that neighbours are close. Colours are
    clipped at the 95th percentile of |R| off the diagonal, so that weak structure shows. Beyond 1,000 rows an
    even subset is drawn, and the axis says so.

    Raises:
        ValueError: a shape is wrong, N < 2, or correlation holds a value that is not finite.

    Source: Bar-Joseph, Gifford & Jaakkola 2001 for the order of the leaves (scipy's optimal_leaf_ordering).
    """
    correlation = np.asarray(correlation, dtype=float)
    count = len(correlation)
    if correlation.ndim != 2 or correlation.shape != (count, count) or count < 2:
        raise ValueError(f"correlation must be [N, N] with N >= 2, got {correlation.shape}; pass a square matrix")
    if clusters is not None and np.shape(clusters) != (count,):
        raise ValueError(f"clusters must have shape ({count},), got {np.shape(clusters)}; pass one per probe")
    colouring = None if groups is None else colour_by(groups, "groups", count)

    by_group = np.arange(count) if colouring is None else colouring.order
    by_group = by_group[np.linspace(0, count - 1, min(count, _MAX_ROWS)).round().astype(int)]
    shown = correlation[np.ix_(by_group, by_group)]
    if not np.isfinite(shown).all():
        raise ValueError("correlation must be finite, got NaN or infinity; drop those probes first")
    blocks = np.zeros(len(by_group), dtype=int) if clusters is None else np.asarray(clusters)[by_group]
    leaves = _leaf_order(shown, blocks)
    limit = _robust_limit(shown)

    with paper():
        figure = Figure(figsize=(DOUBLE, _height(colouring)), layout="constrained")
        left, right = figure.subplots(1, 2)
        unit = "probe" if len(by_group) == count else f"probe (an even {len(by_group):,} of {count:,})"
        _draw(left, shown, limit)
        left.set_title(f"Ordered by {group_name}" if colouring else "In the given order", pad=12)
        left.set_xlabel(unit)
        image = _draw(right, shown[np.ix_(leaves, leaves)], limit)
        right.set_title("Ordered by clustering", pad=12)
        right.set_xlabel(unit)
        if clusters is not None:
            _outline_clusters(right, blocks[leaves])
        if colouring is not None:
            _edge_bars(left, colouring.rgba[by_group])
            _edge_bars(right, colouring.rgba[by_group][leaves])
            _name_groups(figure, left, colouring, by_group, group_name)
        bar = figure.colorbar(image, ax=[left, right], extend="both", shrink=0.9, aspect=28, pad=0.015)
        magnitude = f"|{value_label.strip('|')}|"
        clip = f"clipped at ±{limit:.2g}, the 95th percentile of {magnitude} off the diagonal"
        bar.set_label(f"{value_label}\n({clip})", fontsize=7)
        bar.ax.spines[:].set_visible(False)
    return figure


def _height(colouring: Colouring | None) -> float:
    # inches; the panels are as wide as the page allows, and the key of the groups comes beneath them
    if colouring is None or len(colouring.names) > _MAX_HANDLES:
        return 3.45
    return 4.05 if colouring.scale is None else 4.2


def _robust_limit(matrix: np.ndarray) -> float:
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    limit = float(np.percentile(np.abs(off_diagonal), _CLIP_PERCENTILE))
    return limit if limit > 0 else 1.0


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


def _draw(axes: Axes, matrix: np.ndarray, limit: float) -> AxesImage:
    image = axes.imshow(matrix, cmap=DIVERGING, vmin=-limit, vmax=limit)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return image


def _edge_bars(axes: Axes, rgba: np.ndarray) -> None:
    top = axes.inset_axes((0, 1.012, 1, 0.025))
    side = axes.inset_axes((-0.037, 0, 0.025, 1))
    top.imshow(rgba[None, :], aspect="auto", interpolation="nearest")
    side.imshow(rgba[:, None], aspect="auto", interpolation="nearest")
    for bar in (top, side):
        bar.set_axis_off()


def _outline_clusters(axes: Axes, blocks: np.ndarray) -> None:
    edges = np.concatenate([[0], np.flatnonzero(np.diff(blocks)) + 1, [len(blocks)]]) - 0.5
    for start, stop in pairwise(edges):
        box = np.array([[start, start], [stop, start], [stop, stop], [start, stop], [start, start]])
        axes.plot(*box.T, color=INK, linewidth=0.6, clip_on=False)


def _name_groups(figure: Figure, axes: Axes, colouring: Colouring, rows: np.ndarray, group_name: str) -> None:
    if colouring.scale is not None:
        bar = figure.colorbar(
            colouring.scale, ax=figure.axes[:2], location="bottom", shrink=0.4, aspect=40, pad=0.02, label=group_name
        )
        bar.ax.spines[:].set_visible(False)
        return
    if len(colouring.names) <= _MAX_HANDLES:
        figure.legend(
            handles=colouring.handles(),
            title=group_name,
            title_fontsize=7,
            loc="outside lower center",
            ncols=len(colouring.names),
            columnspacing=1.2,
            handletextpad=0.2,
        )
        return
    codes = colouring.codes[rows]
    sizes = np.bincount(codes, minlength=len(colouring.names))
    points_per_row = 2.7 * 72 / len(rows)
    if sizes.min() * points_per_row < 6:
        axes.set_ylabel(f"{len(colouring.names)} groups of {group_name}", labelpad=14)
        return
    axes.set_yticks(np.cumsum(sizes) - sizes / 2 - 0.5, colouring.names, fontsize=5.5)
    axes.tick_params(axis="y", length=0, pad=9)
