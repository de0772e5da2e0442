"""A kernel level by level of a hierarchy: by relation, by shared level, by depth, and as it emerges in training."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from losskernel.errors import require
from losskernel.figures.shared.checks import require_shape
from losskernel.figures.shared.colouring import LOSS_KERNELS, printed
from losskernel.figures.shared.lettering import fit, legend_below, mark_sample, width
from losskernel.figures.shared.panels import new_figure
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, SEQUENTIAL, SINGLE, paper
from losskernel.figures.shared.sweep_axis import Axis

_MOST_PAIRS = 4000  # for the shape of a violin
_STEPS = 200
_MOST_NARROW = 8  # relations that fit into one column
_STEEP = 20.0  # ratio of the largest to the least coupling from which the axis is logarithmic
# Black is the loss kernel's; shapes as well as colours, for grey prints.
_OTHERS = (*OKABE_ITO[1:4], *OKABE_ITO[4:6], "#7918FF", "#6D310C")
_CURVE_MARKS = ("s", "^", "D", "v", "P", "X", "<", ">")
_SPREAD = 0.05  # of a level: error bars of several curves lie side by side
_LEVEL_COLOURS = (OKABE_ITO[0], OKABE_ITO[3], OKABE_ITO[2], OKABE_ITO[4], OKABE_ITO[1], OKABE_ITO[5])
_LEVEL_MARKS = ("o", "s", "^", "D", "v", "P")


@paper()
def relatedness(
    names: Sequence[str],
    correlations: Sequence[np.ndarray],
    coupling: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    floor: float | None,
) -> Figure:
    """The distribution of R for each relation, on one axis, and beneath it the coupling with its 90 % interval.

    names: L relations, from same class to farthest. correlations: R of the pairs of each. coupling, low, high: [L].
    floor: the mean |R| that sampling noise alone gives, or None. The share of negative R is printed above each,
    because relatives that compete for probability have R < 0, whatever their coupling.

    Raises:
        InputError: not one entry per relation, a relation without pairs, or a number that is not finite.
    """
    values, count = [np.asarray(sample, dtype=float) for sample in correlations], len(names)
    complete = 0 < count == len(values)
    require(complete, f"correlations must be one array per relation ({count}), got {len(values)}; name them all")
    for name, sample in zip(names, values, strict=True):
        usable = sample.ndim == 1 and sample.size > 0 and bool(np.isfinite(sample).all())
        require(usable, f"correlations of {name!r} must be [pairs], finite and not empty; drop the relation")
    for name, numbers in {"coupling": coupling, "low": low, "high": high}.items():
        usable, wanted = np.shape(numbers) == (count,) and bool(np.isfinite(numbers).all()), f"{count} finite numbers"
        require(usable, f"{name} must be {wanted}, one per relation, got shape {np.shape(numbers)}")
    colours = [to_hex(shade) for shade in colormaps[SEQUENTIAL](np.linspace(0, 0.85, count))]  # its end is too pale
    narrow = count <= _MOST_NARROW
    figure = new_figure(SINGLE if narrow else DOUBLE, 3.9, hspace=0.06)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.35, 1])
    _distributions(upper, values, colours)
    _couplings(lower, np.asarray(coupling), np.asarray(low), np.asarray(high), colours)
    handles: list[Artist] = [mark_sample("median", "o", MUTED, face="white")]
    handles.append(Line2D([], [], color=MUTED, linewidth=3, label="middle half"))
    if floor is not None:
        noise = f"noise: mean |R| = {floor:.2g}"
        handles.append(upper.axhspan(-floor, floor, color=FAINT, linewidth=0, zorder=0, label=noise))
    legend_below(figure, handles, columns=3)
    _name_relations(lower, names, (2.7 if narrow else 6.2) / count)
    return figure


def _name_relations(axes: Axes, names: Sequence[str], inches: float) -> None:
    """Write the relations' names below them, in so many inches each: on two lines, or slanted where words are long."""
    turned = max(width(word, 7) for name in names for word in name.split()) > 0.9 * inches
    shown = list(names) if turned else [fit(name, 0.9 * inches, 7, lines=2) for name in names]
    axes.set(xlim=(-0.6, len(names) - 0.4), xlabel="lowest common ancestor (depth 0: the root)")
    axes.set_xticks(range(len(names)), shown, rotation=40 if turned else 0, ha="right" if turned else "center")
    axes.tick_params(axis="x", length=0)


def _distributions(axes: Axes, values: Sequence[np.ndarray], colours: Sequence[str]) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
    # thousands of pairs have the shape of an even part of them, and few lie beyond these quantiles
    ends = [np.linspace(0.005, 0.995, min(len(sample), _MOST_PAIRS)) for sample in values]
    parts = [np.quantile(sample, shares) for sample, shares in zip(values, ends, strict=True)]
    violins: Any = axes.violinplot(parts, range(len(parts)), widths=0.8, points=_STEPS, showextrema=False)["bodies"]
    for index, (sample, colour) in enumerate(zip(values, colours, strict=True)):
        violins[index].set(facecolor=colour, alpha=0.35, linewidth=0, zorder=2)
        quarter, middle, three = np.quantile(sample, [0.25, 0.5, 0.75])
        axes.plot([index, index], [quarter, three], color=colour, linewidth=3, solid_capstyle="butt", zorder=3)
        axes.plot(index, middle, "o", color=colour, markerfacecolor="white", markersize=4, zorder=4)
        above = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "fontsize": 6.5}
        axes.annotate(f"{100 * np.mean(sample < 0):.0f}%", (index, 1), (0, 8), ha="center", **above)
    axes.annotate("R < 0:", (0, 1), (-3, 8), "axes fraction", "offset points", ha="right", fontsize=6.5)
    axes.tick_params(axis="x", length=0)
    axes.locator_params(axis="y", nbins=6)
    axes.set_ylabel("R of a pair of probes\n(below 0 they compete)")


def _couplings(axes: Axes, value: np.ndarray, low: np.ndarray, high: np.ndarray, colours: Sequence[str]) -> None:
    axes.plot(value, color=FAINT, linewidth=0.9, zorder=1)
    reach = np.maximum([value - low, high - value], 0.0)
    for row, colour in enumerate(colours):
        axes.errorbar(row, value[row], reach[:, row, None], fmt="o", color=colour, markersize=4, capsize=2.5)
    if low.min() > 0 and value.max() > _STEEP * value.min():
        axes.set_yscale("log")
    else:
        if value.max() > _STEEP * max(float(np.median(high - low)) / 2, 1e-12):
            # What is smaller than its error lies in the linear part.
            linear = float(10 ** np.ceil(np.log10(max(float(np.min(high - low)) / 2, 1e-12))))
            axes.set_yscale("symlog", linthresh=linear, linscale=0.6)
        else:
            axes.locator_params(axis="y", nbins=5)
        axes.axhline(0, color=MUTED, linewidth=0.6, zorder=0)
    axes.set_ylabel("coupling R², unbiased\n(bars: 90 % intervals)")


@paper()
def shared_levels(table: pd.DataFrame) -> Figure:
    """A point with its 90 % interval for every level, from pairs that share none up.

    table: columns shared, pairs, coupling, and low and high where an error is known.
    """
    coupling, low, high = (table[name].to_numpy(float) for name in ("coupling", "low", "high"))
    figure = new_figure(SINGLE, 2.4)
    axes = figure.subplots()
    axes.vlines(range(len(table)), low, high, color=OKABE_ITO[0], linewidth=1.2)
    axes.plot(coupling, "o", color=OKABE_ITO[0], markersize=4.5)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    # Levels differ by orders of magnitude, and an estimate without floor may fall below 0.
    axes.set_yscale("symlog", linthresh=max(float(np.abs(coupling).min()), 1e-5))
    axes.yaxis.set_minor_formatter(NullFormatter())
    rows = zip(table["shared"].astype(str).str.replace("_", " "), table["pairs"], strict=True)
    axes.set_xticks(range(len(table)), [f"{name}\n{pairs:,}" for name, pairs in rows], fontsize=6.5)
    axes.set(xlim=(-0.5, len(table) - 0.5), ylim=(min(2 * float(low.min()), 0), 3 * float(high.max())))
    axes.set_xlabel("finest level that two probes share\n(pairs of different classes beneath)")
    axes.set_ylabel("mean coupling R²")
    return figure


@paper()
def depth_profile(
    levels: Sequence[str],
    curves: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    chance: np.ndarray | None,
    ylabel: str,
) -> Figure:
    """A curve per kernel over the levels of a hierarchy, the loss kernel's in front, with what chance gives in grey.

    levels: L names, from the classes up. curves: name -> [L]. errors: name -> [L] standard errors, for those that
    have them. chance: [L] or None.

    Raises:
        InputError: no level or no curve, or not one number per level.
    """
    count = len(levels)
    require(count > 0 and bool(curves), "levels and curves must not be empty; give one curve per kernel")
    for name, values in [*curves.items(), *errors.items(), *([("chance", chance)] if chance is not None else [])]:
        fits = np.shape(values) == (count,)
        require(fits, f"{name!r} must have one number per level ({count}), got shape {np.shape(values)}")
    figure = new_figure(SINGLE, 2.9)
    axes = figure.subplots()
    if chance is not None:
        axes.plot(chance, color="#B3B3B3", linewidth=2.5, zorder=1, label="chance")
    # the loss kernel's curves have its colours, others one each
    styles = {name: (colour, "o") for name, colour in zip(LOSS_KERNELS, (OKABE_ITO[0], INK, MUTED), strict=True)}
    others = [name for name in curves if name not in LOSS_KERNELS]
    styles |= dict(zip(others, zip(cycle(_OTHERS), cycle(_CURVE_MARKS), strict=False), strict=False))
    for number, (name, values) in enumerate(curves.items()):
        colour, mark = styles[name]
        shifted = np.arange(count) + _SPREAD * (number - (len(curves) - 1) / 2)
        look = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 1.6 if name in LOSS_KERNELS else 0.9}
        bars = errors.get(name, np.zeros(count))
        level = 4 if number == 0 else 3
        axes.errorbar(shifted, values, bars, elinewidth=0.8, zorder=level, label=printed(name), **look)
    axes.set_xticks(range(count), list(levels), fontsize=6.5)
    axes.set(ylim=(0, None), xlabel="level of the hierarchy (groups)", ylabel=ylabel)
    known = any(np.any(np.asarray(bars) > 0) for bars in errors.values())
    legend_below(figure, note="bars: standard errors" if known else "", columns=2)
    return figure


@paper()
def emergence(
    axis: Axis,
    levels: Sequence[str],
    contrasts: np.ndarray,
    errors: np.ndarray,
    table: pd.DataFrame,
    threshold: float,
) -> Figure:
    """A curve of contrast per level against the step, and a line where it passes the threshold for good.

    axis: the S steps, ascending. levels: L names, from the coarsest. contrasts, errors: [S, L]. table: level, step,
    low and high, NaN where a level does not appear.

    Raises:
        InputError: the arrays do not belong to steps and levels.
    """
    for name, values in {"contrasts": contrasts, "errors": errors}.items():
        require_shape(name, values, (len(axis.names), len(levels)), "pass one per step and level")
    figure = new_figure(SINGLE, 2.7)
    axes = figure.subplots()
    axes.axhline(threshold, color=MUTED, linewidth=0.6, linestyle=(0, (4, 3)))
    axes.axhline(0, color=MUTED, linewidth=0.6)
    looks = zip(cycle(_LEVEL_COLOURS), cycle(_LEVEL_MARKS), strict=True)
    rows = table.to_dict("records")
    for name, row, values, bars, (colour, mark) in zip(levels, rows, contrasts.T, errors.T, looks, strict=False):
        step, low, high = (float(row[key]) for key in ("step", "low", "high"))
        if np.isfinite(step):
            last = _position(axis, high if np.isfinite(high) else np.inf)
            axes.axvspan(_position(axis, low), last, color=colour, alpha=0.15, linewidth=0)
            axes.axvline(_position(axis, step), color=colour, linewidth=1.0)
        label = f"{str(name).replace('_', ' ')}: {f'{step:.0f}' if np.isfinite(step) else 'never'}"
        look = {"color": colour, "marker": mark, "markersize": 3.5, "elinewidth": 0.8}
        axes.errorbar(axis.positions, values, bars, label=label, **look)
    axis.draw(axes, named=True)
    axes.set(ylim=(min(-0.1, float((contrasts - errors).min()) - 0.05), 1.1), ylabel="contrast of coupling R²")
    legend_below(figure, title="appears at step", columns=3)
    return figure


def _position(axis: Axis, step: float) -> float:
    """Return the coordinate of a step that lies between two others on the axis."""
    # training steps grow by factors, and may begin at 0
    values, positions = np.log1p(np.asarray(axis.values, dtype=float)), axis.positions
    if not axis.logarithmic:
        return float(np.interp(np.log1p(step), values, positions))
    return float(np.exp(np.interp(np.log1p(step), values, np.log(positions))))
