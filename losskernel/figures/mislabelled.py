"""Probes that may be mislabelled: on a map, by the distributions of their scores, and as a sheet to read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter1d

from losskernel.errors import require
from losskernel.figures.kernel.neighbour_sheet import draw_cell
from losskernel.figures.kernel.probe_maps import furnish_map, point_size
from losskernel.figures.shared.checks import points_of, require_shape
from losskernel.figures.shared.colouring import MAX_LEGEND, colour_by
from losskernel.figures.shared.lettering import LINE, fit, mark_sample, width
from losskernel.figures.shared.panels import colour_bar, draw_points, new_figure
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import ALARM, DOUBLE, FAINT, INK, MUTED, OKABE_ITO, SINGLE, paper

_SIZE = 6.5  # points
_PALE = 0.55
_RIDGE_ROW = 0.32  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.25, 1.1, 0.3, 0.45
_OVERLAP = 1.15  # height of a ridge in rows
_GRID = 400
_BANDWIDTH = 0.012  # of the axis
_MOST_TICKS = 60  # of single probes below a ridge
_RIGHT_LABEL, _WRONG_LABEL = OKABE_ITO[5], OKABE_ITO[3]
COLUMNS = 8
_GAP = 0.1  # inches between cells


@paper()
def marked_map(
    xy: np.ndarray, groups: np.ndarray, marked: np.ndarray | None, group_name: str, marked_name: str = "mislabelled"
) -> Figure:
    """Probes in the plane, pale in the colour of their group; marked ones on top, framed and in the full colour.

    xy: [N, 2], in arbitrary units. groups: [N]. marked: [N] bool, or None.

    Raises:
        InputError: a shape is wrong, or a coordinate is not finite.
    """
    xy = points_of(xy, 2, "xy")
    chosen = np.zeros(len(xy), dtype=bool) if marked is None else np.asarray(marked, dtype=bool)
    require_shape("marked", chosen, (len(xy),), "pass one per probe")
    colouring = colour_by(groups, "groups", len(xy))
    named = colouring.scale is not None or len(colouring.names) <= MAX_LEGEND
    rgba = colouring.rgba if named else np.tile(to_rgba(MUTED), (len(xy), 1))
    figure = new_figure(DOUBLE * 0.72, SINGLE)
    axes = figure.subplots()
    draw_points(axes, xy[~chosen], rgba[~chosen], point_size(len(xy)), _PALE)
    # marked probes must be seen among thousands, so they have a least size
    least = float(np.clip(1.6 * point_size(len(xy)), 7.0, 20.0))
    axes.scatter(*xy[chosen].T, s=least, c=rgba[chosen], marker="D", linewidths=0.7, edgecolors=INK)
    furnish_map(axes)
    handles = [mark_sample(f"{marked_name} ({chosen.sum():,})", "D", INK, face="white")] if chosen.any() else []
    if colouring.scale is not None:
        colour_bar(figure, colouring.scale, axes, group_name, size=8, shrink=0.6)
    elif named:
        handles += [Line2D([], [], linestyle="", label=f"{group_name}:"), *colouring.handles(4.0)]
    else:
        handles.append(Line2D([], [], linestyle="", label=f"{len(colouring.names):,} values of {group_name}"))
    for handle in handles:
        handle.set_label(fit(str(handle.get_label()), 1.5, _SIZE))
    widest = max((width(str(handle.get_label()), _SIZE) for handle in handles), default=0.0)
    columns = {"ncols": 2 if len(handles) > 18 and widest < 0.75 else 1, "handletextpad": 0.3}
    figure.legend(handles=handles, loc="outside right upper", fontsize=_SIZE, **columns)
    return figure


@paper()
def score_distributions(
    scores: Mapping[str, np.ndarray],
    marked: np.ndarray | None = None,
    notes: Mapping[str, str] | None = None,
    marked_name: str = "mislabelled",
) -> Figure:
    """A row per score: its distribution over marked and over all other probes, each of the same area.

    The axis shows (score - median) / scale, the scale being that of a normal distribution with the same quartiles, and
    is linear near 0 and logarithmic far from it, for scores may have tails of hundreds of deviations.

    scores: name -> [N], in the order of the rows. marked: [N] bool, or None for one colour. notes: name -> an
    AUROC, at the right of its row.

    Raises:
        InputError: no scores, a shape is wrong, or a score is not finite.
    """
    rows = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    count = len(next(iter(rows.values()), []))
    for name, values in rows.items():
        finite = values.shape == (count,) and bool(np.isfinite(values).all())
        require(finite, f"scores[{name!r}] must be finite [{count}], got {values.shape}; drop what is not finite")
    require(count > 0, "scores must name at least one score of at least one probe, got none; pass name -> [N]")
    chosen = np.zeros(count, dtype=bool) if marked is None else np.asarray(marked, dtype=bool)
    require_shape("marked", chosen, (count,), "pass one per probe")
    # linear near 0 and logarithmic in the tails
    spots = {name: np.arcsinh(standardised(values)) for name, values in rows.items()}
    low, high = min(values.min() for values in spots.values()), max(values.max() for values in spots.values())
    room = 0.04 * (high - low) or 1.0
    grid = np.linspace(low - room, high + room, _GRID)

    height = _TOP + _RIDGE_ROW * (len(rows) + _OVERLAP - 1) + _BOTTOM
    figure = Figure(figsize=(DOUBLE, height))
    across, up = (DOUBLE - _LEFT - _RIGHT) / DOUBLE, (height - _TOP - _BOTTOM) / height
    axes = figure.add_axes((_LEFT / DOUBLE, _BOTTOM / height, across, up))
    for row, (name, values) in enumerate(spots.items()):
        base, beside = len(rows) - 1.0 - row, axes.get_yaxis_transform()
        axes.axhline(base, color=FAINT, linewidth=0.5, zorder=row * 4)
        _ridge(axes, grid, values[~chosen], base, _RIGHT_LABEL, row * 4 + 1)
        if chosen.any():
            _ridge(axes, grid, values[chosen], base, _WRONG_LABEL, row * 4 + 2)
        shown = fit(name.replace("_", " "), _LEFT - 0.2, 8)
        axes.text(-0.015, base, shown, transform=beside, ha="right", va="bottom")
        axes.text(1.02, base, (notes or {}).get(name, ""), transform=beside, ha="left", va="bottom", fontsize=7)
    if notes:
        axes.text(1.02, 1.01, "AUROC", transform=axes.transAxes, color=MUTED, fontsize=7, va="bottom")
    axes.set(xlim=(grid[0], grid[-1]), ylim=(-0.08, len(rows) + _OVERLAP - 1), yticks=[])
    axes.spines["left"].set_visible(False)
    _ticks(axes, grid)
    axes.set_xlabel("score, in robust standard deviations from the median; more suspicious to the right")
    names = ["all probes"] if marked is None else ["other probes", marked_name]
    colours = (_RIGHT_LABEL, _WRONG_LABEL)
    handles = [Patch(facecolor=to_rgba(c, 0.5), edgecolor=c, label=n) for n, c in zip(names, colours, strict=False)]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderpad=0.2)
    return figure


def standardised(values: np.ndarray) -> np.ndarray:
    """Return (values - median) / scale [N]; the scale is that of the quartiles, or of all where most are equal."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    scale = (high - low) / 1.349 or float(np.std(values)) or 1.0
    return (values - middle) / scale


def _ridge(axes: Axes, grid: np.ndarray, values: np.ndarray, base: float, colour: str, order: int) -> None:
    """Draw a smoothed histogram as high as a row, and of few values each one."""
    # bins centred on the grid's points
    edges = np.append(grid, 2 * grid[-1] - grid[-2]) - (grid[1] - grid[0]) / 2
    counts, _ = np.histogram(np.clip(values, grid[0], grid[-1]), edges)
    density = gaussian_filter1d(counts.astype(float), _BANDWIDTH * len(grid), mode="constant")
    ridge = base + 0.95 * density / density.max()
    axes.fill_between(grid, base, ridge, color=to_rgba(colour, 0.5), linewidth=0, zorder=order)
    axes.plot(grid, ridge, color=colour, linewidth=0.8, zorder=order)
    # a density of few values hides how few there are
    if len(values) <= _MOST_TICKS:
        axes.vlines(values, base, base + 0.12, color=colour, linewidth=0.6, zorder=order + 1)


def _ticks(axes: Axes, grid: np.ndarray) -> None:
    """Name as many powers of ten as there are, and the smallest numbers where they do not touch."""
    positive = np.outer(10.0 ** np.arange(9), [1.0, 3.0]).ravel()
    numbers = np.concatenate([-positive, [0.0], positive])
    inside = np.sort(numbers[(np.arcsinh(numbers) > grid[0]) & (np.arcsinh(numbers) < grid[-1])])
    if len(inside) > 11:
        inside = inside[[not str(abs(number)).startswith("3") for number in inside]]
    axes.set_xticks(np.arcsinh(inside), [minus(f"{number:,.0f}") for number in inside], color=INK)


@paper()
def suspects_sheet(
    given: Sequence[str],
    likely: Sequence[str],
    scores: np.ndarray,
    images: np.ndarray | None,
    captions: Sequence[str],
    rivals: Sequence[str],
    truth: Sequence[str] | None = None,
    score_name: str = "self_coupling",
) -> Figure:
    """Cells in order of suspicion, eight in a row: the input, its label as given, its likely label, and its score.

    A likely label other than the given one is printed in bold; where it is the same, the rival follows it, which
    fits best if the label is wrong after all. Where the truth is known, a frame's colour says whether
    the label as given is wrong, and a mark whether the likely one is right.

    given, likely: n labels. scores: [n]. images: uint8 [n, h, w, 1 or 3], or None for cells with captions. captions: n,
    such as the probes' names. rivals: n labels. truth: n true labels, or None.

    Raises:
        InputError: nothing to show, or lengths that differ.
    """
    count = len(given)
    required = {"likely": likely, "scores": scores, "captions": captions, "rivals": rivals}
    for name, values in (required | {"images": images, "truth": truth}).items():
        got = count if values is None else len(values)
        require(got == count, f"{name} must have one entry per suspect ({count}), got {got}; pass as many")
    require(count > 0, "given must name at least one suspect, got none; pass the first of the table")
    cell = (DOUBLE - 0.1 - (COLUMNS - 1) * _GAP) / COLUMNS
    tall = 0.45 if images is None else cell * min(1.0, images.shape[1] / images.shape[2])
    row_height = tall + (3 if truth is None else 4) * _SIZE * LINE + 0.1
    height = 0.1 + -(-count // COLUMNS) * row_height + 0.3
    figure = Figure(figsize=(DOUBLE, height))
    for suspect in range(count):
        row, column = divmod(suspect, COLUMNS)
        left, top = 0.05 + column * (cell + _GAP), height - 0.08 - row * row_height
        axes = figure.add_axes((left / DOUBLE, (top - tall) / height, cell / DOUBLE, tall / height))
        right = None if truth is None else truth[suspect]
        colour = FAINT if right is None else _RIGHT_LABEL if right == given[suspect] else _WRONG_LABEL
        image = None if images is None else np.asarray(images[suspect])
        draw_cell(axes, image, (0.0, 255.0), captions[suspect], cell, _SIZE)
        axes.spines[:].set(visible=True, color=colour, linewidth=1.5)
        words = _words(given[suspect], likely[suspect], rivals[suspect], right, cell)
        score = minus(f"{suspect + 1}.  {scores[suspect]:.3g}")
        for line, (text, style) in enumerate([*words, (score, {"color": MUTED})]):
            baseline = top - tall - 0.04 - (line + 0.8) * _SIZE * LINE
            look: dict[str, Any] = {"ha": "center", "fontsize": _SIZE, "parse_math": False, **style}
            figure.text((left + cell / 2) / DOUBLE, baseline / height, text, va="baseline", **look)
    _key(figure, height, truth is not None, score_name)
    return figure


def _words(given: str, likely: str, rival: str, truth: str | None, inches: float) -> list[tuple[str, dict[str, str]]]:
    """Return the lines below a cell on its labels, each with its style."""
    if likely != given:
        seems, style = likely, {"color": ALARM, "weight": "bold"}
    else:
        seems, style = "same" if rival == given else f"same, else {rival}", {"color": MUTED}
    lines = [(given, {"color": INK}), (f"→ {seems}", style)]
    if truth is not None:
        lines.append((f"{'✓' if likely == truth else '✗'} {truth}", {"color": INK}))
    return [(fit(text, inches, _SIZE, weight=look.get("weight", "normal")), look) for text, look in lines]


def _key(figure: Figure, height: float, known: bool, score_name: str) -> None:
    score = score_name.replace("_", " ")
    lines = ["label as given", "→ likely label", "✓ or ✗ true label"][: 3 if known else 2]
    words = f"Below each: {', '.join(lines)}, rank and {score}."
    figure.text(0.05 / DOUBLE, 0.1 / height, words, fontsize=_SIZE, color=MUTED, va="center")
    if known:
        names = {"label wrong": _WRONG_LABEL, "label right": _RIGHT_LABEL}
        look: dict[str, Any] = {"facecolor": "white", "linewidth": 1.5}
        handles = [Patch(edgecolor=colour, label=name, **look) for name, colour in names.items()]
        figure.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 0), ncols=2, borderpad=0.2)
