"""The parts of figures: how one is opened, its panels, their titles, colour bars and numbered cells, and its stamp."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from losskernel.errors import require
from losskernel.figures.shared.lettering import mark_sample
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import ALARM, FAINT, INK, MUTED, RASTERISE, paper


def new_figure(
    width: float, height: float, wspace: float = 0.02, hspace: float = 0.02, w_pad: float = 0.042, h_pad: float = 0.042
) -> Figure:
    """Open a figure, sizes in inches, whose parts are laid out so that they do not overlap.

    wspace, hspace: between panels, as shares of a panel. w_pad, h_pad: around panels, in inches.
    """
    layout = ConstrainedLayoutEngine(wspace=wspace, hspace=hspace, w_pad=w_pad, h_pad=h_pad)
    return Figure(figsize=(width, height), layout=layout)


def grid_of(figure: Figure, count: int, most: int) -> list[Axes]:
    """Return axes for so many panels, at most `most` in a row."""
    columns = min(most, count)
    panels = list(figure.subplots(-(-count // columns), columns, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.set_visible(False)
    return panels[:count]


def draw_points(axes: Axes, xy: np.ndarray, rgba: np.ndarray, size: float, alpha: float = 0.85) -> None:
    """Draw points [N, 2] in their colours, shuffled: in the given order the last group would cover the others."""
    order = np.random.default_rng(0).permutation(len(xy))
    many = len(xy) > RASTERISE
    axes.scatter(*xy[order].T, s=size, c=rgba[order], alpha=alpha, linewidths=0, rasterized=many)


def colour_bar(
    figure: Figure,
    shown: ScalarMappable,
    axes: Axes | Sequence[Axes],
    label: str,
    size: float = 7.0,
    below: bool = False,
    shrink: float = 0.85,
    aspect: float = 24.0,
    pad: float = 0.02,
    extend: str = "neither",
) -> Colorbar:
    """Put a colour bar without a frame beside axes, or below them, with its label in points of size."""
    side = "bottom" if below else "right"
    bar = figure.colorbar(shown, ax=axes, location=side, shrink=shrink, aspect=aspect, pad=pad, extend=extend)
    bar.set_label(label, fontsize=size)
    bar.ax.spines[:].set_visible(False)
    return bar


def number_cells(axes: Axes, values: np.ndarray, dark: np.ndarray, italic: np.ndarray, size: float = 5.5) -> None:
    """Write the finite ones of values [n, m] into the cells of an image: white where it is dark, some in italics."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            look = {"color": "white" if dark[row, column] else INK, "fontsize": size}
            style = "italic" if italic[row, column] else "normal"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontstyle=style, **look)


def draw_distances(
    figure: Figure, axes: Axes, distances: np.ndarray, label: str, most: int, italic: np.ndarray | None = None
) -> None:
    """Draw a matrix of distances, darker for farther, with its numbers where it has at most so many rows."""
    # the darkest cell keeps room for a white number
    top = max(float(np.nanmax(distances)), 1e-3)
    image = axes.imshow(distances, cmap="Blues", vmin=0, vmax=1.15 * top)
    if len(distances) <= most:
        number_cells(axes, distances, distances > 0.65 * top, np.zeros_like(distances) if italic is None else italic)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    colour_bar(figure, image, axes, label)


def furnish_layout(axes: Axes, xlabel: str, ylabel: str, margin: float, stress: float | None = None) -> None:
    """Give a map of points one scale for both axes, their names, and the share of distances that it gets wrong."""
    axes.set(aspect="equal", adjustable="datalim", xmargin=margin, ymargin=margin, xlabel=xlabel, ylabel=ylabel)
    axes.locator_params(nbins=4)
    if stress is not None:
        look = {"ha": "right", "color": MUTED, "fontsize": 6.5}
        axes.text(0.99, 0.01, f"stress {stress:.2f}", transform=axes.transAxes, **look)


def draw_steps(axes: Axes, positions: np.ndarray, steps: np.ndarray, floor: np.ndarray, colour: str, key: bool) -> None:
    """Draw the distances [n - 1] from each of n positions to the next, above what noise alone gives; key: name them."""
    name, noise = ("to the next", "noise alone") if key and len(steps) else ("", "")
    axes.hlines(steps, positions[:-1], positions[1:], color=colour, linewidth=1.5, label=name)
    if np.isfinite(floor).any():
        axes.stairs(floor, positions, fill=True, color=FAINT, linewidth=0, label=noise, zorder=1)


def mark_verdicts(
    axes: Axes, x: np.ndarray, y: np.ndarray, verdicts: Sequence[str], colour: str, size: float = 4.5
) -> None:
    """Draw points with the markers of their verdicts, hollow where they warn."""
    for verdict, look in VERDICTS.items():
        these = np.asarray(verdicts) == verdict
        if these.any():
            face = "white" if verdict == "warn" else colour
            axes.plot(x[these], y[these], look.marker, color=colour, markerfacecolor=face, markersize=size, zorder=3)


def verdict_handles(verdicts: Sequence[str]) -> list[Line2D]:
    """Return the legend's entries of the verdicts that occur."""
    there = [(look, "white" if verdict == "warn" else INK) for verdict, look in VERDICTS.items() if verdict in verdicts]
    return [mark_sample(look.word, look.marker, INK, 4.5, face) for look, face in there]


def mark_doubt(axes: Axes, verdict: str, before: str = " ") -> None:
    """Say in a panel's title that its kernel does not pass the diagnosis, if so; before: between title and verdict."""
    look = VERDICTS[verdict]
    if verdict != "pass":
        title = axes.title
        title.set(text=f"{title.get_text()}{before}({look.word})", color=look.colour)


def stamp(figure: Figure, text: str) -> Figure:
    """Write a warning that cannot be overlooked above a figure, as when its kernel failed the diagnosis.

    The figure grows upwards to make room, so the warning hides no data. Returns the same figure.

    Raises:
        InputError: `text` is empty.
    """
    require(bool(text.strip()), "text must say what is wrong, got an empty string; pass the diagnosis' reason")
    box = {"facecolor": ALARM, "edgecolor": ALARM, "boxstyle": "square,pad=0.4"}
    with paper():
        figure.suptitle(text, color="white", fontsize=8, fontweight="bold", wrap=True, bbox=box)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.3)
    return figure
