"""Whole paths against each other: the matrix of their distances, and the paths as points of a map."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losskernel.figures.shared.lettering import fit, width
from losskernel.figures.shared.point_labels import name_points, with_unit
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, paper
from losskernel.figures.shared.sweep_axis import plain

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
