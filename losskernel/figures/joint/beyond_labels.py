"""Agreement of layers with kernels of losses, with the labels in it and taken out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losskernel.figures.shared.lettering import fit, width
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import plain

if TYPE_CHECKING:
    import pandas as pd

_MOST = 4  # panels


def beyond_labels(table: "pd.DataFrame", kernels: Sequence[str], target: str, note: str = "") -> Figure:
    """A panel a kernel: the raw cosine with every layer, and the cosine that is left beside the labels.

    table: columns target, kernel, layer, cosine, beyond, low, high, beyond_corrected, null_low, null_high. kernels:
    those drawn, at most four. target: whose labels.

    Raises:
        ValueError: the table has no row of a kernel.
    """
    drawn = list(kernels)[:_MOST]
    own = table.groupby(["target", "kernel"], sort=False)
    parts: list[Any] = [
        own.get_group((target, name)) if (target, name) in own.groups else table.head(0) for name in drawn
    ]
    if not parts or any(part.empty for part in parts):
        raise ValueError(f"the table has no rows of {drawn} and {target!r}; name kernels that it holds")
    layers = list(dict.fromkeys(name for part in parts for name in part["layer"]))
    with paper():
        names = [fit(name, 1.1, 6.5) for name in layers]
        figure = Figure(figsize=(DOUBLE, 1.15 + 0.19 * len(layers)), layout="constrained")
        panels = figure.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False)[0]
        for letter, axes, part, kernel in zip("abcd", panels, parts, drawn, strict=False):
            _panel(axes, part, layers)
            room = (DOUBLE - max(width(name, 6.5) for name in names) - 0.5) / len(parts) - 0.2
            title = fit(kernel.replace("localization", "γ"), room, 8)
            axes.set_title(f"$\\bf{{{letter}}}$  {plain(title)}", loc="left", pad=4)
            axes.set_xlabel("cosine with the layer")
        panels[0].set_yticks(range(len(layers)), [plain(name) for name in names], fontsize=6.5)
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        title = {"title": note, "title_fontsize": 6.5} if note else {}
        figure.legend(handles, labels, loc="outside lower center", ncols=4, columnspacing=1.4, **title)
    return figure


def _panel(axes: Axes, part: "pd.DataFrame", layers: Sequence[str]) -> None:
    rows = np.array([layers.index(name) for name in part["layer"]], dtype=float)
    values: dict[str, Any] = {name: part[name].to_numpy(float) for name in part.columns if name in _NUMBERS}
    axes.barh(
        rows,
        values["null_high"] - values["null_low"],
        left=values["null_low"],
        height=0.8,
        color=FAINT,
        label="by chance (90 %)",
        zorder=1,
    )
    axes.axvline(0, color=MUTED, linewidth=0.6, zorder=1.5)
    axes.plot(values["cosine"], rows, "o", color=OKABE_ITO[5], markersize=4.5, label="raw", zorder=2)
    axes.hlines(rows, values["low"], values["high"], color=OKABE_ITO[3], linewidth=1.2, zorder=3)
    axes.plot(values["beyond"], rows, "D", color=OKABE_ITO[3], markersize=4, label="beyond the labels", zorder=3)
    look = {"color": INK, "markersize": 5, "markeredgewidth": 0.9}
    axes.plot(values["beyond_corrected"], rows, "|", label="the same without sampling noise", zorder=4, **look)
    axes.tick_params(axis="y", length=0)


_NUMBERS = ("cosine", "beyond", "low", "high", "beyond_corrected", "null_low", "null_high")
