"""How well attributions predict retraining, and which training samples help and harm a query most."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from losskernel.errors import require
from losskernel.figures.hierarchy.kernel_comparison import CHANCE, draw_row, furnish_rows, row_handles
from losskernel.figures.kernel.neighbour_sheet import Cells, frame_query
from losskernel.figures.shared.checks import require_images, require_shape
from losskernel.figures.shared.lettering import LINE, fit, legend_below, mark_sample, width
from losskernel.figures.shared.panels import new_figure
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import DOUBLE, HIGHLIGHT, INK, MUTED, OKABE_ITO, SINGLE, paper

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
_CEILING = "#CDE5DA"
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
        InputError: a column is missing, or the table is empty.
    """
    missing = [name for name in _COLUMNS if name not in table]
    complete = not missing and len(table) > 0
    require(complete, f"table must have rows and the columns {', '.join(_COLUMNS)}; it lacks {missing or 'rows'}")
    outputs = list(dict.fromkeys(table["output"]))
    first = table[table["output"] == outputs[0]]
    # the order is that of the first output; others follow it
    methods = np.asarray(first["method"])[np.argsort(-np.asarray(first["lds"]), kind="stable")].tolist()
    figure = new_figure(_WIDE, _ROW * len(methods) + 1.1)
    axes = figure.subplots()
    if ceiling is not None:
        value, low, high = ceiling
        axes.axvspan(low, min(high, 1.0), color=_CEILING, linewidth=0, zorder=1)
        axes.axvline(value, color=OKABE_ITO[2], linewidth=1.0, zorder=2)
    for number, output in enumerate(outputs):
        shift = 0.3 * (number - (len(outputs) - 1) / 2)
        for index, method in enumerate(methods):
            row = table[(table["output"] == output) & (table["method"] == method)].iloc[0]
            ours, interval = method in LOSS_KERNELS, (row["lds_low"], row["lds_high"])
            if number == 0:
                chance = [row["chance_low"], row["chance_high"]]
                axes.fill_between(chance, index - 0.38, index + 0.38, color=CHANCE, linewidth=0, zorder=1)
                if ours:
                    axes.axhspan(index - 0.5, index + 0.5, color=HIGHLIGHT, linewidth=0, zorder=0)
            draw_row(axes, index + shift, row["lds"], interval, OKABE_ITO[0] if ours else INK, hollow=number > 0)
    furnish_rows(axes, [fit(printed_method(name), _NAMES, 7) for name in methods])
    axes.set_xlabel("linear datamodelling score (mean rank correlation)")
    legend_below(figure, _handles(outputs, ceiling is not None), columns=3)
    return figure


def _handles(outputs: Sequence[str], ceiling: bool) -> list[Artist]:
    names = {"loss": "of minus the loss", "margin": "of the margin"}
    dots = [mark_sample(names.get(name, name), "o", MUTED) for name in outputs]
    for dot in dots[1:]:
        dot.set_markerfacecolor("white")
    return [*dots, *row_handles(), *([Patch(color=_CEILING, linewidth=0, label="noise ceiling")] if ceiling else [])]


@paper()
def predicted_outcomes(
    predicted: Sequence[np.ndarray], actual: Sequence[np.ndarray], titles: Sequence[str], output: str
) -> Figure:
    """A panel per query: summed influence of every subset against what retraining on it gave.

    predicted: [m] each, up to a constant; actual: [m] each; titles: a line or two each; output: name of the actual
    axis. At most three queries.

    Raises:
        InputError: not one to three queries, or not one number per subset in both.
    """
    complete = 1 <= len(predicted) <= _PANELS and len(predicted) == len(actual) == len(titles)
    wanted = f"one to {_PANELS} queries, each with predicted, actual and a title"
    require(complete, f"give {wanted}, got {len(predicted)}")
    for left, right in zip(predicted, actual, strict=True):
        fits, got = np.ndim(left) == 1 and np.shape(left) == np.shape(right), (np.shape(left), np.shape(right))
        require(fits, f"predicted must have one number per subset, got {got[0]} and {got[1]}")
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
        InputError: a shape is wrong, or an index is not a probe.
    """
    queries, helpful, harmful, influence, error = map(np.asarray, (queries, helpful, harmful, influence, error))
    _check(queries, helpful, harmful, influence, error, len(captions))
    require_images(images, len(captions))
    k = helpful.shape[1]
    sheet = _Sheet(k, len(queries), images is not None)
    cells = Cells(images, captions, sheet.cell, sheet.size)
    figure = Figure(figsize=(DOUBLE, sheet.height))
    for row, query in enumerate(queries):
        # influence has no natural unit, so it is a share of the row's largest
        largest = float(np.nanmax(np.abs(influence[row]), initial=0.0)) or 1.0
        shares = zip(influence[row] / largest, error[row] / largest, strict=True)
        notes = ["query", *(minus(f"{value:+.2f} ± {bar:.2f}") for value, bar in shares)]
        for column, probe in enumerate([query, *helpful[row], *harmful[row]]):
            if probe < 0:
                continue
            axes = figure.add_axes(sheet.cell_bounds(row, column))
            colour, tint = (INK, 0.08) if column == 0 else (HELPFUL if column <= k else HARMFUL, 0.2)
            name = fit(captions[probe], sheet.cell + 0.08, sheet.size) + "\n"
            cells.draw(axes, probe, colour, name, notes[column], 1.3, tint, 4)
            axes.xaxis.label.set_color(colour)
            if column == 0:
                frame_query(axes, 0.035 / sheet.cell)
    _headings(figure, sheet, k)
    return figure


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
    queries: np.ndarray, helpful: np.ndarray, harmful: np.ndarray, influence: np.ndarray, error: np.ndarray, probes: int
) -> None:
    require_shape("queries", queries, ("Q",), "pass a flat array of indices")
    fits = helpful.ndim == 2 and len(helpful) == len(queries) and 1 <= helpful.shape[1] <= _MOST
    require(fits, f"helpful must be [{len(queries)}, k <= {_MOST}], got {helpful.shape}; pass a row per query")
    require(harmful.shape == helpful.shape, f"harmful must be {helpful.shape} as helpful is, got {harmful.shape}")
    expected = (len(queries), 2 * helpful.shape[1])
    fits = influence.shape == error.shape == expected
    require(fits, f"influence and error must be {expected}, got {influence.shape} and {error.shape}")
    used = np.concatenate([queries, helpful.ravel(), harmful.ravel()])
    inside = used.max() < probes and used.min() >= -1 and queries.min() >= 0
    require(bool(inside), f"indices must be probes below {probes}, or -1 for none, got {used.min()}..{used.max()}")
