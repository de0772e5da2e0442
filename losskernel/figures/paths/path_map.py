"""Networks as paths through representation space: on maps with their errors, and whole paths against each other."""

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
from losskernel.figures.shared.lettering import fit, legend_below, letter_all, name_points, plain, width, with_unit
from losskernel.figures.shared.panels import draw_distances, furnish_layout, new_figure
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper

_MANY = 16  # points on a path whose markers must be small
_METHODS = {"spherical MDS": (OKABE_ITO[0], "o"), "tangent PCA": (OKABE_ITO[3], "s")}
_EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": ""}
_TARGET = {"marker": "*", "color": OKABE_ITO[3], "markersize": 10, **_EDGE}
_INPUTS = {"marker": "s", "color": INK, "markersize": 5, **_EDGE}
_MOST_NUMBERS = 10  # rows of the matrix whose entries can be read
_MOST_NAMES = 20
_LONGEST = 1.6  # inches of a name
_SHORT = 0.75  # inches; where names are longer, the map shows numbers instead


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
        lines = [_line(sheet, edge) for route in routes for edge in (*pairwise(route.numbers), *route.branches)]
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
        for edges, look in ((route.branches, fine), (pairwise(route.numbers), route.line)):
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
