"""What each layer adds along a path: distances, steps and directions; and how a path changes in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.errors import require
from losskernel.figures.shared.lettering import LINE, fit, legend_below, letter_all, plain, width, with_unit
from losskernel.figures.shared.panels import new_figure
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import Axis

_PANEL = 1.12  # inches
_NAME = 6.5  # points
_LONGEST = 1.1  # inches of a name
_ROOM = 6.3  # inches that the layers have across the figure
_OPEN: dict[str, Any] = {"markerfacecolor": "white", "linestyle": (0, (3, 1.5)), "linewidth": 0.9}
_DOT: dict[str, Any] = {"marker": "o", "markersize": 3.2, "zorder": 3}
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
    height = 4 * _PANEL + 0.75 + (min(longest, _LONGEST) + 0.05 if upright else 2 * _NAME * LINE)
    figure = new_figure(DOUBLE, height, hspace=0.03, h_pad=0.03)
    panels = figure.subplots(4, 1, sharex=True)
    # courses lie a little beside each other, so that error bars do not overlap
    for index, course in enumerate(courses):
        _draw(panels, course, 0.06 * (index - (len(courses) - 1) / 2))
    _furnish(panels, unit)
    letter_all(panels, ("distance", "step to the next layer", "direction", "way from the inputs to the target"), 3)
    for axes in panels:
        for index in range(count):
            axes.axvline(index, color=FAINT, linewidth=0.4, zorder=0)
    _name_layers(panels[-1], layers, upright)
    handles = [Line2D([], [], color=course.colour, linewidth=2.0, label=plain(course.name)) for course in courses]
    legend_below(figure, handles, note=note)
    return figure


def _draw(panels: Sequence[Axes], course: Course, shift: float) -> None:
    """Draw a course into the panels, shifted so that error bars of several do not overlap."""
    distances, steps, angles, way = panels
    layers, look = np.arange(len(course.to_target)), {"color": course.colour}
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
