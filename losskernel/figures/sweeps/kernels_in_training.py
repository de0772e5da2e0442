"""Kernels over training: how far they travel, and maps of the probes at several stages."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from losskernel.figures.shared.colouring import colour_by, colour_key
from losskernel.figures.shared.lettering import legend_below, letter, mark_sample
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import (
    DOUBLE,
    FAINT,
    INK,
    OKABE_ITO,
    mark_doubt,
    new_figure,
    paper,
    require_finite,
    require_shape,
    shuffled,
)
from losskernel.figures.shared.sweep_axis import Axis

_FIRST, _LAST = OKABE_ITO[3], OKABE_ITO[0]  # distance to the first and to the last kernel
_MOST = 8  # maps
_COLUMNS = 4


@paper()
def along_training(
    axis: Axis, distances: np.ndarray, floor: np.ndarray, verdicts: Sequence[str], losses: np.ndarray
) -> Figure:
    """Distances of each kernel to the first, the last and the next, and the probes' loss, against the step.

    axis: the P steps, ascending. distances: [P, P] angular CKA, rad. floor: [P, P] what noise alone would give, NaN
    where unknown. verdicts: [P]. losses: [P] mean loss of the probes at each checkpoint, NaN where unknown.

    Raises:
        ValueError: the arrays do not belong to the steps.
    """
    count = len(axis.names)
    for name, values in (("distances", distances), ("floor", floor)):
        require_shape(name, values, (count, count), "pass one per step")
    for name, values in (("verdicts", verdicts), ("losses", losses)):
        require_shape(name, values, (count,), "pass one per step")
    figure = new_figure(DOUBLE, 2.6, wspace=0.06)
    known = np.isfinite(losses)
    panels = figure.subplots(1, 2, width_ratios=[1.25, 1.0]) if known.any() else [figure.subplots()]
    left = panels[0]
    _distances(left, axis, distances, floor, verdicts)
    if known.any():
        _losses(panels[1], axis.positions[known], losses[known])
    for number, (axes, title) in enumerate(zip(panels, ("how far the kernel travels", "probe loss"), strict=False)):
        letter(axes, number, title)
        axis.draw(axes, named=True)
    legend_below(figure, [*left.get_legend_handles_labels()[0], *_verdicts(verdicts)])
    return figure


def _verdicts(there: Sequence[str]) -> list[Line2D]:
    return [
        mark_sample(shown.word, shown.marker, INK, 4.5, face="white" if verdict == "warn" else INK)
        for verdict, shown in VERDICTS.items()
        if verdict in there
    ]


def _losses(axes: Axes, positions: np.ndarray, losses: np.ndarray) -> None:
    axes.plot(positions, losses, color=INK, marker="o", markersize=3.5)
    low, high = float(losses.min()), float(losses.max())
    # losses that fall by less than a decade read better from zero
    if low > 0 and high > 10 * low:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(min(low, 0.0), 1.1 * high or 1.0)
    axes.set_ylabel("mean loss at the checkpoint")


def _distances(axes: Axes, axis: Axis, distances: np.ndarray, floor: np.ndarray, verdicts: Sequence[str]) -> None:
    positions = axis.positions
    for number, (name, colour) in enumerate(((0, _FIRST), (len(positions) - 1, _LAST))):
        to = np.delete(np.arange(len(positions)), name)
        # what noise alone would give lies below the curve, in its colour
        axes.fill_between(positions[to], 0, floor[name, to], color=colour, alpha=0.12, linewidth=0)
        label = ("to the first", "to the last")[number]
        axes.plot(positions, distances[name], color=colour, label=label, zorder=2)
        for x, value, verdict in zip(positions, distances[name], verdicts, strict=True):
            face = "white" if verdict == "warn" else colour
            axes.plot(x, value, VERDICTS[verdict].marker, color=colour, markerfacecolor=face, markersize=4.5, zorder=3)
    for i, (here, after) in enumerate(pairwise(range(len(positions)))):
        label = "to the next" if i == 0 else None
        axes.plot(positions[[here, after]], [distances[here, after]] * 2, color=INK, linewidth=1.6, label=label)
        noise = "noise alone" if i == 0 and np.isfinite(floor).any() else None
        look: dict[str, Any] = {"color": FAINT, "linewidth": 0, "label": noise, "zorder": 1}
        axes.fill_between(positions[[here, after]], 0, floor[here, after], **look)
    axes.set_ylim(0, 1.08 * max(float(np.nanmax(distances)), 1e-3))
    axes.locator_params(axis="y", nbins=5)
    axes.set_ylabel("angular CKA distance, rad")


@paper()
def aligned_maps(
    layouts: np.ndarray, labels: np.ndarray, label_name: str, titles: Sequence[str], verdicts: Sequence[str]
) -> Figure:
    """At most eight of the maps, evenly chosen, the first and the last among them, on one scale.

    A map whose kernel does not pass its diagnosis says so in its title.

    layouts: [P, N, 2]. labels: [N]. titles, verdicts: [P].

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    layouts = checked(layouts, titles)
    if len(verdicts) != len(titles):
        raise ValueError(f"verdicts must be one per map, got {len(verdicts)} for {len(titles)} maps")
    colouring = colour_by(labels, "labels", layouts.shape[1])
    # the first and the last are always among them
    chosen = np.unique(np.linspace(0, len(layouts) - 1, min(_MOST, len(layouts))).round().astype(int))
    columns = min(_COLUMNS, len(chosen))
    lines = -(-len(chosen) // columns)
    order = shuffled(layouts.shape[1])
    low, high = layouts.min(axis=(0, 1)), layouts.max(axis=(0, 1))
    # one square window for all maps, 6 % wider than the points
    reach = 0.53 * float((high - low).max()) or 1.0
    (left, bottom), (right, top) = (low + high) / 2 - reach, (low + high) / 2 + reach
    size = float(np.clip(1500 / len(order), 0.6, 8.0))
    figure = new_figure(DOUBLE * columns / _COLUMNS, 1.95 * lines + 0.5)
    panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for axes, number in zip(panels, chosen, strict=False):
        look: dict[str, Any] = {"linewidths": 0, "alpha": 0.85, "rasterized": True}
        axes.scatter(*layouts[number][order].T, s=size, c=colouring.rgba[order], **look)
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set(visible=True, color=FAINT)
        axes.set_title(titles[number], fontsize=7, pad=3)
        mark_doubt(axes, str(verdicts[number]))
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    colour_key(figure, list(panels), colouring, label_name)
    return figure


def checked(layouts: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """Return maps [P, N, 2] as floats.

    Raises:
        ValueError: they are not that, not one per title, or not finite.
    """
    layouts = np.asarray(layouts, dtype=float)
    require_shape("layouts", layouts, ("P", "N", 2), "pass one map per stage")
    if len(titles) != len(layouts):
        raise ValueError(f"titles must be one per map, got {len(titles)} for {len(layouts)} maps")
    require_finite("layouts", layouts, "drop those probes first")
    return layouts
