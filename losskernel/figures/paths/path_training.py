"""How a network's path changes while it is trained."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losskernel.figures.shared.point_labels import key_below, with_unit
from losskernel.figures.shared.style import DOUBLE, INK, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import Axis, plain

_COLOURS = (*OKABE_ITO[:1], *OKABE_ITO[2:6])
_MARKS = ("o", "s", "^", "D", "v")


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
    with paper():
        figure = Figure(figsize=(DOUBLE, 2.4), layout="constrained")
        figure.get_layout_engine().set(wspace=0.05)  # pyright: ignore
        panels = figure.subplots(1, len(totals) + 1)
        for axes, (title, curve) in zip(panels, totals.items(), strict=False):
            _bars(axes, axis, curve, {"color": INK, "marker": "o"})
            axes.set_ylabel(title)
        for place, (name, curve) in enumerate(distances.items()):
            look: dict[str, Any] = {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKS[place % len(_MARKS)]}
            _bars(panels[-1], axis, curve, look, plain(name))
        panels[-1].set_ylabel(with_unit("distance to the target", unit))
        for letter, axes in zip("abcdef", panels, strict=False):
            axes.set_title(f"$\\bf{{{letter}}}$", loc="left", pad=4)
            axis.draw(axes, named=True, most=6)
            axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        key_below(figure, panels[-1].get_legend_handles_labels()[0], note)
    return figure


def _bars(axes: Axes, axis: Axis, curve: tuple[np.ndarray, np.ndarray], look: dict[str, Any], label: str = "") -> None:
    values, errors = curve
    axes.errorbar(
        axis.places, values, np.nan_to_num(errors), markersize=3.5, elinewidth=0.8, label=label or None, **look
    )
