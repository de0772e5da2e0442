"""How well attributions predict retraining, and which training samples help and harm a query most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from losskernel.figures.kernel.neighbour_sheet import draw_cell, frame_query, grey_scale, require_images
from losskernel.figures.shared.lettering import LINE, fit, legend_below, width
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import DOUBLE, HIGHLIGHT, INK, MUTED, OKABE_ITO, SINGLE, blend, new_figure, paper

if TYPE_CHECKING:
    import pandas as pd


LOSS_KERNELS = {"covariance": "loss kernel, K", "correlation": "loss kernel, R"}
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


HELPFUL, HARMFUL = OKABE_ITO[0], OKABE_ITO[3]
_MOST = 5
_LARGEST = 0.9  # of a cell, inches
_GAP, _SPACE = 0.4, 0.13  # of a cell: between query, helpful and harmful; between neighbours
_HEAD = 0.32  # inches above the first row


def printed_method(name: str) -> str:
    """Return a method's name for print."""
    return LOSS_KERNELS.get(name) or _PRINTED.get(name) or name.replace("_", " ")


@paper()
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
    # the order is that of the first output; others follow it
    first = first.iloc[np.argsort(-np.asarray(first["lds"]), kind="stable")]
    methods = list(first["method"])
    figure = new_figure(_WIDE, _ROW * len(methods) + 1.1)
    axes = figure.subplots()
    _bands(axes, first, ceiling)
    for number, output in enumerate(outputs):
        shift = 0.3 * (number - (len(outputs) - 1) / 2)
        rows = table[table["output"] == output].set_index("method")
        for index, method in enumerate(methods):
            _dot(axes, rows.loc[method], index + shift, method in LOSS_KERNELS, hollow=number > 0)
    axes.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_yticks(range(len(methods)), [fit(printed_method(name), _NAMES, 7) for name in methods])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.04)
    axes.set_xlabel("linear datamodelling score (mean rank correlation)")
    legend_below(figure, _handles(outputs, ceiling is not None), columns=3)
    return figure


@paper()
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
        wanted = f"one to {_PANELS} queries, each with predicted, actual and a title"
        raise ValueError(f"give {wanted}, got {len(predicted)}")
    for left, right in zip(predicted, actual, strict=True):
        if np.ndim(left) != 1 or np.shape(left) != np.shape(right):
            raise ValueError(f"predicted must have one number per subset, got {np.shape(left)} and {np.shape(right)}")
    size = (max(SINGLE, DOUBLE * len(predicted) / _PANELS), 2.35)
    figure = new_figure(*size)
    panels = figure.subplots(1, len(predicted), squeeze=False)[0]
    for axes, left, right, title in zip(panels, predicted, actual, titles, strict=True):
        # predictions are known up to scale
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
    chance = zip(rows["method"], rows["chance_low"], rows["chance_high"], strict=True)
    for index, (method, low, high) in enumerate(chance):
        if method in LOSS_KERNELS:
            axes.axhspan(index - 0.5, index + 0.5, color=HIGHLIGHT, linewidth=0, zorder=0)
        axes.fill_between([low, high], index - 0.38, index + 0.38, color=_CHANCE, linewidth=0, zorder=1)
    if bounds is not None:
        value, low, high = bounds
        axes.axvspan(low, min(high, 1.0), color=_CEILING, linewidth=0, zorder=1)
        axes.axvline(value, color=OKABE_ITO[2], linewidth=1.0, zorder=2)


def _dot(axes: Axes, row: pd.Series, index: float, highlighted: bool, hollow: bool) -> None:
    colour = OKABE_ITO[0] if highlighted else INK
    axes.plot([row["lds_low"], row["lds_high"]], [index, index], color=colour, linewidth=1.0, zorder=3)
    face = "white" if hollow else colour
    axes.plot(row["lds"], index, "o", color=colour, markerfacecolor=face, markersize=3.8, zorder=4)


def _handles(outputs: Sequence[str], ceiling: bool) -> list[Artist]:
    names = {"loss": "of minus the loss", "margin": "of the margin"}
    handles: list[Artist] = []
    for number, output in enumerate(outputs):
        dot = {"marker": "o", "markersize": 3.8, "markerfacecolor": "white" if number else MUTED}
        handles.append(Line2D([], [], color=MUTED, label=names.get(output, output), **dot))
    handles.append(Patch(color=_CHANCE, linewidth=0, label="90 % of permutations"))
    if ceiling:
        handles.append(Patch(color=_CEILING, linewidth=0, label="noise ceiling"))
    handles.append(Patch(color=HIGHLIGHT, linewidth=0, label="the loss kernel"))
    return handles


@paper()
def influential_sheet(
    queries: np.ndarray,
    helpful: np.ndarray,
    harmful: np.ndarray,
    influence: np.ndarray,
    error: np.ndarray,
    images: np.ndarray | None,
    captions: list[str],
) -> Figure:
    """A row per query: the query in a frame, its most helpful training samples, then its most harmful ones.

    queries: [Q] and helpful, harmful: [Q, k <= 5], into the N probes; -1 leaves a cell empty. influence, error:
    [Q, 2 k], of the helpful and then the harmful ones, positive = helpful; printed as shares of the row's largest.
    images: [N, H, W] grey of any range or [N, H, W, 3] colour in 0..1 or 0..255, or None for text. captions: N.

    Raises:
        ValueError: a shape is wrong, or an index is not a probe.
    """
    queries, helpful, harmful = np.asarray(queries), np.asarray(helpful), np.asarray(harmful)
    influence, error = np.asarray(influence), np.asarray(error)
    _check(queries, helpful, harmful, influence, error, images, captions)
    k, scale = helpful.shape[1], grey_scale(images)
    sheet = _Sheet(k, len(queries), images is not None)
    figure = Figure(figsize=(DOUBLE, sheet.height))
    for row, query in enumerate(queries):
        # influence has no natural unit, so it is a share of the row's largest
        largest = float(np.nanmax(np.abs(influence[row]), initial=0.0)) or 1.0
        shares = zip(influence[row] / largest, error[row] / largest, strict=True)
        notes = ["query", *(minus(f"{value:+.2f} ± {bar:.2f}") for value, bar in shares)]
        first = len(figure.axes)
        for column, probe in enumerate([query, *helpful[row], *harmful[row]]):
            if probe < 0:
                continue
            axes = figure.add_axes(sheet.cell_bounds(row, column))
            colour = INK if column == 0 else HELPFUL if column <= k else HARMFUL
            image = None if images is None else np.asarray(images[probe])
            _draw_probe(axes, image, scale, captions[probe], notes[column], colour, sheet)
        frame_query(figure.axes[first], 0.035 / sheet.cell)
    _headings(figure, sheet, k)
    return figure


def _draw_probe(
    axes: Axes,
    image: np.ndarray | None,
    scale: tuple[float, float],
    caption: str,
    note: str,
    colour: str,
    sheet: _Sheet,
) -> None:
    draw_cell(axes, image, scale, caption, sheet.cell, sheet.size)
    axes.spines[:].set(visible=True, color=colour, linewidth=0.8 if image is None else 1.3)
    if image is None:
        axes.set_facecolor(blend(to_rgb(colour), 0.08 if colour == INK else 0.2))
    name = "" if image is None else fit(caption, sheet.cell + 0.08, sheet.size) + "\n"
    axes.set_xlabel(name + note, fontsize=sheet.size, labelpad=4, color=colour)


class _Sheet:
    """Where the cells lie: columns of one width, with gaps after the query and between the two kinds."""

    def __init__(self, k: int, rows: int, pictured: bool) -> None:
        self._k, room = k, DOUBLE - 0.2
        self.cell = min(_LARGEST, room / (1 + 2 * k + _SPACE * (2 * k - 2) + 2 * _GAP))  # inches
        self._gap = (room - self.cell * (1 + 2 * k + _SPACE * (2 * k - 2))) / 2
        self.size = 6.2 if self.cell > 0.57 else 5.6  # points
        self._tall = self.cell if pictured else 0.62
        self._row = self._tall + (2 if pictured else 1) * self.size * LINE + 0.2
        self.height = _HEAD + rows * self._row + 0.16

    def cell_bounds(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a cell, as shares of the figure."""
        gaps = (column > 0) + (column > self._k)
        left = 0.1 + self._gap * gaps + self.cell * (column + _SPACE * (max(column - 1, 0) - (column > self._k)))
        bottom = self.height - _HEAD - row * self._row - self._tall
        return left / DOUBLE, bottom / self.height, self.cell / DOUBLE, self._tall / self.height


def _headings(figure: Figure, sheet: _Sheet, k: int) -> None:
    words = (("helpful: more of them lowers the query's loss", HELPFUL), ("harmful: more of them raises it", HARMFUL))
    for (text, colour), first in zip(words, (1, 1 + k), strict=True):
        left, right = sheet.cell_bounds(0, first)[0], sheet.cell_bounds(0, first + k - 1)
        middle, level = (left + right[0] + right[2]) / 2, 1 - 0.14 / sheet.height
        # of a single column the last words would leave the paper
        middle = min(middle, 1 - (width(text, 7) / 2 + 0.05) / DOUBLE)
        figure.text(middle, level, text, color=colour, ha="center", va="center", fontsize=7)
    note = "influence, the row's largest = 1; ± standard error"
    figure.text(0.99, 0.1 / sheet.height, note, fontsize=sheet.size, color=MUTED, ha="right", va="center")


def _check(
    queries: np.ndarray,
    helpful: np.ndarray,
    harmful: np.ndarray,
    influence: np.ndarray,
    error: np.ndarray,
    images: np.ndarray | None,
    captions: list[str],
) -> None:
    if queries.ndim != 1 or queries.size == 0:
        raise ValueError(f"queries must be [Q], not empty, got {queries.shape}; pass a flat array of indices")
    if helpful.ndim != 2 or len(helpful) != len(queries) or not 1 <= helpful.shape[1] <= _MOST:
        raise ValueError(f"helpful must be [{len(queries)}, k <= {_MOST}], got {helpful.shape}; pass a row per query")
    if harmful.shape != helpful.shape:
        raise ValueError(f"harmful must be {helpful.shape} as helpful is, got {harmful.shape}")
    expected = (len(queries), 2 * helpful.shape[1])
    if influence.shape != expected or error.shape != expected:
        raise ValueError(f"influence and error must be {expected}, got {influence.shape} and {error.shape}")
    used = np.concatenate([queries, helpful.ravel(), harmful.ravel()])
    if used.max() >= len(captions) or used.min() < -1 or queries.min() < 0:
        raise ValueError(
            f"indices must be probes below {len(captions)}, or -1 for none, got {used.min()}..{used.max()}"
        )
    require_images(images, len(captions))
