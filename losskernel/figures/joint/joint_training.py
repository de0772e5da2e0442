"""The loss kernel's path over training beside those of the layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losskernel.figures.shared.point_labels import key_below
from losskernel.figures.shared.style import DOUBLE, FAINT, MUTED, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import plain

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = (OKABE_ITO[3], OKABE_ITO[0], OKABE_ITO[2], OKABE_ITO[4], OKABE_ITO[5], OKABE_ITO[1])
_MARKERS = ("D", "o", "X", "h", "s", "^")


def joint_training(table: "pd.DataFrame", drawn: Sequence[str], target: str, note: str = "") -> Figure:
    """Over training: the distance to the labels, to the own trained point, and the angle between velocities.

    table: columns what, step, to_labels, to_end, velocity. drawn: what is drawn, the loss kernel first. target: name of
    the labels. Step 0, the untrained network, stands one gap left of the first step.

    Raises:
        ValueError: the table has no row of something drawn.
    """
    own = table.groupby("what", sort=False)
    parts: list[Any] = [own.get_group(name) if name in own.groups else table.head(0) for name in drawn]
    if not parts or any(part.empty for part in parts):
        raise ValueError(f"the table has no rows of {list(drawn)}; name what it holds")
    panels = [("to_labels", f"distance to {plain(target)}, rad"), ("to_end", "distance to its own end, rad")]
    if any(part["velocity"].notna().any() for part in parts):
        panels.append(("velocity", "angle between velocities, rad"))
    with paper():
        figure = Figure(figsize=(DOUBLE, 2.75), layout="constrained")
        for letter, axes, (column, label) in zip("abc", figure.subplots(1, len(panels)), panels, strict=False):
            for part, colour, marker in zip(parts, _COLOURS, _MARKERS, strict=False):
                kernel = part is parts[0]
                look = {"color": colour, "marker": marker, "linewidth": 1.6 if kernel else 1.0}
                steps = _placed(part["step"].to_numpy(float))
                axes.plot(steps, part[column].to_numpy(float), markersize=3.5, zorder=3 if kernel else 2, **look)
            if column == "velocity":
                axes.axhline(np.pi / 2, color=FAINT, linewidth=1.5, zorder=1)
                axes.set_ylim(0, np.pi)
                axes.set_yticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
                for height, word in ((0.02, "alike"), (0.93, "opposed")):
                    axes.text(0.02, height, word, transform=axes.transAxes, fontsize=6.5, color=MUTED)
            else:
                axes.set_ylim(0)
            axes.set_ylabel(label)
            _steps(axes, np.unique(table["step"].to_numpy(float)))
            axes.set_title(f"$\\bf{{{letter}}}$", loc="left", pad=4)
        lines = figure.axes[0].get_lines()[: len(parts)]
        for line, name in zip(lines, drawn, strict=False):
            line.set_label(plain(name))
        key_below(figure, lines, note)
    return figure


def _placed(steps: np.ndarray) -> np.ndarray:
    """Return places on a logarithmic axis, step 0 a factor of three below step 1."""
    return np.where(steps > 0, steps, 1 / 3)


def _steps(axes: Axes, steps: np.ndarray) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("training step")
    first = float(steps[steps > 0].min()) if (steps > 0).any() else 1.0
    powers = [10.0**power for power in range(8) if first / 2 <= 10.0**power <= 1.2 * steps.max()]
    ticks, names = list(powers), [f"{power:,.0f}" for power in powers]
    if steps.min() == 0:
        ticks, names = [1 / 3, *ticks], ["0", *names]
    axes.set_xticks(ticks, names)
    axes.set_xlim(0.75 * ticks[0], 1.3 * steps.max())
    axes.minorticks_off()
