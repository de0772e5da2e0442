"""R and the coupling by how closely two probes are related."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import gaussian_kde

from losskernel.figures.shared.lettering import fit, width
from losskernel.figures.shared.style import DOUBLE, FAINT, MUTED, SEQUENTIAL, SINGLE, paper

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
