"""When in training a kernel comes to know each level of a hierarchy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from losskernel.figures.shared.style import INK, MUTED, OKABE_ITO, SINGLE, paper
from losskernel.figures.shared.sweep_axis import Axis

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = (OKABE_ITO[0], OKABE_ITO[3], OKABE_ITO[2], OKABE_ITO[4], OKABE_ITO[1], OKABE_ITO[5])
_MARKS = ("o", "s", "^", "D", "v", "P")


def emergence(
    axis: Axis,
    levels: Sequence[str],
    contrasts: np.ndarray,
    errors: np.ndarray,
    table: "pd.DataFrame",
    threshold: float,
) -> Figure:
    """A curve of contrast per level against the step, and a line where it passes the threshold for good.

    axis: the S steps, ascending. levels: L names, from the coarsest. contrasts, errors: [S, L]. table: level, step,
    low and high, NaN where a level does not appear.

    Raises:
        ValueError: the arrays do not belong to steps and levels.
    """
    shape = (len(axis.names), len(levels))
    if np.shape(contrasts) != shape or np.shape(errors) != shape:
        raise ValueError(f"contrasts and errors must be {shape}, got {np.shape(contrasts)} and {np.shape(errors)}")
    with paper():
        figure = Figure(figsize=(SINGLE, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.axhline(threshold, color=MUTED, linewidth=0.6, linestyle=(0, (4, 3)))
        axes.axhline(0, color=MUTED, linewidth=0.6)
        for level, (name, row) in enumerate(zip(levels, table.to_dict("records"), strict=True)):
            colour, mark = _COLOURS[level % len(_COLOURS)], _MARKS[level % len(_MARKS)]
            step, low, high = (float(row[key]) for key in ("step", "low", "high"))
            if np.isfinite(step):
                axes.axvspan(
                    _place(axis, low),
                    _place(axis, high if np.isfinite(high) else np.inf),
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
                axes.axvline(_place(axis, step), color=colour, linewidth=1.0)
            said = f"{step:.0f}" if np.isfinite(step) else "never"
            axes.errorbar(
                axis.places,
                contrasts[:, level],
                errors[:, level],
                color=colour,
                marker=mark,
                markersize=3.5,
                elinewidth=0.8,
                label=f"{str(name).replace('_', ' ')}: {said}",
            )
        axis.draw(axes, named=True)
        axes.set_ylim(min(-0.1, float((contrasts - errors).min()) - 0.05), 1.1)
        axes.set_ylabel("contrast of coupling R²")
        figure.legend(
            loc="outside lower center",
            ncols=3,
            title="appears at step",
            title_fontsize=7,
            columnspacing=1.2,
            labelcolor=INK,
        )
    return figure


def _place(axis: Axis, step: float) -> float:
    """Return where a step between two others stands on the axis."""
    values, places = np.log1p(np.asarray(axis.values, dtype=float)), axis.places
    if not axis.logarithmic:
        return float(np.interp(np.log1p(step), values, places))
    return float(np.exp(np.interp(np.log1p(step), values, np.log(places))))
