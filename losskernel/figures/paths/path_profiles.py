"""What each layer adds along a path: distances, steps and directions; and how a path changes in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.figures.shared.lettering import LINE, fit, legend_below, letter, plain, width, with_unit
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, new_figure, paper
from losskernel.figures.shared.sweep_axis import Axis

_PANEL = 1.12  # inches
_NAME = 6.5  # points
_LONGEST = 1.1  # inches of a name
_ROOM = 6.3  # inches that the layers have across the figure
_OPEN: dict[str, Any] = {"markerfacecolor": "white", "linestyle": (0, (3, 1.5)), "linewidth": 0.9}
_COLOURS = (*OKABE_ITO[:1], *OKABE_ITO[2:6])
_MARKS = ("o", "s", "^", "D", "v")


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
        ValueError: a profile does not have a value per layer.
    """
    count = len(layers)
    for course in courses:
        if len(course.to_target) != count or len(course.step) != count - 1:
            got = len(course.to_target)
            raise ValueError(f"{course.name} must have {count} layers, got {got}; pass one value each")
    upright = _upright(layers)
    # room below for names side by side on two lines, or upright
    height = 4 * _PANEL + 0.75 + (_longest(layers) if upright else 2 * _NAME * LINE)
    figure = new_figure(DOUBLE, height, hspace=0.03, h_pad=0.03)
    panels = figure.subplots(4, 1, sharex=True)
    # courses lie a little beside each other, so that error bars do not overlap
    for index, course in enumerate(courses):
        shift = 0.06 * (index - (len(courses) - 1) / 2)
        _distances(panels[0], course, shift)
        _steps(panels[1], course, shift)
        _angles(panels[2], course, shift)
        _way(panels[3], course, shift)
    _furnish(panels, unit)
    words = ("distance", "step to the next layer", "direction", "way from the inputs to the target")
    for number, (axes, title) in enumerate(zip(panels, words, strict=True)):
        letter(axes, number, title, 3)
        for index in range(count):
            axes.axvline(index, color=FAINT, linewidth=0.4, zorder=0)
    _name_layers(panels[-1], layers, upright)
    handles = [Line2D([], [], color=course.colour, linewidth=2.0, label=plain(course.name)) for course in courses]
    legend_below(figure, handles, note=note)
    return figure


def _distances(axes: Axes, course: Course, shift: float) -> None:
    positions = np.arange(len(course.to_target)) + shift
    look: dict[str, Any] = {"color": course.colour}
    error = np.nan_to_num(course.to_target_error)
    axes.errorbar(positions, course.to_target, error, marker="o", markersize=3.2, elinewidth=0.8, zorder=3, **look)
    axes.plot(positions, course.off, marker="D", markersize=3.0, **_OPEN, **look)


def _steps(axes: Axes, course: Course, shift: float) -> None:
    middle = np.arange(len(course.step)) + 0.5 + shift
    for index, (length, gained) in enumerate(zip(course.step, course.progress, strict=True)):
        ends = [index + 0.08, index + 0.92]
        axes.plot(ends, [length] * 2, color=course.colour, linewidth=1.8, solid_capstyle="butt", zorder=3)
        axes.fill_between(ends, 0, gained, color=course.colour, alpha=0.22, linewidth=0)
        axes.plot(ends, [gained] * 2, color=course.colour, linewidth=0.7, linestyle=(0, (3, 1.5)))
    look: dict[str, Any] = {"ecolor": course.colour, "elinewidth": 0.8, "zorder": 4}
    axes.errorbar(middle, course.step, np.nan_to_num(course.step_error), fmt="none", **look)


def _angles(axes: Axes, course: Course, shift: float) -> None:
    middle, inner = np.arange(len(course.heading)) + 0.5, np.arange(1, len(course.turning) + 1)
    look: dict[str, Any] = {"color": course.colour}
    axes.plot(middle + shift, np.degrees(course.heading), marker="o", markersize=3.2, zorder=3, **look)
    axes.plot(inner + shift, np.degrees(course.turning), marker="^", markersize=3.4, **_OPEN, **look)


def _way(axes: Axes, course: Course, shift: float) -> None:
    positions = np.arange(len(course.fraction)) + shift
    axes.plot(positions, course.fraction, marker="o", markersize=3.2, zorder=3, color=course.colour)


def _furnish(panels: Sequence[Axes], unit: str) -> None:
    distances, steps, angles, way = panels
    for axes, label in zip(panels, (unit or "distance", unit or "distance", "degrees", "fraction"), strict=True):
        axes.set_ylabel(label)
    distances.set_ylim(0)
    steps.axhline(0, color=INK, linewidth=0.5)
    angles.axhline(90, color=MUTED, linewidth=0.8, zorder=1)
    angles.set(ylim=(-8, 188), yticks=[0, 90, 180])
    way.set(ylim=(-0.06, 1.06), yticks=[0, 0.5, 1])
    dashed = {"markerfacecolor": "white", "linestyle": (0, (3, 1.5)), "linewidth": 0.9}
    _key(distances, {"to the target": {"marker": "o"}, "off the geodesic inputs–target": {"marker": "D", **dashed}})
    _key(steps, {"length": {"linewidth": 1.8}, "part that approaches the target": dashed | {"linewidth": 0.7}})
    headings = {
        "heading: 0 at the target, 90 sideways": {"marker": "o"},
        "turning: 0 straight on": {"marker": "^", **dashed},
    }
    _key(angles, headings)


def _key(axes: Axes, entries: dict[str, dict[str, Any]]) -> None:
    handles = [Line2D([], [], color=INK, markersize=3.2, label=label, **look) for label, look in entries.items()]
    look: dict[str, Any] = {"fontsize": 6.5, "handlelength": 1.8, "handletextpad": 0.4, "columnspacing": 1.2}
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 0.99), ncols=2, borderaxespad=0, **look)


def _upright(layers: Sequence[str]) -> bool:
    """Whether names must be turned upright, because side by side they would overlap."""
    return max(width(name, _NAME) for name in layers) > 0.92 * _ROOM / len(layers)


def _longest(layers: Sequence[str]) -> float:
    return min(max(width(name, _NAME) for name in layers), _LONGEST) + 0.05


def _name_layers(axes: Axes, layers: Sequence[str], upright: bool) -> None:
    most = int(_ROOM / (_NAME * LINE))
    # of more names than fit upright, an even part
    every = -(-len(layers) // most) if upright else 1
    shown = [index for index in range(len(layers)) if index % every == 0 or index == len(layers) - 1]
    axes.set_xticks(shown, [plain(fit(layers[index], _LONGEST, _NAME)) for index in shown])
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
        ValueError: a curve does not have a value per step.
    """
    count = len(axis.names)
    for name, (values, errors) in [*totals.items(), *distances.items()]:
        if np.shape(values) != (count,) or np.shape(errors) != (count,):
            raise ValueError(f"{name!r} must have {count} values and errors, one per step, got {np.shape(values)}")
    figure = new_figure(DOUBLE, 2.4, wspace=0.05)
    panels = figure.subplots(1, len(totals) + 1)
    for axes, (title, curve) in zip(panels, totals.items(), strict=False):
        _bars(axes, axis, curve, {"color": INK, "marker": "o"})
        axes.set_ylabel(title)
    for index, (name, curve) in enumerate(distances.items()):
        look: dict[str, Any] = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKS[index % len(_MARKS)]}
        _bars(panels[-1], axis, curve, look, plain(name))
    panels[-1].set_ylabel(with_unit("distance to the target", unit))
    for number, axes in enumerate(panels):
        letter(axes, number)
        axis.draw(axes, named=True, most=6)
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    legend_below(figure, note=note)
    return figure


def _bars(axes: Axes, axis: Axis, curve: tuple[np.ndarray, np.ndarray], look: dict[str, Any], label: str = "") -> None:
    values, errors = curve
    axes.errorbar(
        axis.positions, values, np.nan_to_num(errors), markersize=3.5, elinewidth=0.8, label=label or None, **look
    )
