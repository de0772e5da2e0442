"""The kernels of several runs as points of a metric space: their distances, a map of them, the steps between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.figures.shared.checks import require_shape
from losskernel.figures.shared.lettering import legend_below, letter_all, mark_sample, name_points, plain, shortened
from losskernel.figures.shared.panels import (
    draw_distances,
    draw_steps,
    furnish_layout,
    mark_verdicts,
    new_figure,
    verdict_handles,
)
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, SEQUENTIAL, palette, paper
from losskernel.figures.shared.sweep_axis import Axis

_MOST_NUMBERS = 9  # rows of the matrix whose entries can be read
_MOST_NAMES = 16
_LETTERS = 44  # that fit below the matrix
_MOST_LABELS = 9
_LONGEST_NAME = 18


@dataclass(frozen=True)
class Kernels:
    """P kernels and what is known of them."""

    distances: np.ndarray  # [P, P], angles in rad
    floor: np.ndarray  # [P, P], what Monte-Carlo noise alone gives; diagonal: between a kernel and its own repetition
    to_control: np.ndarray  # [P], distance from the kernel of the run's nβ = 0 control, NaN where there is none
    positions: np.ndarray  # [P, 2], a map
    stress: float  # of the map: the share of the distances that it gets wrong
    names: Sequence[str]  # [P], as matplotlib text, formulas between dollar signs
    verdicts: Sequence[str]  # [P]
    where: Sequence[int | None]  # [P], number of the value on the swept axis, None off it
    paths: Sequence[Sequence[int]]  # members of each path in the order of the axis
    path_names: Sequence[str]  # one per path

    def __post_init__(self) -> None:
        count = len(self.names)
        shapes = {"distances": (count, count), "floor": (count, count), "to_control": (count,), "positions": (count, 2)}
        for name, shape in shapes.items():
            require_shape(name, getattr(self, name), shape, "pass one entry per kernel")


@paper()
def kernel_similarity(kernels: Kernels, axis: Axis) -> Figure:
    """The matrix of distances, the kernels as paths on a flat map, and, where the axis has an order, their steps."""
    ordered = axis.values is not None
    # The far end of viridis is too pale for a line on white paper.
    scale, shades = Normalize(0, max(len(axis.names) - 1, 1) / 0.9), colormaps[SEQUENTIAL]
    colours = [MUTED if index is None else to_hex(shades(scale(index))) for index in kernels.where]
    # a path has a colour of its own where there are few, and grey where a palette says no more
    lines = palette(len(kernels.paths)) if 1 < len(kernels.paths) <= 8 else [MUTED] * len(kernels.paths)
    figure = new_figure(DOUBLE, 2.75, wspace=0.05)
    widths = [1.15, 1.0, 1.0] if ordered else [1.15, 1.0]
    panels = figure.subplots(1, len(widths), width_ratios=widths)
    _matrix(figure, panels[0], kernels, axis.label)
    on_map = [kernels.positions[list(path)] for path in kernels.paths] if ordered else []
    for line, colour in zip(on_map, lines, strict=False):
        panels[1].plot(*line.T, color=colour, linewidth=0.8, zorder=1)
    for point, verdict, colour in zip(kernels.positions, kernels.verdicts, colours, strict=True):
        mark_verdicts(panels[1], point[:1], point[1:], [verdict], colour, 5.5)
    furnish_layout(panels[1], "first axis, rad", "second axis, rad", 0.2, kernels.stress)
    if ordered:
        _steps(panels[2], kernels, axis, lines)
    letter_all(panels, ("distances between kernels", "the kernels on a map", "steps along the path"))
    legend_below(figure, _handles(kernels, axis, colours, lines), columns=9)
    if len(kernels.paths) == 1 or not ordered:
        figure.draw_without_rendering()  # names are placed where the layout has put the points
        names = _names_on_map(kernels)
        name_points(panels[1], kernels.positions, names, on_map, names)
    return figure


def _handles(kernels: Kernels, axis: Axis, colours: Sequence[str], lines: Sequence[str]) -> list[Line2D]:
    """Return the legend's entries: verdicts, and, where points have no names, paths and the ends of the axis."""
    handles = verdict_handles(kernels.verdicts)
    if len(kernels.paths) > 1 and axis.values is not None:
        ends = [kernels.where.index(index) for index in (0, len(axis.names) - 1) if index in kernels.where]
        names = axis.printed()
        for end in ends:
            text = f"{plain(axis.label.split()[-1])} = {names[kernels.where[end] or 0]}"
            handles.append(mark_sample(text, "o", colours[end], 5))
        if len(kernels.paths) <= 8:
            zipped = zip(lines, kernels.path_names, strict=True)
            handles += [Line2D([], [], color=colour, label=plain(name)) for colour, name in zipped]
    return handles


def _matrix(figure: Figure, axes: Axes, kernels: Kernels, label: str) -> None:
    on_paths = [member for path in kernels.paths for member in path]
    others = [member for member in range(len(kernels.names)) if member not in on_paths]
    order, count = [*on_paths, *others], len(kernels.names)
    shown = kernels.distances.copy()
    # a kernel's distance to itself says nothing; the floor says what a repetition would give
    np.fill_diagonal(shown, np.diag(kernels.floor))
    shown = shown[np.ix_(order, order)]
    draw_distances(figure, axes, shown, "angular CKA distance, rad", _MOST_NUMBERS, np.eye(count))
    blocks = [*kernels.paths, *([member] for member in others)]
    if len(kernels.paths) > 1:
        _name_blocks(axes, blocks, [*map(plain, kernels.path_names), *(kernels.names[member] for member in others)])
        axes.set_xlabel(f"{plain(label)}, within each block")
    else:
        ticks = range(0, count, -(-count // _MOST_NAMES))
        texts = [_shortened(kernels.names[order[tick]]) for tick in ticks]
        lengths = [0 if "$" in text else len(text) for text in texts]
        short = max(lengths) <= 5 and sum(lengths) + len(lengths) <= _LETTERS
        axes.set_xticks(ticks, texts if short else [""] * len(texts), fontsize=6)
        axes.set_yticks(ticks, texts, fontsize=6)
        axes.set_xlabel(plain(label))


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


def _names_on_map(kernels: Kernels) -> dict[int, str]:
    """Return what to write beside some of the points; names too close together for one each are joined."""
    positions, last = kernels.positions, len(kernels.names) - 1
    # closer than 7 % of the map two names would overlap
    near = 0.07 * max(float(np.ptp(positions, axis=0).max()), 1e-9)
    groups: dict[int, list[str]] = {}
    for number in sorted({*range(0, last + 1, -(-len(positions) // _MOST_LABELS)), last}):
        close = (first for first in groups if np.linalg.norm(positions[number] - positions[first]) < near)
        groups.setdefault(next(close, number), []).append(_shortened(kernels.names[number]))
    return {
        first: ", ".join(names) if len(names) <= 2 else f"{names[0]} … {names[-1]}" for first, names in groups.items()
    }


def _steps(axes: Axes, kernels: Kernels, axis: Axis, lines: Sequence[str]) -> None:
    for number, (path, colour) in enumerate(zip(kernels.paths, lines, strict=True)):
        along = axis.positions[[index for member in path if (index := kernels.where[member]) is not None]]
        steps, floor = (matrix[path[:-1], path[1:]] for matrix in (kernels.distances, kernels.floor))
        draw_steps(axes, along, steps, floor, INK if len(kernels.paths) == 1 else colour, key=number == 0)
        control = kernels.to_control[list(path)]
        if np.isfinite(control).any():
            name = "to its control" if number == 0 else None
            axes.plot(along, control, color=MUTED, linestyle=(0, (4, 2)), linewidth=0.9, label=name)
    axis.draw(axes, named=True, most=5)
    entries = len(axes.get_legend_handles_labels()[1])
    axes.set_ylim(0, (1.25 if entries <= 2 else 1.4) * axes.get_ylim()[1])  # room for the legend
    axes.locator_params(axis="y", nbins=5)
    axes.set_ylabel("angular CKA distance, rad")
    if entries:
        look: dict[str, Any] = {"handlelength": 0.9, "handletextpad": 0.3, "columnspacing": 0.6, "fontsize": 6}
        axes.legend(loc="upper center", ncols=2, borderaxespad=0.1, **look)
