"""The words of figures: their width in print, cut to measure, kept apart; letters, legends, names beside points."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, repeat
from string import ascii_lowercase
from typing import Any, TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from scipy.optimize import isotonic_regression

from losskernel.figures.shared.style import INK, MUTED

Colour: TypeAlias = str | Sequence[float] | np.ndarray

LINE = 1.25 / 72  # inches from one line to the next, per point of type
_SAMPLE = 0.36  # inches of a legend's entry besides its words
_DIRECTIONS = 16
_REACHES = (4.5, 8.0, 13.0, 19.0)  # points of print from a point to its name's nearest edge
# What it costs a name to lie on a name, on a point, on a line, and outside the panel, each as a share of its area or
# per spot; and to be far away, per point of print.
_NAME, _SPOT, _OUTSIDE, _FAR = 400.0, 3.0, 200.0, 0.3
_CLEAR = 2.0  # points of print around a name
_LED = 12.0  # points of print from which a thin line leads to the name
# A name that costs more is left out, unless it must be there: it would hide what it names.
_DEAR = 18.0


@lru_cache(maxsize=4096)
def width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line of text in the figures' typeface, in inches, at a size in points."""
    font = FontProperties(family="sans-serif", size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def fit(text: str, inches: float, size: float, lines: int = 1, weight: str = "normal") -> str:
    """Return the text in at most so many lines of at most so many inches, cut at spaces and hyphens where it can be.

    What does not fit ends in an ellipsis.
    """
    rows: list[str] = []
    rest = " ".join(text.split())
    while rest and len(rows) < lines:
        longest = _longest(rest, inches, size, weight)
        if longest >= len(rest):
            return "\n".join([*rows, rest])
        if len(rows) == lines - 1:
            kept = _longest(rest, inches - width("…", size, weight), size, weight)
            return "\n".join([*rows, rest[:kept].rstrip(" -,(") + "…"])
        cut = max(rest.rfind(" ", 0, longest + 1), rest.rfind("-", 0, longest) + 1)
        cut = cut if cut > 0 else longest  # a word that is longer than the line
        rows.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return "\n".join(rows)


def _longest(text: str, inches: float, size: float, weight: str) -> int:
    """Return how many letters of the text fit on a line, at least one."""
    fits = (count for count in range(len(text), 1, -1) if width(text[:count], size, weight) <= inches)
    return next(fits, 1)


def spread(positions: np.ndarray, sizes: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return centres [n] of labels as near to `places` [n] as they can be without touching, within [low, high].

    sizes: [n] along the line, gaps included. The order of the places is kept. Where the sizes exceed the room, the
    labels are evenly squeezed.

    Source: least squares under order, by isotonic regression of what is left after the sizes are packed.
    """
    positions, sizes = np.asarray(positions, dtype=float), np.asarray(sizes, dtype=float)
    if positions.size == 0:
        return positions
    if sizes.sum() > high - low:
        sizes = sizes * (high - low) / sizes.sum()
    order = np.argsort(positions, kind="stable")
    packed = np.cumsum(sizes[order]) - sizes[order] / 2  # centres, were all packed from 0
    slack = isotonic_regression(positions[order] - packed).x
    result = np.empty_like(positions)
    result[order] = np.clip(slack, low, high - sizes.sum()) + packed
    return result


def letter(axes: Axes, number: int, title: str = "", pad: float = 4.0, size: float = 8.0) -> None:
    """Write a panel's letter, a for number 0, and its title above its left end."""
    axes.set_title(f"$\\bf{{{ascii_lowercase[number]}}}$  {title}".rstrip(), loc="left", pad=pad, fontsize=size)


def letter_all(panels: Iterable[Axes], titles: Iterable[str] = (), pad: float = 4.0, size: float = 8.0) -> None:
    """Write the panels' letters, from a on, and their titles as far as there are some."""
    for number, (axes, title) in enumerate(zip(panels, chain(titles, repeat("")), strict=False)):
        letter(axes, number, title, pad, size)


def legend_below(
    figure: Figure, handles: Sequence[Artist] | None = None, title: str = "", note: str = "", columns: int = 8
) -> None:
    """Put a legend below a figure, read row by row, in as many columns as fit; above it a title, or a note in grey.

    Args:
        figure: of any width.
        handles: entries; those that the figure's panels have by default.
        title: what the entries are.
        note: what all panels depend on, in place of a title.
        columns: at most.
    """
    handles = labelled(figure) if handles is None else handles
    room = 0.97 * figure.get_figwidth()
    columns = _columns([width(str(handle.get_label()), 7.0) for handle in handles], room, columns)
    # matplotlib fills a legend column by column.
    order = [handle for column in range(columns) for handle in handles[column::columns]]
    legend = figure.legend(
        handles=order,
        title=title or fit(note, room, 6.5, lines=2),
        title_fontsize=7 if title else 6.5,
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.2,
        handletextpad=0.4,
        handlelength=1.8,
    )
    legend.get_title().set(color=INK if title else MUTED, multialignment="center")


def labelled(figure: Figure) -> list[Artist]:
    """Return what the figure's panels hold that has a label, of equal labels the last."""
    entries = [entry for axes in figure.axes for entry in zip(*axes.get_legend_handles_labels(), strict=True)]
    return list({text: handle for handle, text in entries}.values())


def _columns(widths: Sequence[float], room: float, most: int) -> int:
    """Return how many columns entries of these widths need, read row by row, so that the rows are as few as can be."""
    count = len(widths)
    for columns in range(min(most, count), 1, -1):
        if sum(max(widths[column::columns]) + _SAMPLE for column in range(columns)) <= room:
            return -(-count // -(-count // columns))  # as few as so many rows need
    return 1


def mark_sample(label: str, marker: str, colour: Colour, size: float = 4.0, face: Colour | None = None) -> Line2D:
    """Return a legend's entry for a marker; face: its colour inside where that differs."""
    look: dict[str, Any] = {"color": colour, "markerfacecolor": face or colour, "markeredgewidth": 0.8}
    return Line2D([], [], linestyle="", marker=marker, markersize=size, label=label, **look)


def name_points(
    axes: Axes,
    positions: np.ndarray,
    names: Mapping[int, str],
    lines: Sequence[np.ndarray] = (),
    needed: Collection[int] = (),
    size: float = 6.5,
) -> None:
    """Write names beside points, the first ones having the best choice; one without a clear place is left out.

    Call it after the layout is final, that is after `figure.draw_without_rendering()`, with the limits of the axes set.

    positions: [P, 2] of all points, in the axes' coordinates. names: number of a point -> its name, the most important
    first. lines: [n, 2] each, which names should not cross. needed: points whose names must be there.
    """
    dots = axes.figure.dpi / 72  # of the display, per point of print
    spots = axes.transData.transform(positions) / dots
    traced = [_filled(axes.transData.transform(line) / dots) for line in lines if len(line) > 1]
    obstacles = np.concatenate([np.repeat(spots, 3, axis=0), *traced])  # a point weighs more than a bit of line
    extent = axes.get_window_extent()
    frame = np.array([[extent.x0, extent.y0], [extent.x1, extent.y1]]) / dots
    taken: list[np.ndarray] = []
    for number, name in names.items():
        box = np.array([72 * width(name, size), 1.05 * size])
        cost, centre, reach = _best(spots[number], box, obstacles, frame, taken)
        if cost > _DEAR and number not in needed:
            continue
        taken.append(np.array([centre - box / 2, centre + box / 2]))
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "zorder": 6}
        shift = centre - spots[number]
        written = [axes.annotate(name, positions[number], shift, fontsize=size, color=INK, **look)]
        if reach >= _LED:
            leader = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2.0}
            edge = shift * min(1.0, reach / max(float(np.linalg.norm(shift)), 1e-9))
            written.append(axes.annotate("", positions[number], edge, arrowprops=leader, **look))
        for text in written:
            text.set_in_layout(False)  # else the panel would shrink after the names were placed


def shortened(name: str, longest: int = 28) -> str:
    """Return a name that fits beside a figure: of a long one both ends, since either may be what differs."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def plain(text: str) -> str:
    """Return a text as matplotlib shows it letter by letter: a dollar sign opens no formula."""
    return text.replace("$", r"\$")


def with_unit(text: str, unit: str) -> str:
    """Return the name of an axis with its unit, if there is one."""
    return f"{text}, {unit}" if unit else text


def _best(
    spot: np.ndarray, box: np.ndarray, obstacles: np.ndarray, frame: np.ndarray, taken: Sequence[np.ndarray]
) -> tuple[float, np.ndarray, float]:
    """Return what the cheapest position for a box costs, its centre, and how far it is from its point."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # From the point to the box's edge along each way, then to its centre.
    depths = (box / 2 / np.maximum(np.abs(ways), 1e-9)).min(axis=1)
    reaches = np.repeat(_REACHES, _DIRECTIONS)
    centres = spot + (reaches + np.tile(depths, len(_REACHES)))[:, None] * np.tile(ways, (len(_REACHES), 1))
    low, high = centres - box / 2, centres + box / 2  # [positions, 2]
    covering = (obstacles > low[:, None] - _CLEAR) & (obstacles < high[:, None] + _CLEAR)
    beyond = np.maximum(frame[0] - low, 0).sum(axis=1) + np.maximum(high - frame[1], 0).sum(axis=1)
    cost = _FAR * reaches + _SPOT * covering.all(axis=2).sum(axis=1) + _OUTSIDE * (beyond > 0) + beyond
    for other_low, other_high in taken:
        shared = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0)
        cost += _NAME * shared.prod(axis=1) / box.prod()
    best = int(np.argmin(cost))
    return float(cost[best]), centres[best], float(reaches[best])


def _filled(line: np.ndarray) -> np.ndarray:
    """Return points along a line, three points of print apart."""
    reached = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0, reached[-1], int(reached[-1] / 3) + 2)
    return np.stack([np.interp(at, reached, side) for side in line.T], axis=1)
