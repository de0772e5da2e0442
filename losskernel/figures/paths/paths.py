"""Networks as paths through representation space: on maps, against each other, layer by layer and over training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from losskernel.errors import require
from losskernel.figures.shared.checks import require_shape
from losskernel.figures.shared.lettering import (
    LINE,
    fit,
    legend_below,
    letter_all,
    name_points,
    plain,
    width,
    with_unit,
)
from losskernel.figures.shared.panels import draw_distances, furnish_layout, new_figure
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import Axis

_MANY = 16  # points on a path whose markers must be small
_METHODS = {"spherical MDS": (OKABE_ITO[0], "o"), "tangent PCA": (OKABE_ITO[3], "s")}
_EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": ""}
_TARGET: dict[str, Any] = {"marker": "*", "color": OKABE_ITO[3], "markersize": 10, **_EDGE}
_INPUTS: dict[str, Any] = {"marker": "s", "color": INK, "markersize": 5, **_EDGE}
_MOST_NUMBERS = 10  # rows of the matrix whose entries can be read
_MOST_NAMES = 20
_LONGEST = 1.6  # inches of a name
_SHORT = 0.75  # inches; where names are longer, the map shows numbers instead
_PANEL = 1.12  # inches
_NAME = 6.5  # points
_LONGEST_LAYER = 1.1  # inches of a name
_ROOM = 6.3  # inches that the layers have across the figure
_OPEN: dict[str, Any] = {"markerfacecolor": "white", "linestyle": (0, (3, 1.5)), "linewidth": 0.9}
_DOT: dict[str, Any] = {"marker": "o", "markersize": 3.2, "zorder": 3}
_COLOURS = (*OKABE_ITO[:1], *OKABE_ITO[2:6])
_MARKS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class Route:
    """One network's way over the maps."""

    name: str  # for the legend
    numbers: Sequence[int]  # [n] of its points, in order, joined by a line
    colour: str
    branches: Sequence[tuple[int, int]] = ()  # further pairs of points, joined by fine lines
    leading: bool = False  # drawn heavily, on top of others
    dashed: bool = False  # as what has not been trained

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Pairs of points that follow on each other, branches left aside."""
        return list(pairwise(self.numbers))

    @property
    def beside(self) -> list[int]:
        """The points of its branches that it does not pass."""
        return sorted({number for edge in self.branches for number in edge} - set(self.numbers))

    @property
    def line(self) -> dict[str, Any]:
        """The look of its edges."""
        dashes = (0, (3, 1.5)) if self.dashed else "-"
        return {"color": self.colour, "linewidth": 1.5 if self.leading else 0.8, "linestyle": dashes}

    @property
    def mark(self) -> dict[str, Any]:
        """The look of its points."""
        face = "white" if self.dashed else self.colour
        return {"marker": "o", "markerfacecolor": face, "markeredgecolor": self.colour, "markeredgewidth": 0.7}


@dataclass(frozen=True)
class Sheet:
    """One map."""

    title: str
    positions: np.ndarray  # [P, 2], rad
    stress: float
    xlabel: str
    ylabel: str
    joined: Mapping[tuple[int, int], np.ndarray]  # pair of points -> line between them, [n, 2]; others are straight


@dataclass(frozen=True)
class Falling:
    """How the stress of one kind of map falls with its dimensions."""

    title: str
    dimensions: np.ndarray  # [k]
    stress: np.ndarray  # [k]
    needed: int | None  # dimensions that recover 95 % of the fall; None beyond those measured


@paper()
def path_map(
    sheets: Sequence[Sheet],
    curves: Sequence[Falling],
    routes: Sequence[Route],
    names: Mapping[int, str],
    inputs: Sequence[int],
    target: int,
    note: str,
    target_name: str = "target",
) -> Figure:
    """Paths from the inputs towards the target on two maps, and the stress of maps in ever more dimensions.

    names: number of a point -> what to write beside it, the most important first. inputs: numbers of the points where
    paths begin. note: below the figure.

    Raises:
        InputError: there is no map, or a map does not have the points that are drawn.
    """
    require(len(sheets) > 0, "sheets must not be empty; give one map at least")
    most = max(target, *inputs, *names, *(number for route in routes for number in route.numbers))
    for sheet in sheets:
        shape = np.shape(sheet.positions)
        fits = len(shape) == 2 and most < shape[0]
        require(fits, f"{sheet.title} has {shape} places for point {most}; pass all points")
    figure = new_figure(DOUBLE, 3.15, wspace=0.04)
    panels = figure.subplots(1, len(sheets) + 1, width_ratios=[*[1.0] * len(sheets), 0.62])
    for axes, sheet in zip(panels, sheets, strict=False):
        _draw(axes, sheet, routes, inputs, target)
    _curves(panels[-1], curves)
    letter_all(panels, [*(sheet.title for sheet in sheets), "stress"])
    handles = [Line2D([], [], markersize=3, label=plain(route.name), **route.line, **route.mark) for route in routes]
    for look, name in ((_INPUTS, "inputs"), (_TARGET, plain(target_name))):
        handles.append(Line2D([], [], label=name, **look))
    legend_below(figure, handles, note=note)
    figure.draw_without_rendering()  # names are placed where the layout has put the points
    for axes, sheet in zip(panels, sheets, strict=False):
        lines = [_line(sheet, edge) for route in routes for edge in (*route.edges, *route.branches)]
        name_points(axes, sheet.positions, names, lines)
    return figure


def along_colours(count: int) -> list[str]:
    """Return colours for networks in the order of training, the last the darkest."""
    return [to_hex(colormaps["viridis_r"](0.16 + 0.84 * index / max(count - 1, 1))) for index in range(count)]


def _line(sheet: Sheet, edge: tuple[int, int]) -> np.ndarray:
    return sheet.joined.get(edge, sheet.positions[list(edge)])


def _draw(axes: Axes, sheet: Sheet, routes: Sequence[Route], inputs: Sequence[int], target: int) -> None:
    for index, route in enumerate(routes):
        level = 4 if route.leading else 2 + index / len(routes)
        fine: dict[str, Any] = route.line | {"linewidth": 0.5, "alpha": 0.7}
        for edges, look in ((route.branches, fine), (route.edges, route.line)):
            for edge in edges:
                axes.plot(*_line(sheet, edge).T, zorder=level, **look)
        between = [number for number in route.numbers if number not in inputs]
        # many points on one line would merge into a band
        size = (3.6 if len(between) < _MANY else 2.6) if route.leading else 2.2
        for numbers, points in ((route.beside, 1.5), (between, size)):
            axes.plot(*sheet.positions[numbers].T, linestyle="", markersize=points, zorder=level + 0.1, **route.mark)
    for number in dict.fromkeys(inputs):
        axes.plot(*sheet.positions[number], zorder=5, **_INPUTS)
    axes.plot(*sheet.positions[target], zorder=5, **_TARGET)
    furnish_layout(axes, sheet.xlabel, sheet.ylabel, 0.12, sheet.stress)
    axes.tick_params(labelsize=6.5)


def _curves(axes: Axes, curves: Sequence[Falling]) -> None:
    for curve in curves:
        colour, marker = _METHODS.get(curve.title, (INK, "o"))
        axes.plot(curve.dimensions, curve.stress, color=colour, marker=marker, markersize=3, label=curve.title)
        if curve.needed is not None and curve.needed <= curve.dimensions[-1]:
            height = float(np.interp(curve.needed, curve.dimensions, curve.stress))
            axes.plot(curve.needed, height, marker="o", markersize=8, markerfacecolor="none", color=colour, zorder=4)
    # two dimensions: those of the maps beside it
    axes.axvline(2, color=FAINT, linewidth=3, zorder=0)
    axes.set_ylim(0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set(xlabel="dimensions of the map", ylabel="share of distances that is wrong")
    ring: dict[str, Any] = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "color": INK, "linestyle": ""}
    axes.plot([], [], label="95 % of the fall", **ring)
    axes.legend(loc="upper right", handlelength=1.2, borderaxespad=0.1)


@paper()
def path_distances(
    distances: np.ndarray,
    positions: np.ndarray,
    stress: float,
    names: Sequence[str],
    colours: Sequence[str],
    joined: Sequence[Sequence[int]],
    note: str,
    unit: str = "rad",
) -> Figure:
    """The distances between n paths as a matrix, and a map on which each path is one point.

    distances: [n, n]. positions: [n, 2] of the map, with its stress. joined: paths that follow on each other, such as
    those of one training, drawn with a line. unit: of distances.

    Raises:
        InputError: the arrays do not belong to the names.
    """
    count = len(names)
    require_shape("distances", distances, (count, count), "pass one per path")
    require_shape("places", positions, (count, 2), "pass one per path")
    marks = list(map(plain, names))
    if max(width(name, 6.5) for name in names) > _SHORT:
        marks = [str(number) for number in range(1, count + 1)]
        names = [f"{mark}: {name}" for mark, name in zip(marks, names, strict=True)]
    figure = new_figure(0.8 * DOUBLE, 2.9, wspace=0.06)
    left, right = figure.subplots(1, 2, width_ratios=[1.12, 1.0])
    draw_distances(figure, left, distances, with_unit("mean distance", unit), _MOST_NUMBERS)
    _name_rows(left, names, marks)
    lines = [positions[list(pair)] for path in joined for pair in pairwise(path)]
    for line in lines:
        right.plot(*line.T, color=MUTED, linewidth=0.8, zorder=1)
    for point, colour in zip(positions, colours, strict=True):
        right.plot(*point, marker="o", markersize=5.5, color=colour, **_EDGE)
    furnish_layout(right, with_unit("first axis", unit), with_unit("second axis", unit), 0.18)
    letter_all((left, right), ("distances between paths", f"map of paths (stress {stress:.2f})"))
    figure.supxlabel(fit(note, 0.97 * figure.get_figwidth(), 6.5, lines=2), fontsize=6.5, color=MUTED)
    figure.draw_without_rendering()
    step = -(-count // _MOST_NAMES)
    shown = {index: marks[index] for index in range(0, count, step)}
    name_points(right, positions, shown, lines, shown if count <= _MOST_NUMBERS else ())
    return figure


def _name_rows(axes: Axes, names: Sequence[str], marks: Sequence[str]) -> None:
    ticks = range(0, len(names), -(-len(names) // _MOST_NAMES))
    axes.set_yticks(ticks, [plain(fit(names[tick], _LONGEST, 6.5)) for tick in ticks], fontsize=6.5)
    short = max(width(marks[tick], 6.5) for tick in ticks) <= 1.8 / len(ticks)
    axes.set_xticks(ticks, [marks[tick] if short else "" for tick in ticks], fontsize=6.5)


@dataclass(frozen=True)
class Course:
    """One network's profile over P layers; distances in the space's units, angles in rad, NaN where unknown."""

    name: str  # of the network
    colour: str
    to_target: np.ndarray  # [P]
    off: np.ndarray  # [P], distance from the geodesic between inputs and target
    fraction: np.ndarray  # [P], of the way from the inputs to the target
    step: np.ndarray  # [P - 1], length of the step to the next layer
    progress: np.ndarray  # [P - 1], what the step gains on the target
    heading: np.ndarray  # [P - 1], angle between the step and the way to the target
    turning: np.ndarray  # [P - 2], angle between steps at the inner layers
    to_target_error: np.ndarray  # [P], standard errors
    step_error: np.ndarray  # [P - 1], standard errors


@paper()
def path_profiles(layers: Sequence[str], courses: Sequence[Course], note: str, unit: str = "rad") -> Figure:
    """Four aligned panels over the layers: distances, steps, angles, and the way done from the inputs to the target.

    note: below the figure, what all numbers depend on.

    Raises:
        InputError: a profile does not have a value per layer.
    """
    count = len(layers)
    for course in courses:
        got = len(course.to_target)
        fits = got == count and len(course.step) == count - 1
        require(fits, f"{course.name} must have {count} layers, got {got}; pass one value each")
    longest = max(width(name, _NAME) for name in layers)
    # names must be turned upright where they would overlap side by side, on two lines
    upright = longest > 0.92 * _ROOM / count
    height = 4 * _PANEL + 0.75 + (min(longest, _LONGEST_LAYER) + 0.05 if upright else 2 * _NAME * LINE)
    figure = new_figure(DOUBLE, height, hspace=0.03, h_pad=0.03)
    panels = figure.subplots(4, 1, sharex=True)
    # courses lie a little beside each other, so that error bars do not overlap
    for index, course in enumerate(courses):
        _draw_course(panels, course, 0.06 * (index - (len(courses) - 1) / 2))
    _furnish(panels, unit)
    letter_all(panels, ("distance", "step to the next layer", "direction", "way from the inputs to the target"), 3)
    for axes in panels:
        for index in range(count):
            axes.axvline(index, color=FAINT, linewidth=0.4, zorder=0)
    _name_layers(panels[-1], layers, upright)
    handles = [Line2D([], [], color=course.colour, linewidth=2.0, label=plain(course.name)) for course in courses]
    legend_below(figure, handles, note=note)
    return figure


def _draw_course(panels: Sequence[Axes], course: Course, shift: float) -> None:
    """Draw a course into the panels, shifted so that error bars of several do not overlap."""
    distances, steps, angles, way = panels
    layers = np.arange(len(course.to_target))
    look: dict[str, Any] = {"color": course.colour}
    error = np.nan_to_num(course.to_target_error)
    distances.errorbar(layers + shift, course.to_target, error, elinewidth=0.8, **_DOT, **look)
    distances.plot(layers + shift, course.off, marker="D", markersize=3.0, **_OPEN, **look)
    start, stop, middle = layers[:-1] + 0.08, layers[:-1] + 0.92, layers[:-1] + 0.5
    steps.hlines(course.step, start, stop, linewidth=1.8, zorder=3, **look)
    steps.bar(middle, course.progress, 0.84, alpha=0.22, linewidth=0, **look)
    steps.hlines(course.progress, start, stop, linewidth=0.7, linestyle=(0, (3, 1.5)), **look)
    error = np.nan_to_num(course.step_error)
    steps.errorbar(middle + shift, course.step, error, fmt="none", elinewidth=0.8, zorder=4, **look)
    angles.plot(middle + shift, np.degrees(course.heading), **_DOT, **look)
    angles.plot(layers[1:-1] + shift, np.degrees(course.turning), marker="^", markersize=3.4, **_OPEN, **look)
    way.plot(layers + shift, course.fraction, **_DOT, **look)


def _furnish(panels: Sequence[Axes], unit: str) -> None:
    distances, steps, angles, way = panels
    for axes, label in zip(panels, (unit or "distance", unit or "distance", "degrees", "fraction"), strict=True):
        axes.set_ylabel(label)
    distances.set_ylim(0)
    steps.axhline(0, color=INK, linewidth=0.5)
    angles.axhline(90, color=MUTED, linewidth=0.8, zorder=1)
    angles.set(ylim=(-8, 188), yticks=[0, 90, 180])
    way.set(ylim=(-0.06, 1.06), yticks=[0, 0.5, 1])
    _key(distances, {"to the target": {"marker": "o"}, "off the geodesic inputs–target": {"marker": "D", **_OPEN}})
    _key(steps, {"length": {"linewidth": 1.8}, "part that approaches the target": _OPEN | {"linewidth": 0.7}})
    heading, turning = "heading: 0 at the target, 90 sideways", "turning: 0 straight on"
    _key(angles, {heading: {"marker": "o"}, turning: {"marker": "^", **_OPEN}})


def _key(axes: Axes, entries: dict[str, dict[str, Any]]) -> None:
    handles = [Line2D([], [], color=INK, markersize=3.2, label=label, **look) for label, look in entries.items()]
    look: dict[str, Any] = {"fontsize": 6.5, "handlelength": 1.8, "handletextpad": 0.4, "columnspacing": 1.2}
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 0.99), ncols=2, borderaxespad=0, **look)


def _name_layers(axes: Axes, layers: Sequence[str], upright: bool) -> None:
    most = int(_ROOM / (_NAME * LINE))
    # of more names than fit upright, an even part
    every = -(-len(layers) // most) if upright else 1
    shown = [index for index in range(len(layers)) if index % every == 0 or index == len(layers) - 1]
    axes.set_xticks(shown, [plain(fit(layers[index], _LONGEST_LAYER, _NAME)) for index in shown])
    axes.tick_params(axis="x", labelsize=_NAME, labelrotation=90 if upright else 0, length=0 if upright else 2.5)
    axes.set_xlim(-0.5, len(layers) - 0.5)


@paper()
def path_training(
    axis: Axis,
    totals: Mapping[str, tuple[np.ndarray, np.ndarray]],
    distances: Mapping[str, tuple[np.ndarray, np.ndarray]],
    note: str,
    unit: str = "rad",
) -> Figure:
    """A panel for each number of the whole path, and one for the distance of some layers to the target.

    axis: the V training steps, ascending. totals: title of a panel -> values and standard errors, [V] each. distances:
    layer -> the same. Errors are NaN where they are unknown. unit: of distances.

    Raises:
        InputError: a curve does not have a value per step.
    """
    count = len(axis.names)
    for name, (values, errors) in [*totals.items(), *distances.items()]:
        fits = np.shape(values) == np.shape(errors) == (count,)
        require(fits, f"{name!r} must have {count} values and errors, one per step, got {np.shape(values)}")
    figure = new_figure(DOUBLE, 2.4, wspace=0.05)
    panels = figure.subplots(1, len(totals) + 1)
    for axes, (title, curve) in zip(panels, totals.items(), strict=False):
        _bars(axes, axis, curve, {"color": INK, "marker": "o"})
        axes.set_ylabel(title)
    for index, (name, curve) in enumerate(distances.items()):
        look: dict[str, Any] = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKS[index % len(_MARKS)]}
        _bars(panels[-1], axis, curve, look, plain(name))
    panels[-1].set_ylabel(with_unit("distance to the target", unit))
    letter_all(panels)
    for axes in panels:
        axis.draw(axes, named=True, most=6)
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    legend_below(figure, note=note)
    return figure


def _bars(axes: Axes, axis: Axis, curve: tuple[np.ndarray, np.ndarray], look: dict[str, Any], label: str = "") -> None:
    values, errors = curve
    look = look | {"markersize": 3.5, "elinewidth": 0.8, "label": label or None}
    axes.errorbar(axis.positions, values, np.nan_to_num(errors), **look)
