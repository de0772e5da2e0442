"""A map in space, coloured by place in a hierarchy, seen from three sides."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from losskernel.data.taxonomy import Tree
from losskernel.figures.shared.style import DOUBLE, paper
from losskernel.figures.trees.shortened_gaps import shortened
from losskernel.figures.trees.taxonomy_map import located
from losskernel.figures.trees.tree_colours import tree_colours
from losskernel.figures.trees.tree_key import key_below
from losskernel.figures.trees.views import draw_views

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
