"""Metrics of several runs against what was varied between them: small multiples under a row of verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

from losskernel.figures.shared.lettering import legend_below, letter, mark_sample, plain
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, new_figure, paper
from losskernel.figures.shared.sweep_axis import Axis

STABLE = "#DDEBF4"
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


@dataclass(frozen=True)
class _Key:
    """What the legend has to explain."""

    handles: dict[str, Line2D | Patch] = field(default_factory=dict)

    def add(self, label: str, **look: object) -> None:
        self.handles.setdefault(label, Line2D([], [], label=label, **look))  # pyright: ignore[reportArgumentType]


@paper()
def comparison(panels: Sequence[Panel], axis: Axis, rows: Sequence[Row], error_bars: str = "90 % interval") -> Figure:
    """Every panel's curves against the swept value, three panels to a row, below a strip of verdicts.

    The marker of every point is its run's verdict. The stable stretch is shaded: in the panels where there is one
    row of verdicts, in each row where there are several. error_bars: what they are, for the legend.

    Raises:
        ValueError: there is no panel, or a curve or row does not have a value per place of the axis.
    """
    if not panels:
        raise ValueError("panels must not be empty; name a metric that the runs have")
    for name, values in [(row.name, row.verdicts) for row in rows] + [
        (curve.name or panel.title, curve.values) for panel in panels for curve in panel.curves
    ]:
        if len(values) != len(axis.names):
            raise ValueError(f"{name!r} has {len(values)} values for {len(axis.names)} places; pass one each")
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    strip = 0.17 * len(rows)
    upright = max(0.35, 0.055 * max(map(len, axis.printed()))) if axis.values is None else 0.0  # names of places
    named = 1 if len(panels) % columns == 0 else 2  # lines with panels that have none below them
    height = 1.42 * lines + strip + 0.75 + named * upright
    figure = new_figure(DOUBLE * columns / _COLUMNS, height, wspace=0.06, hspace=0.04)
    grid = GridSpec(lines + 1, columns, figure=figure, height_ratios=[strip, *[1.42] * lines])
    key = _Key()
    for column in range(columns):
        _verdicts(figure.add_subplot(grid[0, column]), axis, rows, column == 0)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        if len(rows) == 1 and rows[0].stable is not None:
            axes.axvspan(*axis.span(*rows[0].stable), color=STABLE, linewidth=0, zorder=0)
        _panel(axes, panel, axis, key)
        letter(axes, number, plain(panel.title))
        axis.draw(axes, named=number + columns >= len(panels))
    legend_below(figure, _handles(rows, key, error_bars, panels))
    return figure


def _verdicts(axes: Axes, axis: Axis, rows: Sequence[Row], named: bool) -> None:
    for level, row in enumerate(rows):
        if row.stable is not None:
            low, high = axis.span(*row.stable)
            axes.fill_between([low, high], level - 0.5, level + 0.5, color=STABLE, linewidth=0, zorder=0)
        for x, verdict in zip(axis.positions, row.verdicts, strict=True):
            shown = VERDICTS[verdict]
            size = min(5.0, 130 / len(axis.names))
            axes.plot(x, level, shown.marker, markersize=size, color=shown.colour, markeredgewidth=0.8, clip_on=False)
    axis.draw(axes, named=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    if named:
        names = [plain(row.name) or "verdict" for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=7)
        axes.tick_params(axis="y", length=0)
        for text, row in zip(axes.get_yticklabels(), rows, strict=True):
            text.set_color(row.colour if len(rows) > 1 else INK)


def _panel(axes: Axes, panel: Panel, axis: Axis, key: _Key) -> None:
    _thresholds(axes, panel)
    for curve in panel.curves:
        _curve(axes, curve, axis, key)
    shown = np.concatenate([np.array([*curve.values, *_aside(curve)]) for curve in panel.curves])
    shown = shown[np.isfinite(shown)]
    limits = [value for value, _ in panel.thresholds]
    # thresholds and values may lie decades apart
    wide = bool(limits) or (len(shown) > 0 and max(shown) > 20 * min(shown))
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
        look = {"fontsize": 6.5, "handlelength": 0.9, "handletextpad": 0.3, "columnspacing": 0.8, "borderaxespad": 0}
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=2, **look)  # pyright: ignore[reportArgumentType]


def _curve(axes: Axes, curve: Curve, axis: Axis, key: _Key) -> None:
    positions, known = axis.shifted(curve.shift), np.isfinite(curve.values)
    line = "-" if axis.values is not None else "none"
    size = min(4.2, 110 / len(positions))
    if curve.floor is not None and np.isfinite(curve.floor).any():
        _aside_line(axes, axis, curve.floor, {"color": INK, "linestyle": _DOTTED, "linewidth": 0.9})
        key.add("Monte-Carlo floor", color=INK, linestyle=_DOTTED, linewidth=0.9)
    if curve.control is not None and np.isfinite(curve.control).any():
        _aside_line(axes, axis, curve.control, {"color": curve.colour, "linestyle": _DASHED, "linewidth": 0.9})
        key.add("control, nβ = 0", color=MUTED, linestyle=_DASHED, linewidth=0.9)
    axes.plot(positions[known], curve.values[known], linestyle=line, color=curve.colour, zorder=2)
    bars = known & np.isfinite(curve.low) & np.isfinite(curve.high)
    if bars.any():
        # errorbar wants lengths; a bound on the wrong side of its value is drawn as none
        reach = np.stack([curve.values - curve.low, curve.high - curve.values])[:, bars]
        axes.errorbar(positions[bars], curve.values[bars], np.maximum(reach, 0), fmt="none", ecolor=curve.colour)
    for x, several in zip(positions, curve.single, strict=False):
        if len(several) > 1:
            axes.plot([x] * len(several), several, ".", color=curve.colour, markersize=3, alpha=0.5, linewidth=0)
    for verdict, shown in VERDICTS.items():
        these = known & (np.asarray(curve.verdicts) == verdict)
        face = "white" if verdict == "warn" else curve.colour
        look = {"markerfacecolor": face, "markeredgecolor": curve.colour, "markeredgewidth": 0.9, "markersize": size}
        axes.plot(positions[these], curve.values[these], marker=shown.marker, linestyle="", zorder=3, **look)  # pyright: ignore
    axes.plot([], [], "-", color=curve.colour, label=curve.name or None)
    if curve.note and known.any():
        last = np.flatnonzero(known)[-1]
        look = {"textcoords": "offset points", "ha": "right", "fontsize": 6.5}
        axes.annotate(curve.note, (positions[last], curve.values[last]), (3, 6), **look)  # pyright: ignore[reportArgumentType]


def _aside(curve: Curve) -> list[float]:
    return [float(value) for part in (curve.floor, curve.control) if part is not None for value in part]


def _aside_line(axes: Axes, axis: Axis, values: np.ndarray, look: dict[str, object]) -> None:
    known = np.isfinite(values)
    axes.plot(axis.positions[known], values[known], zorder=1, **look)  # pyright: ignore[reportArgumentType]


def _thresholds(axes: Axes, panel: Panel) -> None:
    for value, word in panel.thresholds:
        axes.axhline(value, color=VERDICTS[word].colour, linewidth=0.8, linestyle="-", zorder=1)
        above: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": "right"}
        axes.annotate(word, (1, value), (-1, 1.5), color=VERDICTS[word].colour, fontsize=6, **above)


def _handles(rows: Sequence[Row], key: _Key, error_bars: str, panels: Sequence[Panel]) -> list[Line2D | Patch]:
    """Return the legend's entries: verdicts that occur, shading, bars, lines. The rows name the curves."""
    handles: list[Line2D | Patch] = []
    there = {verdict for row in rows for verdict in row.verdicts}
    for verdict, shown in VERDICTS.items():
        if verdict in there:
            handles.append(mark_sample(shown.word, shown.marker, shown.colour, 5))
    if any(row.stable is not None for row in rows):
        handles.append(Patch(color=STABLE, linewidth=0, label="stable region"))
    if any(np.isfinite(curve.low).any() for panel in panels for curve in panel.curves):
        handles.append(Line2D([], [], color=FAINT, linestyle="", marker="|", markersize=8, label=error_bars))
        handles[-1].set_color(INK)
    return [*handles, *key.handles.values()]
