"""What each layer adds: how far from the target a path is, how long its steps are, and where they lead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.figures.shared.lettering import LINE, fit, width
from losskernel.figures.shared.point_labels import key_below
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, paper
from losskernel.figures.shared.sweep_axis import plain

_PANEL = 1.12  # inches
_NAME = 6.5  # points
_LONGEST = 1.1  # inches of a name
_ROOM = 6.3  # inches that the layers have across the figure
_OPEN: dict[str, Any] = {"markerfacecolor": "white", "linestyle": (0, (3, 1.5)), "linewidth": 0.9}


@dataclass(frozen=True)
class Course:
    """One network's profile over P layers. Distances in the space's units, angles in radians, NaN where unknown.

    name, colour: of the network. to_target, off, fraction: [P]. step, progress, heading: [P - 1], of the step from each
    layer to the next. turning: [P - 2], at the inner layers. to_target_error: [P], step_error: [P - 1] standard errors.
    """

    name: str
    colour: str
    to_target: np.ndarray
    off: np.ndarray
    fraction: np.ndarray
    step: np.ndarray
    progress: np.ndarray
    heading: np.ndarray
    turning: np.ndarray
    to_target_error: np.ndarray
    step_error: np.ndarray


def path_profiles(layers: Sequence[str], courses: Sequence[Course], note: str, unit: str = "rad") -> Figure:
    """Four aligned panels over the layers: distances, steps, angles, and the way done from the inputs to the target.

    note: below the figure, what all numbers depend on.

    Raises:
        ValueError: a profile does not have a value per layer.
    """
    count = len(layers)
    for course in courses:
        if len(course.to_target) != count or len(course.step) != count - 1:
            raise ValueError(
                f"{course.name} must have {count} layers, got {len(course.to_target)}; pass one value each"
            )
    upright = _upright(layers)
    height = 4 * _PANEL + 0.75 + (_longest(layers) if upright else 2 * _NAME * LINE)
    with paper():
        figure = Figure(figsize=(DOUBLE, height), layout="constrained")
        figure.get_layout_engine().set(hspace=0.03, h_pad=0.03)  # pyright: ignore
        panels = figure.subplots(4, 1, sharex=True)
        for place, course in enumerate(courses):
            shift = 0.06 * (place - (len(courses) - 1) / 2)
            _distances(panels[0], course, shift)
            _steps(panels[1], course, shift)
            _angles(panels[2], course, shift)
            _way(panels[3], course, shift)
        _furnish(panels, unit)
        words = ("distance", "step to the next layer", "direction", "way from the inputs to the target")
        for letter, axes, title in zip("abcd", panels, words, strict=True):
            axes.set_title(f"$\\bf{{{letter}}}$  {title}", loc="left", pad=3)
            for place in range(count):
                axes.axvline(place, color=FAINT, linewidth=0.4, zorder=0)
        _name_layers(panels[-1], layers, upright)
        handles = [Line2D([], [], color=each.colour, linewidth=2.0, label=plain(each.name)) for each in courses]
        key_below(figure, handles, note)
    return figure


def _distances(axes: Axes, course: Course, shift: float) -> None:
    places = np.arange(len(course.to_target)) + shift
    look: dict[str, Any] = {"color": course.colour}
    error = np.nan_to_num(course.to_target_error)
    axes.errorbar(places, course.to_target, error, marker="o", markersize=3.2, elinewidth=0.8, zorder=3, **look)
    axes.plot(places, course.off, marker="D", markersize=3.0, **_OPEN, **look)


def _steps(axes: Axes, course: Course, shift: float) -> None:
    middle = np.arange(len(course.step)) + 0.5 + shift
    for place, (length, gained) in enumerate(zip(course.step, course.progress, strict=True)):
        ends = [place + 0.08, place + 0.92]
        axes.plot(ends, [length] * 2, color=course.colour, linewidth=1.8, solid_capstyle="butt", zorder=3)
        axes.fill_between(ends, 0, gained, color=course.colour, alpha=0.22, linewidth=0)
        axes.plot(ends, [gained] * 2, color=course.colour, linewidth=0.7, linestyle=(0, (3, 1.5)))
    axes.errorbar(
        middle,
        course.step,
        np.nan_to_num(course.step_error),
        fmt="none",
        ecolor=course.colour,
        elinewidth=0.8,
        zorder=4,
    )


def _angles(axes: Axes, course: Course, shift: float) -> None:
    middle, inner = np.arange(len(course.heading)) + 0.5, np.arange(1, len(course.turning) + 1)
    look: dict[str, Any] = {"color": course.colour}
    axes.plot(middle + shift, np.degrees(course.heading), marker="o", markersize=3.2, zorder=3, **look)
    axes.plot(inner + shift, np.degrees(course.turning), marker="^", markersize=3.4, **_OPEN, **look)


def _way(axes: Axes, course: Course, shift: float) -> None:
    places = np.arange(len(course.fraction)) + shift
    axes.plot(places, course.fraction, marker="o", markersize=3.2, zorder=3, color=course.colour)


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
    """Whether names must stand upright, for side by side they would run into one another."""
    return max(width(name, _NAME) for name in layers) > 0.92 * _ROOM / len(layers)


def _longest(layers: Sequence[str]) -> float:
    return min(max(width(name, _NAME) for name in layers), _LONGEST) + 0.05


def _name_layers(axes: Axes, layers: Sequence[str], upright: bool) -> None:
    most = int(_ROOM / (_NAME * LINE))
    every = -(-len(layers) // most) if upright else 1
    shown = [place for place in range(len(layers)) if place % every == 0 or place == len(layers) - 1]
    axes.set_xticks(shown, [plain(fit(layers[place], _LONGEST, _NAME)) for place in shown])
    axes.tick_params(axis="x", labelsize=_NAME, labelrotation=90 if upright else 0, length=0 if upright else 2.5)
    axes.set_xlim(-0.5, len(layers) - 0.5)
