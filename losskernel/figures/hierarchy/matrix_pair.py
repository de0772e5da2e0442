"""How alike classes are, beside how near they are in a hierarchy: two matrices in one order."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

from losskernel.data.taxonomy import Tree
from losskernel.errors import require
from losskernel.figures.shared.checks import require_shape
from losskernel.figures.shared.lettering import LINE, fit, spread
from losskernel.figures.shared.panels import colour_bar, new_figure
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import DIVERGING, DOUBLE, FAINT, paper
from losskernel.figures.trees.trees import draw_tree, leaves_below, main_branches, position_colours, tree_colours

_NAMES, _TREE, _STRIP = 1.12, 0.5, 0.07  # inches, left of the first matrix
_SIDE = 2.5
_SIZE = 6.5  # points
_MOST_NAMES = 18
_LOW, _HIGH = 2, 98  # percentiles between which the colours run
_SIGNED = 0.5  # a negative end at least this share of the positive one has its own colours


@paper()
def matrix_pair(
    similarity: np.ndarray,
    distance: np.ndarray,
    tree: Tree,
    similarity_label: str = "coupling R²",
    distance_label: str = "WordNet path distance",
) -> Figure:
    """The kernel between classes beside the distances of the hierarchy, both in the order of the tree at their edge.

    similarity, distance: [G, G], symmetric, classes in the order of the tree's leaves. In both, dark is alike. The
    diagonal is within a class, and left out of colours and limits; these are the 2nd and 98th percentile, or, where
    values fall as far below 0 as half of what they rise, the 98th of |value|, with colours for both signs.

    Raises:
        InputError: a shape is wrong, a value off the diagonal is not finite, or there are fewer than 3 classes.
    """
    count = tree.leaves
    require(count >= 3, f"tree must have >= 3 leaves, got {count}; a matrix of fewer shows no order")
    matrices = {"similarity": np.array(similarity, dtype=float), "distance": np.array(distance, dtype=float)}
    for name, matrix in matrices.items():
        require_shape(name, matrix, (count, count), "pass the classes that are the tree's leaves")
        finite = bool(np.isfinite(matrix[~np.eye(count, dtype=bool)]).all())
        require(finite, f"{name} must be finite off the diagonal; drop the classes that have no value")
    order = tree.order()
    near, far = (matrix[np.ix_(order, order)] for matrix in matrices.values())
    figure = new_figure(DOUBLE, _SIDE + 1.15, w_pad=0.04, h_pad=0.02, wspace=0.02)
    left, right = figure.subplots(1, 2)
    # within the matrix' own axes, so that leaves are level with rows
    across = (_NAMES + _TREE + _STRIP) / _SIDE
    _edge(left.inset_axes((-across - 0.01, 0, across, 1)), tree, order)
    _draw_similarity(figure, left, near, similarity_label)
    low, high = np.percentile(far[~np.eye(count, dtype=bool)], [_LOW, _HIGH])
    words = f"{distance_label}\n{_percentiles(low, high)}\n"
    _draw(figure, right, far, "Blues_r", (low, high), words).ax.invert_xaxis()
    left.set_title("kernel")
    right.set_title("hierarchy")
    for axes in (left, right):
        axes.set_xlabel(f"{count:,} classes in the hierarchy's order", fontsize=7)
    return figure


def _draw_similarity(figure: Figure, axes: Axes, near: np.ndarray, label: str) -> None:
    within = np.diag(near)[np.isfinite(np.diag(near))]
    left_out = "diagonal: within a class, left out"
    left_out += minus(f" (median {np.median(within):.2g})") if within.size else ""
    off = near[~np.eye(len(near), dtype=bool)]
    low, high = np.percentile(off, [_LOW, _HIGH])
    if -low < _SIGNED * high:
        colours, limits, words = "Blues", (low, high), _percentiles(low, high)
    else:
        limit = float(np.percentile(np.abs(off), _HIGH)) or 1.0
        words = f"colours to ±{limit:.2g}, the {_HIGH}th percentile of |value|"
        colours, limits = DIVERGING, (-limit, limit)
    _draw(figure, axes, near, colours, limits, f"{label}\n{words}\n{left_out}")


def _draw(
    figure: Figure, axes: Axes, matrix: np.ndarray, colours: str, limits: tuple[float, float], text: str
) -> Colorbar:
    """Draw a matrix without its diagonal and, below it, the bar of its colours; limits: of the colours."""
    low, high = limits
    shown, tints = np.ma.masked_array(matrix, np.eye(len(matrix)) > 0), colormaps[colours].with_extremes(bad=FAINT)
    image = axes.imshow(shown, cmap=tints, vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    bar = colour_bar(figure, image, axes, text, 6.5, below=True, shrink=0.9, aspect=32, extend="both")
    bar.ax.tick_params(labelsize=6.5)
    bar.ax.locator_params(nbins=5)
    bar.outline.set(visible=True, edgecolor=FAINT, linewidth=0.6)  # pyright: ignore[reportCallIssue]
    return bar


def _percentiles(low: float, high: float) -> str:
    return minus(f"colours {low:.2g} to {high:.2g}: {_LOW}nd to {_HIGH}th percentile")


def _edge(axes: Axes, tree: Tree, order: np.ndarray) -> None:
    """Draw names, tree and strip of colours, the leaves level with the matrix' rows."""
    rows = np.empty(len(order))
    rows[order] = np.arange(len(order))
    count, across = len(order), _NAMES + _TREE + _STRIP
    axes.set(xlim=(0, across), ylim=(count - 0.5, -0.5))
    axes.set_axis_off()
    depth = tree.heights / tree.heights[tree.root]
    draw_tree(axes, tree, rows, across - _STRIP - 0.02 - depth * (_TREE - 0.04), tree_colours(tree), False, 0.6)
    strip = position_colours(tree.positions()[order])[:, None]
    axes.imshow(strip, extent=(across - _STRIP, across, count - 0.5, -0.5), aspect="auto", interpolation="nearest")
    branches, below = main_branches(tree, _MOST_NAMES), leaves_below(tree)
    ends = np.array([[rows[below[node]].min() - 0.35, rows[below[node]].max() + 0.35] for node in branches])
    inch = count / _SIDE
    centres = spread(ends.mean(1), np.full(len(branches), _SIZE * LINE * inch), -0.5, count - 0.5)
    colours = tree_colours(tree)[branches]
    for node, colour, (start, stop), centre in zip(branches, colours, ends, centres, strict=True):
        axes.plot([_NAMES - 0.03] * 2, [start, stop], color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot([_NAMES - 0.12, _NAMES - 0.04], [centre, (start + stop) / 2], color=colour, linewidth=0.7)
        name = fit(tree.names[node], _NAMES - 0.15, _SIZE)
        axes.text(_NAMES - 0.14, centre, name, fontsize=_SIZE, ha="right", va="center_baseline")
