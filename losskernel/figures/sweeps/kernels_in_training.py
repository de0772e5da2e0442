"""Kernels over training: how far they travel, and maps of the probes at several stages."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from losskernel.errors import require
from losskernel.figures.shared.checks import require_finite, require_shape
from losskernel.figures.shared.colouring import colour_by, colour_key
from losskernel.figures.shared.lettering import labelled, legend_below, letter_all
from losskernel.figures.shared.panels import (
    draw_points,
    draw_steps,
    grid_of,
    mark_doubt,
    mark_verdicts,
    new_figure,
    verdict_handles,
)
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, OKABE_ITO, paper
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
        InputError: the arrays do not belong to the steps.
    """
    count = len(axis.names)
    for name, values in (("distances", distances), ("floor", floor)):
        require_shape(name, values, (count, count), "pass one per step")
    for name, values in (("verdicts", verdicts), ("losses", losses)):
        require_shape(name, values, (count,), "pass one per step")
    figure = new_figure(DOUBLE, 2.6, wspace=0.06)
    known = np.isfinite(losses)
    panels = figure.subplots(1, 2, width_ratios=[1.25, 1.0]) if known.any() else [figure.subplots()]
    _distances(panels[0], axis.positions, distances, floor, verdicts)
    if known.any():
        _losses(panels[1], axis.positions[known], losses[known])
    letter_all(panels, ("how far the kernel travels", "probe loss"))
    for axes in panels:
        axis.draw(axes, named=True)
    legend_below(figure, [*labelled(figure), *verdict_handles(verdicts)])
    return figure


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


def _distances(
    axes: Axes, positions: np.ndarray, distances: np.ndarray, floor: np.ndarray, verdicts: Sequence[str]
) -> None:
    for name, number, colour in (("to the first", 0, _FIRST), ("to the last", len(positions) - 1, _LAST)):
        to = np.delete(np.arange(len(positions)), number)
        # what noise alone would give lies below the curve, in its colour
        axes.fill_between(positions[to], 0, floor[number, to], color=colour, alpha=0.12, linewidth=0)
        axes.plot(positions, distances[number], color=colour, label=name, zorder=2)
        mark_verdicts(axes, positions, distances[number], verdicts, colour)
    draw_steps(axes, positions, np.diagonal(distances, 1), np.diagonal(floor, 1), INK, key=True)
    axes.set(ylim=(0, 1.08 * max(float(np.nanmax(distances)), 1e-3)), ylabel="angular CKA distance, rad")
    axes.locator_params(axis="y", nbins=5)


@paper()
def aligned_maps(
    layouts: np.ndarray, labels: np.ndarray, label_name: str, titles: Sequence[str], verdicts: Sequence[str]
) -> Figure:
    """At most eight of the maps, evenly chosen, the first and the last among them, on one scale.

    A map whose kernel does not pass its diagnosis says so in its title.

    layouts: [P, N, 2]. labels: [N]. titles, verdicts: [P].

    Raises:
        InputError: a shape is wrong, or a coordinate is not finite.
    """
    layouts = checked(layouts, titles)
    fits = len(verdicts) == len(titles)
    require(fits, f"verdicts must be one per map, got {len(verdicts)} for {len(titles)} maps")
    colouring = colour_by(labels, "labels", layouts.shape[1])
    # the first and the last are always among them
    chosen = np.unique(np.linspace(0, len(layouts) - 1, min(_MOST, len(layouts))).round().astype(int))
    low, high = layouts.min(axis=(0, 1)), layouts.max(axis=(0, 1))
    # one square window for all maps, 6 % wider than the points
    reach = 0.53 * float((high - low).max()) or 1.0
    (left, bottom), (right, top) = (low + high) / 2 - reach, (low + high) / 2 + reach
    size = float(np.clip(1500 / layouts.shape[1], 0.6, 8.0))
    figure = new_figure(DOUBLE * min(1.0, len(chosen) / _COLUMNS), 1.95 * -(-len(chosen) // _COLUMNS) + 0.5)
    panels = grid_of(figure, len(chosen), _COLUMNS)
    for axes, number in zip(panels, chosen, strict=True):
        draw_points(axes, layouts[number], colouring.rgba, size)
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set(visible=True, color=FAINT)
        axes.set_title(titles[int(number)], fontsize=7, pad=3)
        mark_doubt(axes, verdicts[int(number)])
    colour_key(figure, panels, colouring, label_name)
    return figure


def checked(layouts: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """Return maps [P, N, 2] as floats.

    Raises:
        InputError: they are not that, not one per title, or not finite.
    """
    layouts = np.asarray(layouts, dtype=float)
    require_shape("layouts", layouts, ("P", "N", 2), "pass one map per stage")
    require(len(titles) == len(layouts), f"titles must be one per map, got {len(titles)} for {len(layouts)} maps")
    require_finite("layouts", layouts, "drop those probes first")
    return layouts
