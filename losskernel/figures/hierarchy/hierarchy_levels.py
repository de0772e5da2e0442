"""A kernel level by level of a hierarchy: by relation, by shared level, by depth, and as it emerges in training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from scipy.stats import gaussian_kde

from losskernel.figures.shared.colouring import OWN, printed
from losskernel.figures.shared.lettering import fit, width
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, SEQUENTIAL, SINGLE, paper
from losskernel.figures.shared.sweep_axis import Axis

if TYPE_CHECKING:
    import pandas as pd


_MOST_PAIRS = 4000  # for the shape of a violin
_STEPS = 200
_MOST_NARROW = 8  # relations that fit into one column
_HALF = 0.4  # of a violin's width
_STEEP = 20.0  # ratio of the largest to the least coupling from which the axis is logarithmic


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
    floor: the mean |R| that sampling noise alone gives, or None. The share of negative R stands above each relation,
    because relatives that compete for probability have R < 0, whatever their coupling.

    Raises:
        ValueError: not one entry per relation, a relation without pairs, or a number that is not finite.
    """
    values = [np.asarray(each, dtype=float) for each in correlations]
    triple = {"coupling": coupling, "low": low, "high": high}
    numbers = {name: np.asarray(each, dtype=float) for name, each in triple.items()}
    count = len(names)
    if count == 0 or len(values) != count:
        raise ValueError(f"correlations must be one array per relation ({count}), got {len(values)}; name them all")
    for name, each in zip(names, values, strict=True):
        if each.ndim != 1 or each.size == 0 or not np.isfinite(each).all():
            raise ValueError(f"correlations of {name!r} must be [pairs], finite and not empty; drop the relation")
    for name, each in numbers.items():
        if each.shape != (count,) or not np.isfinite(each).all():
            raise ValueError(f"{name} must be {count} finite numbers, one per relation, got shape {each.shape}")
    # The far end of viridis is too pale on white paper.
    colours = [to_hex(colormaps[SEQUENTIAL](0.85 * place / max(count - 1, 1))) for place in range(count)]
    with paper():
        figure = Figure(figsize=(SINGLE if count <= _MOST_NARROW else DOUBLE, 3.9), layout="constrained")
        figure.get_layout_engine().set(hspace=0.06)  # pyright: ignore
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.35, 1])
        _distributions(upper, values, colours)
        _couplings(lower, numbers, colours)
        handles: list[Artist] = [
            Line2D(
                [], [], linestyle="", marker="o", markersize=4, color=MUTED, markerfacecolor="white", label="median"
            ),
            Line2D([], [], color=MUTED, linewidth=3, label="middle half"),
        ]
        if floor is not None:
            upper.axhspan(-floor, floor, color=FAINT, linewidth=0, zorder=0)
            handles.append(Patch(color=FAINT, linewidth=0, label=f"noise: mean |R| = {floor:.2g}"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.5)
        lower.set_xlim(-0.6, count - 0.4)
        inches = (2.7 if count <= _MOST_NARROW else 6.2) / count
        turned = max(width(word, 7) for name in names for word in name.split()) > 0.9 * inches
        shown = list(names) if turned else [fit(name, 0.9 * inches, 7, lines=2) for name in names]
        lower.set_xticks(range(count), shown, rotation=40 if turned else 0, ha="right" if turned else "center")
        lower.tick_params(axis="x", length=0)
        lower.set_xlabel("lowest common ancestor (depth 0: the root)")
    return figure


def _distributions(axes: Axes, values: Sequence[np.ndarray], colours: Sequence[str]) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
    for place, (each, colour) in enumerate(zip(values, colours, strict=True)):
        grid, half = _shape(each)
        axes.fill_betweenx(grid, place - half, place + half, color=colour, alpha=0.35, linewidth=0, zorder=2)
        quarter, middle, three = np.quantile(each, [0.25, 0.5, 0.75])
        axes.plot([place, place], [quarter, three], color=colour, linewidth=3, solid_capstyle="butt", zorder=3)
        look = {"markerfacecolor": "white", "markeredgecolor": colour, "markersize": 4}
        axes.plot(place, middle, "o", zorder=4, **look)  # pyright: ignore[reportArgumentType]
        above = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "fontsize": 6.5}
        axes.annotate(f"{100 * np.mean(each < 0):.0f}%", (place, 1), (0, 8), ha="center", **above)
    axes.annotate("R < 0:", (0, 1), (-3, 8), "axes fraction", "offset points", ha="right", fontsize=6.5)
    axes.tick_params(axis="x", length=0)
    axes.locator_params(axis="y", nbins=6)
    axes.set_ylabel("R of a pair of probes\n(below 0 they compete)")


def _shape(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of values and the half width of the violin there, widest 0.4."""
    low, high = np.quantile(values, [0.005, 0.995])
    if high - low < 1e-9:
        return np.array([low - 1e-6, low + 1e-6]), np.full(2, _HALF)
    part = values[np.linspace(0, len(values) - 1, min(len(values), _MOST_PAIRS)).astype(int)]
    grid = np.linspace(low, high, _STEPS)
    density = gaussian_kde(part)(grid)
    return grid, _HALF * density / density.max()


def _couplings(axes: Axes, numbers: dict[str, np.ndarray], colours: Sequence[str]) -> None:
    value, low, high = numbers["coupling"], numbers["low"], numbers["high"]
    places = np.arange(len(value))
    axes.plot(places, value, color=FAINT, linewidth=0.9, zorder=1)
    for place, colour in zip(places, colours, strict=True):
        reach = [[max(value[place] - low[place], 0.0)], [max(high[place] - value[place], 0.0)]]
        axes.errorbar(place, value[place], reach, fmt="o", color=colour, markersize=4, capsize=2.5, capthick=0.9)
    positive = value[value > 0]
    if positive.size and value.max() > _STEEP * positive.min() and low.min() > 0:
        axes.set_yscale("log")
    elif positive.size and value.max() > _STEEP * max(float(np.median(high - low)) / 2, 1e-12):
        # What is smaller than its error lies in the linear part.
        linear = float(10 ** np.ceil(np.log10(max(float(np.min(high - low)) / 2, 1e-12))))
        axes.set_yscale("symlog", linthresh=linear, linscale=0.6)
        axes.axhline(0, color=MUTED, linewidth=0.6, zorder=0)
    else:
        axes.axhline(0, color=MUTED, linewidth=0.6, zorder=0)
        axes.locator_params(axis="y", nbins=5)
    axes.set_ylabel("coupling R², unbiased\n(bars: 90 % intervals)")


def shared_levels(table: "pd.DataFrame") -> Figure:
    """A point with its 90 % interval for every level, from pairs that share none up.

    table: columns shared, pairs, coupling, and low and high where an error is known.
    """
    places = np.arange(len(table))
    coupling = table["coupling"].to_numpy(float)
    with paper():
        figure = Figure(figsize=(SINGLE, 2.4), layout="constrained")
        axes = figure.subplots()
        low, high = (table[end].to_numpy(float) for end in ("low", "high"))
        axes.vlines(places, low, high, color=OKABE_ITO[0], linewidth=1.2)
        axes.plot(places, coupling, "o", color=OKABE_ITO[0], markersize=4.5)
        axes.axhline(0, color=MUTED, linewidth=0.6)
        # Levels differ by orders of magnitude, and an estimate without floor may fall below 0.
        axes.set_yscale("symlog", linthresh=max(float(np.abs(coupling).min()), 1e-5))
        axes.set_ylim(min(2 * float(low.min()), 0), 3 * float(high.max()))
        axes.yaxis.set_minor_formatter(NullFormatter())
        names = [
            f"{str(name).replace('_', ' ')}\n{pairs:,}"
            for name, pairs in zip(table["shared"], table["pairs"], strict=True)
        ]
        axes.set_xticks(places, names, fontsize=6.5)
        axes.set_xlim(-0.5, len(table) - 0.5)
        axes.set_xlabel("finest level that two probes share\n(pairs of different classes beneath)")
        axes.set_ylabel("mean coupling R²")
    return figure


# Black is the loss kernel's; shapes as well as colours, for grey prints.
_OTHERS = (*OKABE_ITO[1:4], *OKABE_ITO[4:6], "#7918FF", "#6D310C")
_CURVE_MARKS = ("s", "^", "D", "v", "P", "X", "<", ">")
_SPREAD = 0.05  # of a level: error bars of several curves stand side by side


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
        ValueError: no level or no curve, or not one number per level.
    """
    count = len(levels)
    if count == 0 or not curves:
        raise ValueError("levels and curves must not be empty; give one curve per kernel")
    for name, values in [*curves.items(), *errors.items(), *([("chance", chance)] if chance is not None else [])]:
        if np.shape(values) != (count,):
            raise ValueError(f"{name!r} must have one number per level ({count}), got shape {np.shape(values)}")
    places = np.arange(count)
    with paper():
        figure = Figure(figsize=(SINGLE, 2.9), layout="constrained")
        axes = figure.subplots()
        if chance is not None:
            axes.plot(places, chance, color="#B3B3B3", linewidth=2.5, zorder=1, label="chance")
        others = [name for name in curves if name not in OWN]
        styles = {
            name: (_OTHERS[k % len(_OTHERS)], _CURVE_MARKS[k % len(_CURVE_MARKS)]) for k, name in enumerate(others)
        }
        styles |= {name: (colour, "o") for name, colour in zip(OWN, (OKABE_ITO[0], INK, MUTED), strict=True)}
        for number, (name, values) in enumerate(curves.items()):
            colour, mark = styles[name]
            first = name == next(iter(curves))
            shift = _SPREAD * (number - (len(curves) - 1) / 2)
            look = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 1.6 if name in OWN else 0.9}
            bars = errors.get(name, np.zeros(count))
            axes.errorbar(
                places + shift, values, bars, elinewidth=0.8, zorder=4 if first else 3, label=printed(name), **look
            )
        axes.set_xticks(places, list(levels), fontsize=6.5)
        axes.set_ylim(0)
        axes.set_xlabel("level of the hierarchy (groups)")
        axes.set_ylabel(ylabel)
        title = "bars: standard errors" if any(np.any(np.asarray(each) > 0) for each in errors.values()) else None
        figure.legend(loc="outside lower center", ncols=2, title=title, title_fontsize=6.5, columnspacing=1.2)
    return figure


_LEVEL_COLOURS = (OKABE_ITO[0], OKABE_ITO[3], OKABE_ITO[2], OKABE_ITO[4], OKABE_ITO[1], OKABE_ITO[5])
_LEVEL_MARKS = ("o", "s", "^", "D", "v", "P")


def emergence(
    axis: Axis,
    levels: Sequence[str],
    contrasts: np.ndarray,
    errors: np.ndarray,
    table: "pd.DataFrame",
    threshold: float,
) -> Figure:
    """A curve of contrast per level against the step, and a line where it passes the threshold for good.

    axis: the S steps, ascending. levels: L names, from the coarsest. contrasts, errors: [S, L]. table: level, step,
    low and high, NaN where a level does not appear.

    Raises:
        ValueError: the arrays do not belong to steps and levels.
    """
    shape = (len(axis.names), len(levels))
    if np.shape(contrasts) != shape or np.shape(errors) != shape:
        raise ValueError(f"contrasts and errors must be {shape}, got {np.shape(contrasts)} and {np.shape(errors)}")
    with paper():
        figure = Figure(figsize=(SINGLE, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.axhline(threshold, color=MUTED, linewidth=0.6, linestyle=(0, (4, 3)))
        axes.axhline(0, color=MUTED, linewidth=0.6)
        for level, (name, row) in enumerate(zip(levels, table.to_dict("records"), strict=True)):
            colour, mark = _LEVEL_COLOURS[level % len(_LEVEL_COLOURS)], _LEVEL_MARKS[level % len(_LEVEL_MARKS)]
            step, low, high = (float(row[key]) for key in ("step", "low", "high"))
            if np.isfinite(step):
                axes.axvspan(
                    _place(axis, low),
                    _place(axis, high if np.isfinite(high) else np.inf),
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
                axes.axvline(_place(axis, step), color=colour, linewidth=1.0)
            said = f"{step:.0f}" if np.isfinite(step) else "never"
            axes.errorbar(
                axis.places,
                contrasts[:, level],
                errors[:, level],
                color=colour,
                marker=mark,
                markersize=3.5,
                elinewidth=0.8,
                label=f"{str(name).replace('_', ' ')}: {said}",
            )
        axis.draw(axes, named=True)
        axes.set_ylim(min(-0.1, float((contrasts - errors).min()) - 0.05), 1.1)
        axes.set_ylabel("contrast of coupling R²")
        figure.legend(
            loc="outside lower center",
            ncols=3,
            title="appears at step",
            title_fontsize=7,
            columnspacing=1.2,
            labelcolor=INK,
        )
    return figure


def _place(axis: Axis, step: float) -> float:
    """Return where a step between two others stands on the axis."""
    values, places = np.log1p(np.asarray(axis.values, dtype=float)), axis.places
    if not axis.logarithmic:
        return float(np.interp(np.log1p(step), values, places))
    return float(np.exp(np.interp(np.log1p(step), values, np.log(places))))
