"""Several kernels over the same probes, measured alike: a row each, a panel per measure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from losskernel.errors import require
from losskernel.figures.shared.colouring import LOSS_KERNELS, printed
from losskernel.figures.shared.lettering import fit, legend_below, mark_sample
from losskernel.figures.shared.panels import grid_of, new_figure
from losskernel.figures.shared.style import DOUBLE, HIGHLIGHT, MUTED, OKABE_ITO, SINGLE, paper

_TITLES = {
    "spearman_classes": "Spearman with hierarchy, pairs of classes",
    "kendall_classes": "Kendall with hierarchy, pairs of classes",
    "spearman_images": "Spearman with hierarchy, pairs of images",
    "kendall_images": "Kendall with hierarchy, pairs of images",
    "partial": "partial correlation, features held fixed",
    "knn": "k-NN precision",
    "ami": "AMI of clusters",
    "nmi": "NMI of clusters",
    "purity": "purity of clusters",
    "dendrogram_purity": "dendrogram purity",
    "cophenetic": "cophenetic correlation",
}
_OF_A_LEVEL = ("knn", "ami", "nmi", "purity", "dendrogram_purity")
_ACROSS = 5  # panels in a row
_ROW = 0.19  # inches
_NAMES = 1.45  # inches, left of the first panel
_SURE = 0.05
CHANCE = "#C9C9C9"


@paper()
def kernel_comparison(table: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """A dot per kernel in every panel, with its interval; the loss kernel's rows on a tint, above the others.

    table: a row per kernel, named in "kernel" (the loss kernel's "coupling", "abs_r" and "r"); a panel per column x,
    with x_low and x_high for its 90 % interval, x_null_low and x_null_high for what chance gives, and x_p where the
    table has them. A dot is hollow where p > 0.05. "level" names the level of clusters and neighbours.

    Raises:
        InputError: no columns, no rows, or a column that the table does not have.
    """
    missing = [name for name in ("kernel", *columns) if name not in table]
    require(not missing, f"table has no column {''.join(missing[:1])!r}; it has {', '.join(map(str, table.columns))}")
    filled = len(columns) > 0 and len(table) > 0
    require(filled, "table and columns must not be empty; name a measure and give a row per kernel")
    ours = table["kernel"].isin(list(LOSS_KERNELS)).to_numpy()
    # the loss kernel's rows first, others in their order
    table = table.iloc[np.argsort(~ours, kind="stable")].reset_index(drop=True)
    rows, across = -(-len(columns) // _ACROSS), min(len(columns), _ACROSS)
    wide = max(SINGLE, _NAMES + (DOUBLE - _NAMES) * across / _ACROSS)
    figure = new_figure(wide, rows * (_ROW * len(table) + 0.75) + 0.3, wspace=0.04, hspace=0.06)
    for index, (axes, column) in enumerate(zip(grid_of(figure, len(columns), _ACROSS), columns, strict=True)):
        _panel(axes, table, column, int(ours.sum()), named=index % across == 0)
    legend_below(figure, _handles(table, columns), columns=4)
    return figure


def _panel(axes: Axes, table: pd.DataFrame, column: str, highlighted: int, named: bool) -> None:
    if highlighted:
        axes.axhspan(-0.5, highlighted - 0.5, color=HIGHLIGHT, linewidth=0, zorder=0)
    for row, values in enumerate(table.to_dict("records")):
        value = values[column]
        if not np.isfinite(value):
            continue
        colour = OKABE_ITO[0] if str(values["kernel"]) in LOSS_KERNELS else MUTED
        if chance := _pair(values, f"{column}_null"):
            axes.fill_between(chance, row - 0.32, row + 0.32, color=CHANCE, linewidth=0, zorder=1)
        draw_row(axes, row, value, _pair(values, column), colour, values.get(f"{column}_p", 0.0) > _SURE)
    furnish_rows(axes, [printed(str(name)) if named else "" for name in table["kernel"]])
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=6.5)
    title = _TITLES.get(column, column.replace("_", " "))
    level = str(table["level"].iloc[0]) if column in _OF_A_LEVEL and "level" in table else ""
    title = fit(title, 1.08, 7, lines=3)
    axes.set_title(f"{title}\n{level}" if level else title, fontsize=7, pad=4)


def _pair(values: Mapping[Any, Any], name: str) -> tuple[float, float] | None:
    low, high = values.get(f"{name}_low", np.nan), values.get(f"{name}_high", np.nan)
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None


def _handles(table: pd.DataFrame, columns: Sequence[str]) -> list[Artist]:
    handles: list[Artist] = []
    there = [name for column in columns for name in table.columns if name.startswith(f"{column}_")]
    if any(name.endswith("_low") and "_null" not in name for name in there):
        handles.append(Line2D([], [], color=MUTED, linewidth=1.1, label="90 % interval"))
    bands = row_handles(chance=any(name.endswith("_null_low") for name in there))
    if any(name.endswith("_p") for name in there):
        bands.insert(-1, mark_sample("p > 0.05", "o", MUTED, 4.2, face="white"))
    return [*handles, *bands]


def draw_row(
    axes: Axes, row: float, value: float, interval: tuple[float, float] | None, colour: str, hollow: bool
) -> None:
    """Draw a value with its interval, if it has one."""
    if interval is not None:
        axes.plot(interval, [row, row], color=colour, linewidth=1.1, zorder=3)
    axes.plot(value, row, "o", color=colour, markerfacecolor="white" if hollow else colour, markersize=4, zorder=4)


def furnish_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows, from the top, and mark where the values are 0."""
    axes.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
    axes.set(xmargin=0.06, ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def row_handles(chance: bool = True) -> list[Artist]:
    """Return the legend's entries of the bands behind the rows."""
    bands = {"90 % of permutations": CHANCE, "the loss kernel": HIGHLIGHT}
    handles: list[Artist] = [Patch(color=colour, linewidth=0, label=label) for label, colour in bands.items()]
    return handles if chance else handles[1:]
