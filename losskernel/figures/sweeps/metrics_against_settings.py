"""Metrics of several runs against what was varied between them: small multiples under a row of verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

from losskernel.errors import require
from losskernel.figures.shared.lettering import legend_below, letter, mark_sample, plain
from losskernel.figures.shared.panels import mark_verdicts, new_figure
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import DOUBLE, HIGHLIGHT, INK, paper
from losskernel.figures.shared.sweep_axis import Axis

_COLUMNS = 3
_DASHED, _DOTTED = (0, (4, 2)), (0, (1, 1.6))


@dataclass(frozen=True)
class Curve:
    """One metric along the axis; NaN where there is none."""

    name: str  # for the panel's legend, "" for none
    colour: str  # of line and markers
    values: np.ndarray  # [V]
    low: np.ndarray  # [V], lower ends of the error bars
    high: np.ndarray  # [V], upper ends
    verdicts: Sequence[str]  # [V]
    single: Sequence[Sequence[float]] = ()  # [V], values of the replicates behind each mean, drawn as faint dots
    control: np.ndarray | None = None  # [V], the same metric at nβ = 0
    floor: np.ndarray | None = None  # [V], what noise alone gives
    note: str = ""  # written at the curve's end
    shift: float = 0.0  # sideways, as a share of the gap between values


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    curves: Sequence[Curve]
    thresholds: Sequence[tuple[float, str]] = ()  # value, verdict
    bounds: tuple[float, float] | None = None  # of the axis where they are known


@dataclass(frozen=True)
class Row:
    """One row of verdicts."""

    name: str  # of the curve
    colour: str
    verdicts: Sequence[str]  # [V]
    stable: tuple[int, int] | None = None  # numbers of the first and the last value of the stable stretch


@paper()
def comparison(panels: Sequence[Panel], axis: Axis, rows: Sequence[Row], error_bars: str = "90 % interval") -> Figure:
    """Every panel's curves against the swept value, three panels to a row, below a strip of verdicts.

    The marker of every point is its run's verdict. The stable stretch is shaded: in the panels where there is one
    row of verdicts, in each row where there are several. error_bars: what they are, for the legend.

    Raises:
        InputError: there is no panel, or a curve or row does not have a value per place of the axis.
    """
    require(len(panels) > 0, "panels must not be empty; name a metric that the runs have")
    curves = [(curve.name or panel.title, curve.values) for panel in panels for curve in panel.curves]
    for name, values in [*((row.name, row.verdicts) for row in rows), *curves]:
        fits = len(values) == len(axis.names)
        require(fits, f"{name!r} has {len(values)} values for {len(axis.names)} places; pass one each")
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    strip = 0.17 * len(rows)
    upright = max(0.35, 0.055 * max(map(len, axis.printed()))) if axis.values is None else 0.0  # names of places
    named = 1 if len(panels) % columns == 0 else 2  # lines with panels that have none below them
    height = 1.42 * lines + strip + 0.75 + named * upright
    figure = new_figure(DOUBLE * columns / _COLUMNS, height, wspace=0.06, hspace=0.04)
    grid = GridSpec(lines + 1, columns, figure=figure, height_ratios=[strip, *[1.42] * lines])
    for column in range(columns):
        _verdicts(figure.add_subplot(grid[0, column]), axis, rows, column == 0)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        if len(rows) == 1 and rows[0].stable is not None:
            axes.axvspan(*axis.span(*rows[0].stable), color=HIGHLIGHT, linewidth=0, zorder=0)
        _panel(axes, panel, axis)
        letter(axes, number, plain(panel.title))
        axis.draw(axes, named=number + columns >= len(panels))
    legend_below(figure, _handles(rows, error_bars, panels))
    return figure


def _verdicts(axes: Axes, axis: Axis, rows: Sequence[Row], named: bool) -> None:
    for level, row in enumerate(rows):
        if row.stable is not None:
            low, high = axis.span(*row.stable)
            axes.fill_between([low, high], level - 0.5, level + 0.5, color=HIGHLIGHT, linewidth=0, zorder=0)
        for x, verdict in zip(axis.positions, row.verdicts, strict=True):
            shown = VERDICTS[verdict]
            size = min(5.0, 130 / len(axis.names))
            axes.plot(x, level, shown.marker, markersize=size, color=shown.colour, markeredgewidth=0.8, clip_on=False)
    axis.draw(axes, named=False)
    names = [plain(row.name) or "verdict" for row in rows] if named else []
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(ylim=(len(rows) - 0.5, -0.5))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for text, row in zip(axes.get_yticklabels(), rows, strict=False):
        text.set_color(row.colour if len(rows) > 1 else INK)


def _panel(axes: Axes, panel: Panel, axis: Axis) -> None:
    for value, word in panel.thresholds:
        axes.axhline(value, color=VERDICTS[word].colour, linewidth=0.8, zorder=1)
        above: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": "right"}
        axes.annotate(word, (1, value), (-1, 1.5), color=VERDICTS[word].colour, fontsize=6, **above)
    for curve in panel.curves:
        _curve(axes, curve, axis)
    asides = [values for curve in panel.curves for values, _ in _asides(curve)]
    shown = np.concatenate([*(np.asarray(curve.values) for curve in panel.curves), *asides])
    shown = shown[np.isfinite(shown)]
    # thresholds and values may lie decades apart
    wide = len(panel.thresholds) > 0 or (len(shown) > 0 and max(shown) > 20 * min(shown))
    if len(shown) and min(shown) > 0 and wide and not panel.bounds:
        axes.set_yscale("log")
        axes.margins(y=0.12)
        low, high = np.log10(axes.get_ylim())
        powers = np.floor(high) - np.ceil(low)  # between two of them a reader needs values in between
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if powers > 0 else (1.0, 2.0, 5.0), numticks=5))
        axes.yaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(9, 9)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if panel.bounds is not None:
            low, high = panel.bounds
            margin = 0.06 * (high - low)
            axes.set(ylim=(low - margin, high + margin), yticks=[low, (low + high) / 2, high])
        elif len(shown) and min(shown) >= 0:
            tops = np.concatenate([shown, *(curve.high[np.isfinite(curve.high)] for curve in panel.curves)])
            axes.set_ylim(0, 1.08 * max(tops) or 1.0)
    if any(curve.name for curve in panel.curves):  # beside the title, where it covers no curve
        near: dict[str, Any] = {"fontsize": 6.5, "handlelength": 0.9, "handletextpad": 0.3, "columnspacing": 0.8}
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=2, borderaxespad=0, **near)


def _curve(axes: Axes, curve: Curve, axis: Axis) -> None:
    positions, known = axis.shifted(curve.shift), np.isfinite(curve.values)
    line = "-" if axis.values is not None else "none"
    size = min(4.2, 110 / len(positions))
    for values, look in _asides(curve):
        measured = np.isfinite(values)
        axes.plot(axis.positions[measured], values[measured], zorder=1, **dict(look, label=None))
    axes.plot(positions[known], curve.values[known], linestyle=line, color=curve.colour, zorder=2)
    # errorbar wants lengths; a bound on the wrong side of its value is drawn as none
    reach = np.maximum([curve.values - curve.low, curve.high - curve.values], 0)
    axes.errorbar(positions, curve.values, reach, fmt="none", ecolor=curve.colour)
    for x, several in zip(positions, curve.single, strict=False):
        if len(several) > 1:
            axes.plot([x] * len(several), several, ".", color=curve.colour, markersize=3, alpha=0.5, linewidth=0)
    mark_verdicts(axes, positions, curve.values, curve.verdicts, curve.colour, size)
    axes.plot([], [], "-", color=curve.colour, label=curve.name or None)
    if curve.note and known.any():
        end = positions[known][-1], curve.values[known][-1]
        axes.annotate(curve.note, end, (3, 6), textcoords="offset points", ha="right", fontsize=6.5)


def _asides(curve: Curve) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Return what a curve is held against, as far as it is known, and its look."""
    floor = {"color": INK, "linestyle": _DOTTED, "linewidth": 0.9, "label": "Monte-Carlo floor"}
    control = {"color": curve.colour, "linestyle": _DASHED, "linewidth": 0.9, "label": "control, nβ = 0"}
    both = ((curve.floor, floor), (curve.control, control))
    return [(values, look) for values, look in both if values is not None and np.isfinite(values).any()]


def _handles(rows: Sequence[Row], error_bars: str, panels: Sequence[Panel]) -> list[Artist]:
    """Return the legend's entries: verdicts that occur, shading, bars, lines. The rows name the curves."""
    there = {verdict for row in rows for verdict in row.verdicts}
    shown = [look for verdict, look in VERDICTS.items() if verdict in there]
    handles: list[Artist] = [mark_sample(look.word, look.marker, look.colour, 5) for look in shown]
    curves = [curve for panel in panels for curve in panel.curves]
    if any(row.stable is not None for row in rows):
        handles.append(Patch(color=HIGHLIGHT, linewidth=0, label="stable region"))
    if any(np.isfinite(curve.low).any() for curve in curves):
        handles.append(mark_sample(error_bars, "|", INK, 8))
    asides = {look["label"]: look for curve in curves for _, look in _asides(curve)}
    return [*handles, *(Line2D([], [], **dict(look, color=INK)) for look in asides.values())]
