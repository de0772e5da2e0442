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

from losskernel.figures.shared.lettering import fit, key_below, name_points, width, with_unit
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import plain

_MANY = 16  # points on a path whose markers must be small
_METHODS = {"spherical MDS": (OKABE_ITO[0], "o"), "tangent PCA": (OKABE_ITO[3], "s")}
_TARGET = {"marker": "*", "color": OKABE_ITO[3], "markersize": 10, "markeredgecolor": "white", "markeredgewidth": 0.5}
_INPUTS = {"marker": "s", "color": INK, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}


@dataclass(frozen=True)
class Route:
    """One network's way over the maps.

    name: for the legend. numbers: [n] of its points, in order, joined by a line. branches: further pairs of points,
    joined by fine lines. leading: drawn heavily, on top of others. dashed: as what has not been trained.
    """

    name: str
    numbers: Sequence[int]
    colour: str
    branches: Sequence[tuple[int, int]] = ()
    leading: bool = False
    dashed: bool = False

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
    """One map. places: [P, 2], rad. joined: pair of points -> [n, 2] the line between them; others are straight."""

    title: str
    places: np.ndarray
    stress: float
    xlabel: str
    ylabel: str
    joined: Mapping[tuple[int, int], np.ndarray]


@dataclass(frozen=True)
class Falling:
    """Stress [k] against dimensions [k] of one way of making maps, and from which on 95 % of its fall are recovered.

    needed: None beyond those dimensions.
    """

    title: str
    dimensions: np.ndarray
    stress: np.ndarray
    needed: int | None


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
        ValueError: there is no map, or a map does not have the points that are drawn.
    """
    if not sheets:
        raise ValueError("sheets must not be empty; give one map at least")
    used = {target, *inputs, *names, *(number for route in routes for number in route.numbers)}
    for sheet in sheets:
        if np.ndim(sheet.places) != 2 or max(used) >= len(sheet.places):
            raise ValueError(
                f"{sheet.title} has {np.shape(sheet.places)} places for point {max(used)}; pass all points"
            )
    with paper():
        figure = Figure(figsize=(DOUBLE, 3.15), layout="constrained")
        figure.get_layout_engine().set(wspace=0.04)  # pyright: ignore
        panels = figure.subplots(1, len(sheets) + 1, width_ratios=[*[1.0] * len(sheets), 0.62])
        for axes, sheet in zip(panels, sheets, strict=False):
            _draw(axes, sheet, routes, inputs, target)
        _curves(panels[-1], curves)
        titles = [*(sheet.title for sheet in sheets), "stress"]
        for letter, axes, title in zip("abcd", panels, titles, strict=False):
            axes.set_title(f"$\\bf{{{letter}}}$  {title}", loc="left", pad=5)
        handles = [*_handles(routes), _key(_INPUTS, "inputs"), _key(_TARGET, plain(target_name))]
        key_below(figure, handles, note)
        figure.draw_without_rendering()  # names are placed where the layout has put the points
        for axes, sheet in zip(panels, sheets, strict=False):
            name_points(axes, sheet.places, names, _lines(sheet, routes))
    return figure


def along_colours(count: int) -> list[str]:
    """Return colours for networks in the order of training, the last the darkest."""
    return [to_hex(colormaps["viridis_r"](0.16 + 0.84 * place / max(count - 1, 1))) for place in range(count)]


def _lines(sheet: Sheet, routes: Sequence[Route]) -> list[np.ndarray]:
    return [_line(sheet, edge) for route in routes for edge in (*route.edges, *route.branches)]


def _line(sheet: Sheet, edge: tuple[int, int]) -> np.ndarray:
    return sheet.joined.get(edge, sheet.places[list(edge)])


def _draw(axes: Axes, sheet: Sheet, routes: Sequence[Route], inputs: Sequence[int], target: int) -> None:
    for place, route in enumerate(routes):
        level = 4 if route.leading else 2 + place / len(routes)
        fine: dict[str, Any] = route.line | {"linewidth": 0.5, "alpha": 0.7}
        for edges, look in ((route.branches, fine), (route.edges, route.line)):
            for edge in edges:
                axes.plot(*_line(sheet, edge).T, zorder=level, **look)
        between = [number for number in route.numbers if number not in inputs]
        size = (3.6 if len(between) < _MANY else 2.6) if route.leading else 2.2
        for numbers, points in ((route.beside, 1.5), (between, size)):
            axes.plot(*sheet.places[numbers].T, linestyle="", markersize=points, zorder=level + 0.1, **route.mark)
    for number in dict.fromkeys(inputs):
        axes.plot(*sheet.places[number], zorder=5, **_INPUTS)  # pyright: ignore[reportArgumentType]
    axes.plot(*sheet.places[target], zorder=5, **_TARGET)  # pyright: ignore[reportArgumentType]
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.set(xlabel=sheet.xlabel, ylabel=sheet.ylabel)
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=6.5)
    axes.text(0.99, 0.01, f"stress {sheet.stress:.2f}", transform=axes.transAxes, ha="right", color=MUTED, fontsize=6.5)


def _curves(axes: Axes, curves: Sequence[Falling]) -> None:
    for curve in curves:
        colour, marker = _METHODS.get(curve.title, (INK, "o"))
        axes.plot(curve.dimensions, curve.stress, color=colour, marker=marker, markersize=3, label=curve.title)
        if curve.needed is not None and curve.needed <= curve.dimensions[-1]:
            height = float(np.interp(curve.needed, curve.dimensions, curve.stress))
            axes.plot(curve.needed, height, marker="o", markersize=8, markerfacecolor="none", color=colour, zorder=4)
    axes.axvline(2, color=FAINT, linewidth=3, zorder=0)
    axes.set_ylim(0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set(xlabel="dimensions of the map", ylabel="share of distances that is wrong")
    axes.plot(
        [], [], marker="o", markersize=8, markerfacecolor="none", color=INK, linestyle="", label="95 % of the fall"
    )
    axes.legend(loc="upper right", handlelength=1.2, borderaxespad=0.1)


def _handles(routes: Sequence[Route]) -> list[Line2D]:
    return [Line2D([], [], markersize=3, label=plain(each.name), **each.line, **each.mark) for each in routes]


def _key(look: Mapping[str, object], label: str) -> Line2D:
    return Line2D([], [], linestyle="", label=label, **look)  # pyright: ignore[reportArgumentType]


_MOST_NUMBERS = 10  # rows of the matrix whose entries can be read
_MOST_NAMES = 20
_LONGEST = 1.6  # inches of a name
_SHORT = 0.75  # inches; where names are longer, numbers stand for them on the map


def path_distances(
    distances: np.ndarray,
    places: np.ndarray,
    stress: float,
    names: Sequence[str],
    colours: Sequence[str],
    joined: Sequence[Sequence[int]],
    note: str,
    unit: str = "rad",
) -> Figure:
    """The distances between n paths as a matrix, and a map on which each path is one point.

    distances: [n, n]. places: [n, 2] of the map, with its stress. joined: paths that follow on each other, such as
    those of one training, drawn with a line. unit: of distances.

    Raises:
        ValueError: the arrays do not belong to the names.
    """
    count = len(names)
    for key, found, shape in (("distances", distances, (count, count)), ("places", places, (count, 2))):
        if np.shape(found) != shape:
            raise ValueError(f"{key} must be {shape}, one per path, got {np.shape(found)}")
    marks = [plain(name) for name in names]
    if max(width(name, 6.5) for name in names) > _SHORT:
        marks = [str(place + 1) for place in range(count)]
        names = [f"{mark}: {name}" for mark, name in zip(marks, names, strict=True)]
    with paper():
        figure = Figure(figsize=(0.8 * DOUBLE, 2.9), layout="constrained")
        figure.get_layout_engine().set(wspace=0.06)  # pyright: ignore
        left, right = figure.subplots(1, 2, width_ratios=[1.12, 1.0])
        _matrix(figure, left, distances, names, marks, with_unit("mean distance", unit))
        for path in joined:
            for pair in pairwise(path):
                right.plot(*places[list(pair)].T, color=MUTED, linewidth=0.8, zorder=1)
        for place, colour in zip(places, colours, strict=True):
            right.plot(*place, marker="o", markersize=5.5, color=colour, markeredgecolor="white", markeredgewidth=0.4)
        right.set_aspect("equal", adjustable="datalim")
        right.margins(0.18)
        right.set(xlabel=with_unit("first axis", unit), ylabel=with_unit("second axis", unit))
        right.locator_params(nbins=4)
        left.set_title("$\\bf{a}$  distances between paths", loc="left", pad=5)
        right.set_title("$\\bf{b}$  map of paths (stress " + f"{stress:.2f})", loc="left", pad=5)
        figure.supxlabel(fit(note, 0.97 * figure.get_figwidth(), 6.5, lines=2), fontsize=6.5, color=MUTED)
        figure.draw_without_rendering()
        step = -(-count // _MOST_NAMES)
        shown = {place: marks[place] for place in range(0, count, step)}
        lines = [places[list(pair)] for path in joined for pair in pairwise(path)]
        name_points(right, places, shown, lines, shown if count <= _MOST_NUMBERS else ())
    return figure


def _matrix(
    figure: Figure, axes: Axes, distances: np.ndarray, names: Sequence[str], marks: Sequence[str], label: str
) -> None:
    count, top = len(names), max(float(np.nanmax(distances)), 1e-3)
    image = axes.imshow(distances, cmap="Blues", vmin=0, vmax=1.15 * top)
    if count <= _MOST_NUMBERS:
        for i, j in np.ndindex(count, count):
            look: dict[str, Any] = {"color": "white" if distances[i, j] > 0.65 * top else INK, "fontsize": 5.5}
            axes.text(j, i, f"{distances[i, j]:.2f}", ha="center", va="center", **look)
    ticks = range(0, count, -(-count // _MOST_NAMES))
    texts = [plain(fit(names[tick], _LONGEST, 6.5)) for tick in ticks]
    axes.set_yticks(ticks, texts, fontsize=6.5)
    short = max(width(marks[tick], 6.5) for tick in ticks) <= 1.8 / len(ticks)
    axes.set_xticks(ticks, [marks[tick] if short else "" for tick in ticks], fontsize=6.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, aspect=22, pad=0.02)
    bar.set_label(label, fontsize=7)
    bar.ax.spines[:].set_visible(False)
