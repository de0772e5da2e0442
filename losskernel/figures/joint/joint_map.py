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

from losskernel.figures.shared.lettering import key_below, name_points
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, OKABE_ITO, SEQUENTIAL, paper
from losskernel.figures.shared.sweep_axis import plain

_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.5}
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
_DASHED: dict[str, Any] = {"linewidth": 1.0, "linestyle": (0, (3, 1.5))}
# Colours of paths over training, the loss kernel's first.
_TRAINED = (OKABE_ITO[1], OKABE_ITO[5])


@dataclass(frozen=True)
class Track:
    """Points in order, joined by lines. name: for the key. numbers: [n]."""

    name: str
    numbers: Sequence[int]


@dataclass(frozen=True)
class JointPoints:
    """What is on the map.

    places: [P, 2], rad. kinds: [P]. names: number -> what to write beside it, the most important first. joined: pair of
    points -> [n, 2] line between them. path: through the layers, from the inputs. sweep: loss kernels by rising
    localisation and, last, the loss gradients; localizations: of the kernels. laplace: the same in closed form.
    training: paths over training, the loss kernel's first. own: number of the run's own loss kernel. failed: loss
    kernels whose diagnosis fails.
    """

    places: np.ndarray
    kinds: Sequence[str]
    names: Mapping[int, str]
    joined: Mapping[tuple[int, int], np.ndarray]
    path: Track
    sweep: Track | None
    localizations: Sequence[float]
    laplace: Track | None
    training: Sequence[Track]
    own: int
    failed: Sequence[int] = field(default=())


def joint_map(points: JointPoints, note: str) -> Figure:
    """The points of a joint space on a map, with the path through the layers, the sweep, and paths over training.

    note: below the figure, such as what the map gets wrong.

    Raises:
        ValueError: a line joins points that have no place.
    """
    tracks = [each for each in (points.path, points.sweep, points.laplace, *points.training) if each is not None]
    most = max(number for track in tracks for number in track.numbers)
    if np.ndim(points.places) != 2 or most >= len(points.places):
        raise ValueError(f"places {np.shape(points.places)} hold no point {most}; pass all points")
    with paper():
        figure = Figure(figsize=(DOUBLE, 4.5), layout="constrained")
        axes = figure.subplots()
        lines = [points.joined.get(pair, points.places[list(pair)]) for track in tracks for pair in _pairs(track)]
        _training(axes, points)
        _arrows(axes, points, points.path, OKABE_ITO[0])
        for pair in _pairs(points.laplace) if points.laplace is not None else ():
            axes.plot(*_line(points, pair).T, color=_LOOKS["laplace"][0]["color"], zorder=2, **_DASHED)
        colours = _sweep(figure, axes, points)
        _points(axes, points, colours)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.09)
        axes.set(xlabel="axis 1, rad", ylabel="axis 2, rad")
        key_below(figure, _handles(points), note, columns=4)
        figure.draw_without_rendering()
        needed = {number for number in points.names if points.kinds[number] != "layer"}
        name_points(axes, points.places, points.names, lines, needed, size=7)
    return figure


def _pairs(track: Track) -> list[tuple[int, int]]:
    return list(pairwise(track.numbers))


def _line(points: JointPoints, pair: tuple[int, int]) -> np.ndarray:
    return points.joined.get(pair, points.places[list(pair)])


def _training(axes: Axes, points: JointPoints) -> None:
    for track, colour in zip(points.training, _TRAINED, strict=False):
        for pair in _pairs(track):
            axes.plot(*_line(points, pair).T, color=colour, linewidth=1.0, zorder=1.5)
        axes.plot(*points.places[list(track.numbers[:-1])].T, "o", color=colour, markersize=3, zorder=2)


def _arrows(axes: Axes, points: JointPoints, track: Track, colour: str) -> None:
    """Draw a path with an arrow head in the middle of each piece."""
    for pair in _pairs(track):
        line = _line(points, pair)
        axes.plot(*line.T, color=colour, linewidth=1.4, zorder=2.5)
        middle = len(line) // 2
        ends = {"xy": line[middle], "xytext": line[middle] - 1e-3 * (line[-1] - line[0])}
        look = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 11, "linewidth": 0}
        axes.annotate("", **ends, arrowprops=look, zorder=2.6)


def _sweep(figure: Figure, axes: Axes, points: JointPoints) -> dict[int, str]:
    """Draw the sweep, and return the colours of its points."""
    if points.sweep is None:
        return {}
    values = [max(each, 1e-12) for each in points.localizations]
    scale = LogNorm(min(values), max(max(values), min(values) * 1.001))
    shades = colormaps[SEQUENTIAL].reversed()
    colours = {
        number: to_hex(shades(0.08 + 0.92 * float(scale(value))))
        for number, value in zip(points.sweep.numbers, values, strict=False)
    }
    for pair in _pairs(points.sweep):
        axes.plot(*_line(points, pair).T, color=colours[pair[0]], linewidth=1.4, zorder=2.5)
    if len(values) > 1:
        bar = figure.colorbar(ScalarMappable(scale, shades), ax=axes, shrink=0.6, aspect=24, pad=0.01)
        bar.set_label("localization γ of the loss kernels", fontsize=7)
        bar.ax.spines[:].set_visible(False)
    return colours


def _points(axes: Axes, points: JointPoints, colours: Mapping[int, str]) -> None:
    small = {number for track in points.training for number in track.numbers[:-1]}
    for number, (place, kind) in enumerate(zip(points.places, points.kinds, strict=True)):
        if number in small:
            continue
        look = dict(_LOOKS[kind][0])
        if number in colours:
            look["color"] = colours[number]
        if number == points.own:
            look |= {"markersize": 5.6, "markeredgecolor": INK, "markeredgewidth": 0.9}
        if number in points.failed:
            look |= {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1.1}
        level = {"gradient": 4, "loss_kernel": 3.5}.get(kind, 3) + (number == points.own)
        axes.plot(*place, zorder=level, linestyle="", **look)


def _handles(points: JointPoints) -> list[Line2D]:
    drawn = [points.kinds[number] for number in range(len(points.places))]
    handles = [
        Line2D([], [], linestyle="", label=name, **look) for kind, (look, name) in _LOOKS.items() if kind in drawn
    ]
    own = _LOOKS["loss_kernel"][0] | {"markersize": 5.6, "markeredgecolor": INK, "markeredgewidth": 0.9}
    handles.append(Line2D([], [], linestyle="", label="this run's own", **own))
    if points.failed:
        look = {"marker": "D", "markersize": 4.5, "markerfacecolor": "white", "color": MUTED, "markeredgewidth": 1.1}
        handles.append(Line2D([], [], linestyle="", label="its diagnosis fails", **look))
    handles.append(Line2D([], [], color=OKABE_ITO[0], linewidth=1.4, label=plain(points.path.name)))
    if points.sweep is not None:
        handles.append(Line2D([], [], color="#21918c", linewidth=1.4, label=plain(points.sweep.name)))
    if points.laplace is not None:
        handles.append(Line2D([], [], color=_LOOKS["laplace"][0]["color"], label=plain(points.laplace.name), **_DASHED))
    for track, colour in zip(points.training, _TRAINED, strict=False):
        handles.append(Line2D([], [], color=colour, marker="o", markersize=3, label=plain(track.name)))
    return handles
