"""How well attributions foretell retraining: a dot per method, and predictions against what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from losskernel.figures.shared.kernel_names import HIGHLIGHT
from losskernel.figures.shared.lettering import fit
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, OKABE_ITO, SINGLE, paper

if TYPE_CHECKING:
    import pandas as pd

OWN = {"covariance": "loss kernel, K", "correlation": "loss kernel, R"}
_PRINTED = {
    "trak": "TRAK",
    "influence": "influence function",
    "influence_cosine": "influence function, cosine",
    "gradients": "gradients, dot product",
    "gradients_cosine": "gradients, cosine",
    "penultimate": "features, dot product",
    "penultimate_cosine": "features, cosine",
}
_COLUMNS = ("method", "output", "lds", "lds_low", "lds_high", "chance_low", "chance_high")
_CHANCE, _CEILING = "#C9C9C9", "#CDE5DA"
_ROW = 0.2  # inches
_NAMES = 1.6  # inches, left of the axes
_WIDE = 4.8  # inches
_PANELS = 3


def printed_method(name: str) -> str:
    """Return a method's name for print."""
    return OWN.get(name) or _PRINTED.get(name) or name.replace("_", " ")


def datamodelling_scores(table: pd.DataFrame, ceiling: Sequence[float] | None = None) -> Figure:
    """A row per method, best first, a dot per output with its 90 % interval; the ceiling as a band, chance in grey.

    table: a row per method and output, with the columns method, output, lds, lds_low, lds_high, chance_low and
    chance_high. ceiling: (value, low, high) of the noise ceiling, or None.

    Raises:
        ValueError: a column is missing, or the table is empty.
    """
    missing = [name for name in _COLUMNS if name not in table]
    if missing or not len(table):
        raise ValueError(f"table must have rows and the columns {', '.join(_COLUMNS)}; it lacks {missing or 'rows'}")
    outputs = list(dict.fromkeys(table["output"]))
    first = table[table["output"] == outputs[0]]
    first = first.iloc[np.argsort(-np.asarray(first["lds"]), kind="stable")]
    methods = list(first["method"])
    with paper():
        figure = Figure(figsize=(_WIDE, _ROW * len(methods) + 1.1), layout="constrained")
        axes = figure.subplots()
        _bands(axes, first, ceiling)
        for number, output in enumerate(outputs):
            shift = 0.3 * (number - (len(outputs) - 1) / 2)
            rows = table[table["output"] == output].set_index("method")
            for place, method in enumerate(methods):
                _dot(axes, rows.loc[method], place + shift, method in OWN, hollow=number > 0)
        axes.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_yticks(range(len(methods)), [fit(printed_method(name), _NAMES, 7) for name in methods])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.04)
        axes.set_xlabel("linear datamodelling score (mean rank correlation)")
        figure.legend(
            handles=_handles(outputs, ceiling is not None), loc="outside lower center", ncols=3, handletextpad=0.5
        )
    return figure


def predicted_outcomes(
    predicted: Sequence[np.ndarray], actual: Sequence[np.ndarray], titles: Sequence[str], output: str
) -> Figure:
    """A panel per query: summed influence of every subset against what retraining on it gave.

    predicted: [m] each, up to a constant; actual: [m] each; titles: a line or two each; output: name of the actual
    axis. At most three queries.

    Raises:
        ValueError: not one to three queries, or not one number per subset in both.
    """
    if not 1 <= len(predicted) <= _PANELS or not len(predicted) == len(actual) == len(titles):
        raise ValueError(
            f"give one to {_PANELS} queries, each with predicted, actual and a title, got {len(predicted)}"
        )
    for left, right in zip(predicted, actual, strict=True):
        if np.ndim(left) != 1 or np.shape(left) != np.shape(right):
            raise ValueError(f"predicted must have one number per subset, got {np.shape(left)} and {np.shape(right)}")
    with paper():
        size = (max(SINGLE, DOUBLE * len(predicted) / _PANELS), 2.35)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(predicted), squeeze=False)[0]
        for axes, left, right, title in zip(panels, predicted, actual, titles, strict=True):
            largest = float(np.abs(left).max(initial=0.0)) or 1.0
            axes.plot(np.asarray(left) / largest, right, "o", color=OKABE_ITO[0], markersize=3, alpha=0.75)
            axes.set_title("\n".join(fit(line, 1.95, 7) for line in title.splitlines()), fontsize=7)
            axes.locator_params(nbins=4)
            axes.margins(0.08)
        panels[0].set_ylabel(output)
        words = "predicted: summed influence of a subset's samples, centred, largest = 1"
        figure.supxlabel(fit(words, size[0] - 0.3, 8, lines=2), fontsize=8)
    return figure


def _bands(axes: Axes, rows: pd.DataFrame, bounds: Sequence[float] | None) -> None:
    """Tint the loss kernel's rows, what chance gives, and the ceiling."""
    for place, (method, low, high) in enumerate(
        zip(rows["method"], rows["chance_low"], rows["chance_high"], strict=True)
    ):
        if method in OWN:
            axes.axhspan(place - 0.5, place + 0.5, color=HIGHLIGHT, linewidth=0, zorder=0)
        axes.fill_between([low, high], place - 0.38, place + 0.38, color=_CHANCE, linewidth=0, zorder=1)
    if bounds is not None:
        value, low, high = bounds
        axes.axvspan(low, min(high, 1.0), color=_CEILING, linewidth=0, zorder=1)
        axes.axvline(value, color=OKABE_ITO[2], linewidth=1.0, zorder=2)


def _dot(axes: Axes, row: pd.Series, place: float, own: bool, hollow: bool) -> None:
    colour = OKABE_ITO[0] if own else INK
    axes.plot([row["lds_low"], row["lds_high"]], [place, place], color=colour, linewidth=1.0, zorder=3)
    face = "white" if hollow else colour
    axes.plot(row["lds"], place, "o", color=colour, markerfacecolor=face, markersize=3.8, zorder=4)


def _handles(outputs: Sequence[str], ceiling: bool) -> list[Artist]:
    names = {"loss": "of minus the loss", "margin": "of the margin"}
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=MUTED,
            marker="o",
            markersize=3.8,
            markerfacecolor="white" if number else MUTED,
            label=names.get(output, output),
        )
        for number, output in enumerate(outputs)
    ]
    handles.append(Patch(color=_CHANCE, linewidth=0, label="90 % of permutations"))
    if ceiling:
        handles.append(Patch(color=_CEILING, linewidth=0, label="noise ceiling"))
    handles.append(Patch(color=HIGHLIGHT, linewidth=0, label="the loss kernel"))
    return handles
