"""One map of a network's layers, its labels, and its loss kernels over localisations and over training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.errors import require
from losskernel.figures.shared.lettering import legend_below, name_points, plain
from losskernel.figures.shared.panels import colour_bar, furnish_layout, new_figure
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, OKABE_ITO, SEQUENTIAL, paper

_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.5}  # keeps markers apart where they overlap
# Kind of point -> its look, and its name in the key.
_LOOKS: dict[str, tuple[dict[str, Any], str]] = {
    "input": ({"marker": "s", "color": INK, "markersize": 5.5, **_EDGE}, "inputs"),
    "layer": ({"marker": "o", "color": OKABE_ITO[0], "markersize": 4.5, **_EDGE}, "layers"),
    "output": ({"marker": "h", "color": OKABE_ITO[0], "markersize": 6, **_EDGE}, "outputs"),
    "target": ({"marker": "*", "color": OKABE_ITO[3], "markersize": 11, **_EDGE}, "targets"),
    "gradient": ({"marker": "X", "color": OKABE_ITO[2], "markersize": 7, **_EDGE}, "loss gradients"),
    "laplace": ({"marker": "^", "color": OKABE_ITO[4], "markersize": 6, **_EDGE}, "Laplace kernel"),
    "loss_kernel": ({"marker": "D", "color": MUTED, "markersize": 4.5, **_EDGE}, "loss kernels"),
}
_THIS_RUN: dict[str, Any] = {"markersize": 5.6, "markeredgecolor": INK, "markeredgewidth": 0.9}
_DASHED: dict[str, Any] = {"linewidth": 1.0, "linestyle": (0, (3, 1.5))}
# Colours of paths over training, the loss kernel's first.
_TRAINED = (OKABE_ITO[1], OKABE_ITO[5])


@dataclass(frozen=True)
class Track:
    """Points in order, joined by lines."""

    name: str  # for the key
    numbers: Sequence[int]  # [n] of its points


@dataclass(frozen=True)
class JointPoints:
    """What is on the map."""

    positions: np.ndarray  # [P, 2], rad
    kinds: Sequence[str]  # [P], keys of the table of looks
    names: Mapping[int, str]  # point -> what to write beside it, the most important first
    joined: Mapping[tuple[int, int], np.ndarray]  # pair of points -> line between them, [n, 2]
    path: Track  # through the layers, from the inputs
    sweep: Track | None  # loss kernels by rising localization and, last, the loss gradients
    localizations: Sequence[float]  # of the sweep's kernels
    laplace: Track | None  # the sweep in closed form
    training: Sequence[Track]  # paths over training, the loss kernel's first
    run_kernel: int  # number of the loss kernel of this run
    failed: Sequence[int] = field(default=())  # loss kernels whose diagnosis fails


@paper()
def joint_map(points: JointPoints, note: str) -> Figure:
    """The points of a joint space on a map, with the path through the layers, the sweep, and paths over training.

    note: below the figure, such as what the map gets wrong.

    Raises:
        InputError: a line joins points that have no place.
    """
    tracks = [track for track in (points.path, points.sweep, points.laplace, *points.training) if track is not None]
    most = max(number for track in tracks for number in track.numbers)
    complete = np.ndim(points.positions) == 2 and most < len(points.positions)
    require(complete, f"places {np.shape(points.positions)} hold no point {most}; pass all points")
    figure = new_figure(DOUBLE, 4.5)
    axes = figure.subplots()
    for track, colour in zip(points.training, _TRAINED, strict=False):
        for line in _lines(points, track):
            axes.plot(*line.T, color=colour, linewidth=1.0, zorder=1.5)
        axes.plot(*points.positions[list(track.numbers[:-1])].T, "o", color=colour, markersize=3, zorder=2)
    _arrows(axes, _lines(points, points.path), OKABE_ITO[0])
    for line in _lines(points, points.laplace):
        axes.plot(*line.T, color=_LOOKS["laplace"][0]["color"], zorder=2, **_DASHED)
    colours = _sweep(figure, axes, points)
    _points(axes, points, colours)
    furnish_layout(axes, "axis 1, rad", "axis 2, rad", 0.09)
    axes.locator_params(nbins="auto")  # it is larger than other maps
    legend_below(figure, _handles(points), note=note, columns=4)
    figure.draw_without_rendering()
    # layers lie close together and may go without a name, the rest may not
    needed = {number for number in points.names if points.kinds[number] != "layer"}
    lines = [line for track in tracks for line in _lines(points, track)]
    name_points(axes, points.positions, points.names, lines, needed, size=7)
    return figure


def _lines(points: JointPoints, track: Track | None) -> list[np.ndarray]:
    """Return the lines [n, 2] between a track's points."""
    pairs = pairwise(track.numbers if track is not None else ())
    return [points.joined.get(pair, points.positions[list(pair)]) for pair in pairs]


def _arrows(axes: Axes, lines: Sequence[np.ndarray], colour: str) -> None:
    """Draw a path with an arrow head in the middle of each piece."""
    for line in lines:
        axes.plot(*line.T, color=colour, linewidth=1.4, zorder=2.5)
        middle = len(line) // 2
        # a head needs a direction: a thousandth of the line's own, so that only the head shows
        ends = {"xy": line[middle], "xytext": line[middle] - 1e-3 * (line[-1] - line[0])}
        look = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 11, "linewidth": 0}
        axes.annotate("", **ends, arrowprops=look, zorder=2.6)


def _sweep(figure: Figure, axes: Axes, points: JointPoints) -> dict[int, str]:
    """Draw the sweep, and return the colours of its points."""
    if points.sweep is None:
        return {}
    values = [max(value, 1e-12) for value in points.localizations]
    # a single localization still needs a range
    scale = LogNorm(min(values), max(max(values), min(values) * 1.001))
    shades = colormaps[SEQUENTIAL].reversed()
    tints = [to_hex(shades(0.08 + 0.92 * float(scale(value)))) for value in values]
    colours = dict(zip(points.sweep.numbers, tints, strict=False))  # the last of the sweep are the gradients
    for line, colour in zip(_lines(points, points.sweep), tints, strict=False):
        axes.plot(*line.T, color=colour, linewidth=1.4, zorder=2.5)
    if len(values) > 1:
        label = "localization γ of the loss kernels"
        colour_bar(figure, ScalarMappable(scale, shades), axes, label, shrink=0.6, pad=0.01)
    return colours


def _points(axes: Axes, points: JointPoints, colours: Mapping[int, str]) -> None:
    # points along training are drawn as dots by their path
    small = {number for track in points.training for number in track.numbers[:-1]}
    for number, (point, kind) in enumerate(zip(points.positions, points.kinds, strict=True)):
        if number in small:
            continue
        look = dict(_LOOKS[kind][0])
        if number in colours:
            look["color"] = colours[number]
        if number == points.run_kernel:
            look |= _THIS_RUN
        if number in points.failed:
            look |= {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1.1}
        level = {"gradient": 4, "loss_kernel": 3.5}.get(kind, 3) + (number == points.run_kernel)
        axes.plot(*point, zorder=level, linestyle="", **look)


def _handles(points: JointPoints) -> list[Line2D]:
    shown = [entry for kind, entry in _LOOKS.items() if kind in points.kinds]
    shown.append((_LOOKS["loss_kernel"][0] | _THIS_RUN, "this run's own"))
    if points.failed:
        look = {"marker": "D", "markersize": 4.5, "markerfacecolor": "white", "color": MUTED, "markeredgewidth": 1.1}
        shown.append((look, "its diagnosis fails"))
    handles = [Line2D([], [], linestyle="", label=name, **look) for look, name in shown]
    handles.append(Line2D([], [], color=OKABE_ITO[0], linewidth=1.4, label=plain(points.path.name)))
    if points.sweep is not None:
        handles.append(Line2D([], [], color="#21918c", linewidth=1.4, label=plain(points.sweep.name)))
    if points.laplace is not None:
        handles.append(Line2D([], [], color=_LOOKS["laplace"][0]["color"], label=plain(points.laplace.name), **_DASHED))
    for track, colour in zip(points.training, _TRAINED, strict=False):
        handles.append(Line2D([], [], color=colour, marker="o", markersize=3, label=plain(track.name)))
    return handles
