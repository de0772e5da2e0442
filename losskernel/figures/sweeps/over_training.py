"""Kernels over training: how far they travel, and maps of the probes at several stages."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from losskernel.figures.shared.colouring import colour_by
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import Axis

_FIRST, _LAST = OKABE_ITO[3], OKABE_ITO[0]


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
    shapes = {"distances": (count, count), "floor": (count, count), "verdicts": (count,), "losses": (count,)}
    for name, shape in shapes.items():
        found = np.shape({"distances": distances, "floor": floor, "verdicts": verdicts, "losses": losses}[name])
        if found != shape:
            raise ValueError(f"{name} must be {shape}, one per step, got {found}")
    with paper():
        figure = Figure(figsize=(DOUBLE, 2.6), layout="constrained")
        figure.get_layout_engine().set(wspace=0.06)  # pyright: ignore
        known = np.isfinite(losses)
        panels = figure.subplots(1, 2, width_ratios=[1.25, 1.0]) if known.any() else [figure.subplots()]
        left = panels[0]
        _distances(left, axis, distances, floor, verdicts)
        if known.any():
            _losses(panels[1], axis.places[known], losses[known])
        for letter, axes, title in zip("ab", panels, ("how far the kernel travels", "probe loss"), strict=False):
            axes.set_title(f"$\\bf{{{letter}}}$  {title}", loc="left", pad=5)
            axis.draw(axes, named=True)
        figure.legend(
            handles=[*left.get_legend_handles_labels()[0], *_verdicts(verdicts)],
            loc="outside lower center",
            ncols=8,
            columnspacing=1.3,
            handletextpad=0.4,
        )
    return figure


def _verdicts(there: Sequence[str]) -> list[Line2D]:
    look = {"linestyle": "", "color": INK, "markersize": 4.5}
    return [
        Line2D(
            [], [], marker=shown.marker, label=shown.word, markerfacecolor="white" if verdict == "warn" else INK, **look
        )
        for verdict, shown in VERDICTS.items()
        if verdict in there
    ]


def _losses(axes: Axes, places: np.ndarray, losses: np.ndarray) -> None:
    axes.plot(places, losses, color=INK, marker="o", markersize=3.5)
    low, high = float(losses.min()), float(losses.max())
    if low > 0 and high > 10 * low:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(min(low, 0.0), 1.1 * high or 1.0)
    axes.set_ylabel("mean loss at the checkpoint")


def _distances(axes: Axes, axis: Axis, distances: np.ndarray, floor: np.ndarray, verdicts: Sequence[str]) -> None:
    places = axis.places
    for number, (name, colour) in enumerate(((0, _FIRST), (len(places) - 1, _LAST))):
        to = np.delete(np.arange(len(places)), name)
        axes.fill_between(places[to], 0, floor[name, to], color=colour, alpha=0.12, linewidth=0)
        label = ("to the first", "to the last")[number]
        axes.plot(places, distances[name], color=colour, label=label, zorder=2)
        for place, value, verdict in zip(places, distances[name], verdicts, strict=True):
            face = "white" if verdict == "warn" else colour
            axes.plot(
                place, value, VERDICTS[verdict].marker, color=colour, markerfacecolor=face, markersize=4.5, zorder=3
            )
    for i, (own, after) in enumerate(pairwise(range(len(places)))):
        label = "to the next" if i == 0 else None
        axes.plot(places[[own, after]], [distances[own, after]] * 2, color=INK, linewidth=1.6, label=label)
        noise = "noise alone" if i == 0 and np.isfinite(floor).any() else None
        axes.fill_between(places[[own, after]], 0, floor[own, after], color=FAINT, linewidth=0, label=noise, zorder=1)
    axes.set_ylim(0, 1.08 * max(float(np.nanmax(distances)), 1e-3))
    axes.locator_params(axis="y", nbins=5)
    axes.set_ylabel("angular CKA distance, rad")


_MOST = 8
_COLUMNS = 4
_LEGEND = 32  # names that a legend can hold


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
    chosen = np.unique(np.linspace(0, len(layouts) - 1, min(_MOST, len(layouts))).round().astype(int))
    columns = min(_COLUMNS, len(chosen))
    lines = -(-len(chosen) // columns)
    order = np.random.default_rng(0).permutation(layouts.shape[1])  # or the last group would cover the others
    low, high = layouts.min(axis=(0, 1)), layouts.max(axis=(0, 1))
    reach = 0.53 * float((high - low).max()) or 1.0
    with paper():
        figure = Figure(figsize=(DOUBLE * columns / _COLUMNS, 1.95 * lines + 0.5), layout="constrained")
        panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
        for axes, number in zip(panels, chosen, strict=False):
            points = layouts[number][order]
            size = float(np.clip(1500 / len(points), 0.6, 8.0))
            axes.scatter(*points.T, s=size, c=colouring.rgba[order], linewidths=0, alpha=0.85, rasterized=True)
            centre = (low + high) / 2
            axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.spines[:].set(visible=True, color=FAINT)
            look = VERDICTS[str(verdicts[number])]
            doubted = verdicts[number] != "pass"
            title = f"{titles[number]} ({look.word})" if doubted else titles[number]
            axes.set_title(title, fontsize=7, pad=3, color=look.colour if doubted else INK)
        for axes in panels[len(chosen) :]:
            axes.set_visible(False)
        if colouring.scale is not None:
            bar = figure.colorbar(colouring.scale, ax=list(panels), location="bottom", shrink=0.5, aspect=40, pad=0.02)
            bar.set_label(label_name)
            bar.ax.spines[:].set_visible(False)
        elif len(colouring.names) <= _LEGEND:
            letters = max(map(len, [*colouring.names, "1234"])) + 3
            ncols = max(1, min(len(colouring.names), int(110 * columns / _COLUMNS) // letters))
            look = {"title_fontsize": 7, "columnspacing": 1.0, "handletextpad": 0.1}
            figure.legend(
                handles=colouring.handles(), title=label_name, loc="outside lower center", ncols=ncols, **look
            )
        else:
            figure.supxlabel(f"colours: {len(colouring.names)} values of {label_name}", fontsize=7)
    return figure


def checked(layouts: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """Return maps [P, N, 2] as floats.

    Raises:
        ValueError: they are not that, not one per title, or not finite.
    """
    layouts = np.asarray(layouts, dtype=float)
    if layouts.ndim != 3 or layouts.shape[2] != 2 or 0 in layouts.shape:
        raise ValueError(f"layouts must be [P, N, 2], not empty, got {layouts.shape}; pass one map per stage")
    if len(titles) != len(layouts):
        raise ValueError(f"titles must be one per map, got {len(titles)} for {len(layouts)} maps")
    if not np.isfinite(layouts).all():
        raise ValueError("layouts must be finite, got NaN or infinity; drop those probes first")
    return layouts
