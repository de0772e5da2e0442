"""The kernels of several runs as points of a metric space: their distances, a map of them, the steps between."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, SEQUENTIAL, palette, paper
from losskernel.figures.shared.sweep_axis import Axis, plain, shortened

_MOST_NUMBERS = 9  # rows of the matrix whose entries can be read
_MOST_NAMES = 16
_LETTERS = 44  # that fit below the matrix
_MOST_LABELS = 9
_LONGEST_NAME = 18


@dataclass(frozen=True)
class Kernels:
    """Kernels and what is known of them.

    distances: [P, P] angles in radians. floor: [P, P] the distance that Monte-Carlo noise alone gives; on its
    diagonal between a kernel and its own repetition. to_control: [P] distance from the kernel of the run's own
    nβ = 0 control, NaN where there is none. places: [P, 2] a map, with its stress, the share of the distances that it
    gets wrong. names: [P] as matplotlib text, formulas between dollar signs. verdicts: [P]. where: [P] places on the
    swept axis, None off it. paths: members in the order of the axis, and each path's name.
    """

    distances: np.ndarray
    floor: np.ndarray
    to_control: np.ndarray
    places: np.ndarray
    stress: float
    names: Sequence[str]
    verdicts: Sequence[str]
    where: Sequence[int | None]
    paths: Sequence[Sequence[int]]
    path_names: Sequence[str]

    def __post_init__(self) -> None:
        count = len(self.names)
        shapes = {"distances": (count, count), "floor": (count, count), "to_control": (count,), "places": (count, 2)}
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                found = np.shape(getattr(self, name))
                raise ValueError(f"{name} must be {shape}, got {found}; pass one entry per kernel")


def kernel_similarity(kernels: Kernels, axis: Axis) -> Figure:
    """The matrix of distances, the kernels as paths on a flat map, and, where the axis has an order, their steps."""
    ordered = axis.values is not None
    colours = _colours(axis, kernels.where)
    lines = palette(len(kernels.paths)) if 1 < len(kernels.paths) <= 8 else [MUTED] * len(kernels.paths)
    with paper():
        figure = Figure(figsize=(DOUBLE, 2.75), layout="constrained")
        figure.get_layout_engine().set(wspace=0.05)  # pyright: ignore
        widths = [1.15, 1.0, 1.0] if ordered else [1.15, 1.0]
        panels = figure.subplots(1, len(widths), width_ratios=widths)
        _matrix(figure, panels[0], kernels, axis.label)
        _map(panels[1], kernels, colours, lines if ordered else [])
        if ordered:
            _steps(panels[2], kernels, axis, lines)
        for letter, axes in zip("abc", panels, strict=False):
            axes.set_title(f"$\\bf{{{letter}}}$  {axes.get_title()}", loc="left", pad=5)
            axes.set_title("")
        handles = _handles(kernels, axis, colours, lines)
        figure.legend(handles=handles, loc="outside lower center", ncols=9, columnspacing=1.2, handletextpad=0.3)
    return figure


def _colours(axis: Axis, where: Sequence[int | None]) -> list[str]:
    # The far end of viridis is too pale for a line on white paper.
    scale = Normalize(0, max(len(axis.names) - 1, 1) / 0.9)
    return [MUTED if place is None else to_hex(colormaps[SEQUENTIAL](scale(place))) for place in where]


def _face(verdict: str, colour: str) -> dict[str, Any]:
    return {
        "color": colour,
        "markerfacecolor": "white" if verdict == "warn" else colour,
        "markeredgewidth": 1.1 if verdict == "warn" else 0.6,
    }


def _handles(kernels: Kernels, axis: Axis, colours: Sequence[str], lines: Sequence[str]) -> list[Line2D]:
    """Return the legend's entries: verdicts, and, where points have no names, paths and the ends of the axis."""
    look = {"linestyle": "", "markersize": 5}
    handles = [
        Line2D([], [], marker=shown.marker, label=shown.word, **look, **_face(verdict, INK))
        for verdict, shown in VERDICTS.items()
        if verdict in kernels.verdicts
    ]
    if len(kernels.paths) > 1 and axis.values is not None:
        ends = [kernels.where.index(place) for place in (0, len(axis.names) - 1) if place in kernels.where]
        names = axis.printed()
        for end in ends:
            text = f"{plain(axis.label.split()[-1])} = {names[kernels.where[end] or 0]}"
            handles.append(Line2D([], [], marker="o", color=colours[end], label=text, **look))
        if len(kernels.paths) <= 8:
            zipped = zip(lines, kernels.path_names, strict=True)
            handles += [Line2D([], [], color=colour, label=plain(name)) for colour, name in zipped]
    return handles


def _matrix(figure: Figure, axes: Axes, kernels: Kernels, label: str) -> None:
    inside = [member for path in kernels.paths for member in path]
    outside = [member for member in range(len(kernels.names)) if member not in inside]
    order, count = [*inside, *outside], len(kernels.names)
    shown = kernels.distances.copy()
    np.fill_diagonal(shown, np.diag(kernels.floor))
    shown = shown[np.ix_(order, order)]
    top = max(float(np.nanmax(shown)), 1e-3)
    image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=1.15 * top)
    if count <= _MOST_NUMBERS:
        for i, j in np.ndindex(count, count):
            if np.isfinite(shown[i, j]):
                look = {"color": "white" if shown[i, j] > 0.65 * top else INK, "fontsize": 5.5}
                style = "italic" if i == j else "normal"
                axes.text(j, i, f"{shown[i, j]:.2f}", ha="center", va="center", fontstyle=style, **look)
    blocks = [*kernels.paths, *([member] for member in outside)]
    if len(kernels.paths) > 1:
        _name_blocks(axes, blocks, [*map(plain, kernels.path_names), *(kernels.names[member] for member in outside)])
        axes.set_xlabel(f"{plain(label)}, within each block")
    else:
        ticks = range(0, count, -(-count // _MOST_NAMES))
        texts = [_shortened(kernels.names[order[tick]]) for tick in ticks]
        lengths = [0 if "$" in text else len(text) for text in texts]
        short = max(lengths) <= 5 and sum(lengths) + len(lengths) <= _LETTERS
        axes.set_xticks(ticks, texts if short else [""] * len(texts), fontsize=6)
        axes.set_yticks(ticks, texts, fontsize=6)
        axes.set_xlabel(plain(label))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, aspect=22, pad=0.02)
    bar.set_label("angular CKA distance, rad", fontsize=7)
    bar.ax.spines[:].set_visible(False)
    axes.set_title("distances between kernels")


def _name_blocks(axes: Axes, blocks: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    ends = np.cumsum([len(block) for block in blocks])
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color="white", linewidth=1.2)
        axes.axvline(end - 0.5, color="white", linewidth=1.2)
    middle = ends - np.array([len(block) for block in blocks]) / 2 - 0.5
    axes.set_yticks(middle, [_shortened(name) for name in names], fontsize=6, rotation=90, va="center")
    axes.set_xticks([])


def _shortened(name: str) -> str:
    return name if "$" in name else shortened(name, _LONGEST_NAME)


def _map(axes: Axes, kernels: Kernels, colours: Sequence[str], lines: Sequence[str]) -> None:
    places = kernels.places
    for path, colour in zip(kernels.paths, lines, strict=False):
        axes.plot(*places[list(path)].T, color=colour, linewidth=0.8, zorder=1)
    for place, verdict, colour in zip(places, kernels.verdicts, colours, strict=True):
        axes.plot(*place, marker=VERDICTS[verdict].marker, markersize=5.5, **_face(verdict, colour))
    if len(kernels.paths) == 1 or not lines:
        for group in _clusters(places, -(-len(places) // _MOST_LABELS)):
            own = [_shortened(kernels.names[member]) for member in group]
            sideways, up = _away(places, kernels.paths if lines else [], group)
            axes.annotate(
                ", ".join(own) if len(own) <= 2 else f"{own[0]} … {own[-1]}",
                places[group].mean(0),
                (8 * sideways, 7 * up),
                textcoords="offset points",
                ha={1: "left", 0: "center", -1: "right"}[sideways],
                va={1: "bottom", 0: "center", -1: "top"}[up],
                fontsize=6.5,
            )
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.2)
    axes.set(xlabel="first axis, rad", ylabel="second axis, rad")
    axes.locator_params(nbins=4)
    axes.text(
        0.98, 0.02, f"stress {kernels.stress:.2f}", transform=axes.transAxes, ha="right", color=MUTED, fontsize=6.5
    )
    axes.set_title("the kernels on a map")


def _clusters(places: np.ndarray, step: int) -> list[list[int]]:
    """Return the points to name, one in `step` and the last, those too close together for a name each in groups."""
    near = 0.07 * max(float(np.ptp(places, axis=0).max()), 1e-9)
    groups: list[list[int]] = []
    last = len(places) - 1
    for number in sorted({*range(0, last + 1, step), last}):
        for group in groups:
            if np.linalg.norm(places[number] - places[group[0]]) < near:
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _away(places: np.ndarray, paths: Sequence[Sequence[int]], group: Sequence[int]) -> tuple[int, int]:
    """Return the direction, right and up, in which a name covers no path: above or below, else beside."""
    here = places[list(group)].mean(0)
    joined = {pair for path in paths for pair in pairwise(path)}
    nearby = {b if a in group else a for a, b in joined if (a in group) != (b in group)}
    gaps = [places[other] - here for other in sorted(nearby)]
    units = [gap / max(float(np.linalg.norm(gap)), 1e-12) for gap in gaps]
    rise = -float(np.sum([unit[1] for unit in units]))
    if abs(rise) > 0.3:
        return 0, 1 if rise > 0 else -1
    if len(units) > 1 and max(abs(unit[1]) for unit in units) > 0.5:  # an upright passage
        return 1, 0
    return 0, 1 if here[1] >= places[:, 1].mean() else -1


def _steps(axes: Axes, kernels: Kernels, axis: Axis, lines: Sequence[str]) -> None:
    for number, (path, colour) in enumerate(zip(kernels.paths, lines, strict=True)):
        own = axis.places[[place for member in path if (place := kernels.where[member]) is not None]]
        line = INK if len(kernels.paths) == 1 else colour
        for i, pair in enumerate(pairwise(path)):
            ends, first = own[i : i + 2], number == i == 0
            axes.fill_between(ends, 0, kernels.floor[pair], color=FAINT, linewidth=0, label="noise" if first else None)
            step = "to the next" if first else None
            axes.plot(ends, [kernels.distances[pair]] * 2, color=line, linewidth=1.4, solid_capstyle="butt", label=step)
        control = kernels.to_control[list(path)]
        if np.isfinite(control).any():
            name = "to its control" if number == 0 else None
            axes.plot(own, control, color=MUTED, linestyle=(0, (4, 2)), linewidth=0.9, label=name)
    axis.draw(axes, named=True, most=5)
    entries = len(axes.get_legend_handles_labels()[1])
    axes.set_ylim(0, (1.25 if entries <= 2 else 1.4) * axes.get_ylim()[1])  # room for the legend
    axes.locator_params(axis="y", nbins=5)
    axes.set_ylabel("angular CKA distance, rad")
    if entries:
        look = {"handlelength": 0.9, "handletextpad": 0.3, "columnspacing": 0.6, "borderaxespad": 0.1, "fontsize": 6}
        axes.legend(loc="upper center", ncols=2, **look)  # pyright: ignore[reportArgumentType]
    axes.set_title("steps along the path")
