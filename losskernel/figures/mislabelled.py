"""Probes that may be mislabelled: on a map, by the distributions of their scores, and as a sheet to read."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.shared.lettering import LINE, fit, width
from losskernel.figures.shared.style import ALARM, DOUBLE, FAINT, INK, MUTED, OKABE_ITO, SINGLE, paper

_RASTERISE = 3000  # a PDF with more vector points than this opens slowly
_MOST_NAMED = 32  # classes in a legend; of more, colours say nothing
_SIZE = 6.5  # points
_PALE = 0.55


def marked_map(
    xy: np.ndarray, groups: np.ndarray, marked: np.ndarray | None, group_name: str, marked_name: str = "mislabelled"
) -> Figure:
    """Probes in the plane, pale in the colour of their group; marked ones on top, framed and in the full colour.

    xy: [N, 2], in arbitrary units. groups: [N]. marked: [N] bool, or None.

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    xy = np.asarray(xy, dtype=float)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) == 0 or not np.isfinite(xy).all():
        raise ValueError(f"xy must be [N, 2], finite and not empty, got {xy.shape}; pass one row per probe")
    chosen = np.zeros(len(xy), dtype=bool) if marked is None else np.asarray(marked, dtype=bool)
    if chosen.shape != (len(xy),):
        raise ValueError(f"marked must be [{len(xy)}], got {chosen.shape}; pass one per probe")
    colouring = colour_by(groups, "groups", len(xy))
    named = colouring.scale is not None or len(colouring.names) <= _MOST_NAMED
    rgba = colouring.rgba if named else np.tile(to_rgba(MUTED), (len(xy), 1))
    size = float(np.clip(4000 / len(xy), 1.5, 14.0))
    order = np.random.default_rng(0).permutation(len(xy))  # in the given order the last group would cover the others
    with paper():
        figure = Figure(figsize=(DOUBLE * 0.72, SINGLE), layout="constrained")
        axes = figure.subplots()
        plain, above = order[~chosen[order]], order[chosen[order]]
        raster = len(xy) > _RASTERISE
        axes.scatter(*xy[plain].T, s=size, c=rgba[plain], alpha=_PALE, linewidths=0, rasterized=raster)
        axes.scatter(
            *xy[above].T,
            s=np.clip(1.6 * size, 7.0, 20.0),
            c=rgba[above],
            edgecolors=INK,
            linewidths=0.7,
            marker="D",
            rasterized=raster,
        )
        axes.set(xticks=[], yticks=[], xlabel="map axis 1", ylabel="map axis 2")
        axes.set_aspect("equal", adjustable="datalim")
        handles = _marks(int(chosen.sum()), marked_name)
        if colouring.scale is not None:
            figure.colorbar(colouring.scale, ax=axes, shrink=0.6, label=group_name).ax.spines[:].set_visible(False)
        elif named:
            handles += _groups(colouring, group_name)
        else:
            handles.append(Line2D([], [], linestyle="", label=f"{len(colouring.names):,} values of {group_name}"))
        if handles:
            figure.legend(
                handles=handles, loc="outside right upper", fontsize=_SIZE, handletextpad=0.3, ncols=_columns(handles)
            )
    return figure


def _marks(count: int, name: str) -> list[Line2D]:
    if count == 0:
        return []
    style = {"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": INK}
    return [Line2D([], [], linestyle="", label=f"{name} ({count:,})", markeredgewidth=0.7, **style)]


def _groups(colouring: Colouring, name: str) -> list[Line2D]:
    title = Line2D([], [], linestyle="", label=fit(f"{name}:", 1.2, _SIZE))
    entries = colouring.handles(4.0)
    for entry in entries:
        entry.set_label(fit(str(entry.get_label()), 1.2, _SIZE))
    return [title, *entries]


def _columns(handles: list[Line2D]) -> int:
    widest = max(width(str(each.get_label()), _SIZE) for each in handles)
    return 2 if len(handles) > 18 and widest < 0.75 else 1


_RIDGE_ROW = 0.32  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.25, 1.1, 0.3, 0.45
_OVERLAP = 1.15  # height of a ridge in rows
_GRID = 400
_BANDWIDTH = 0.012  # of the axis
_MOST_TICKS = 60  # of single probes below a ridge
_RIGHT_LABEL, _WRONG_LABEL = OKABE_ITO[5], OKABE_ITO[3]


def score_distributions(
    scores: Mapping[str, np.ndarray],
    marked: np.ndarray | None = None,
    notes: Mapping[str, str] | None = None,
    note_name: str = "AUROC",
    marked_name: str = "mislabelled",
) -> Figure:
    """A row per score: its distribution over marked and over all other probes, each of the same area.

    The axis shows (score - median) / scale, the scale being that of a normal distribution with the same quartiles, and
    is linear near 0 and logarithmic far from it, for scores may have tails of hundreds of deviations.

    scores: name -> [N], in the order of the rows. marked: [N] bool, or None for one colour. notes: name -> what stands
    at the right of its row, below note_name.

    Raises:
        ValueError: no scores, a shape is wrong, or a score is not finite.
    """
    rows = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    count = len(next(iter(rows.values()), []))
    for name, values in rows.items():
        if values.shape != (count,) or not np.isfinite(values).all():
            raise ValueError(f"scores[{name!r}] must be finite [{count}], got {values.shape}; drop what is not finite")
    if count == 0:
        raise ValueError("scores must name at least one score of at least one probe, got none; pass name -> [N]")
    chosen = None if marked is None else np.asarray(marked, dtype=bool)
    if chosen is not None and chosen.shape != (count,):
        raise ValueError(f"marked must be [{count}], got {chosen.shape}; pass one per probe")
    places = {name: np.arcsinh(standardised(values)) for name, values in rows.items()}
    low = min(values.min() for values in places.values())
    high = max(values.max() for values in places.values())
    room = 0.04 * (high - low) or 1.0
    grid = np.linspace(low - room, high + room, _GRID)
    with paper():
        height = _TOP + _RIDGE_ROW * (len(rows) + _OVERLAP - 1) + _BOTTOM
        figure = Figure(figsize=(DOUBLE, height))
        axes = figure.add_axes(
            (_LEFT / DOUBLE, _BOTTOM / height, (DOUBLE - _LEFT - _RIGHT) / DOUBLE, (height - _TOP - _BOTTOM) / height)
        )
        for row, (name, values) in enumerate(places.items()):
            base = len(rows) - 1.0 - row
            axes.axhline(base, color=FAINT, linewidth=0.5, zorder=row * 4)
            _ridge(axes, grid, values if chosen is None else values[~chosen], base, _RIGHT_LABEL, row * 4 + 1)
            if chosen is not None and chosen.any():
                _ridge(axes, grid, values[chosen], base, _WRONG_LABEL, row * 4 + 2)
            axes.text(-0.015, base, _shown(name), transform=axes.get_yaxis_transform(), ha="right", va="bottom")
            note = (notes or {}).get(name, "")
            axes.text(1.02, base, note, transform=axes.get_yaxis_transform(), ha="left", va="bottom", fontsize=7)
        if notes:
            axes.text(1.02, 1.01, note_name, transform=axes.transAxes, color=MUTED, fontsize=7, va="bottom")
        axes.set(xlim=(grid[0], grid[-1]), ylim=(-0.08, len(rows) + _OVERLAP - 1), yticks=[])
        axes.spines[["left"]].set_visible(False)
        _ticks(axes, grid)
        axes.set_xlabel("score, in robust standard deviations from the median; more suspicious to the right")
        names = ["all probes"] if chosen is None else ["other probes", marked_name]
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
    width = _BANDWIDTH * (grid[-1] - grid[0])
    edges = np.concatenate([grid - (grid[1] - grid[0]) / 2, [grid[-1] + (grid[1] - grid[0]) / 2]])
    counts, _ = np.histogram(np.clip(values, grid[0], grid[-1]), edges)
    steps = np.arange(-4 * width, 4 * width + 1e-12, grid[1] - grid[0])
    density = np.convolve(counts, np.exp(-0.5 * np.square(steps / width)), mode="same")
    ridge = base + 0.95 * density / density.max()
    axes.fill_between(grid, base, ridge, color=to_rgba(colour, 0.5), linewidth=0, zorder=order)
    axes.plot(grid, ridge, color=colour, linewidth=0.8, zorder=order)
    if len(values) <= _MOST_TICKS:
        axes.vlines(values, base, base + 0.12, color=colour, linewidth=0.6, zorder=order + 1)


def _ticks(axes: Axes, grid: np.ndarray) -> None:
    """Name as many powers of ten as there are, and the smallest numbers where they do not touch."""
    numbers = np.concatenate(
        [[0.0], *[sign * np.array([1.0, 3.0]) * 10.0**power for sign in (-1, 1) for power in range(9)]]
    )
    inside = np.sort(numbers[(np.arcsinh(numbers) > grid[0]) & (np.arcsinh(numbers) < grid[-1])])
    if len(inside) > 11:
        inside = inside[[not str(abs(number)).startswith("3") for number in inside]]
    axes.set_xticks(np.arcsinh(inside), [f"{number:,.0f}".replace("-", "−") for number in inside], color=INK)


def _shown(name: str) -> str:
    return fit(name.replace("_", " "), _LEFT - 0.2, 8)


COLUMNS = 8
_GAP = 0.1  # inches between cells


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

    A likely label other than the given one is printed in bold; where it is the same, the rival stands behind it, which
    fits best if the label is wrong after all. Where the truth is known, a frame's colour says whether
    the label as given is wrong, and a mark whether the likely one is right.

    given, likely: n labels. scores: [n]. images: uint8 [n, h, w, 1 or 3], or None for cells with captions. captions: n,
    such as the probes' names. rivals: n labels. truth: n true labels, or None.

    Raises:
        ValueError: nothing to show, or lengths that differ.
    """
    count = len(given)
    parts = {
        "likely": likely,
        "scores": scores,
        "images": images,
        "captions": captions,
        "rivals": rivals,
        "truth": truth,
    }
    for name, values in parts.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{name} must have one entry per suspect ({count}), got {len(values)}; pass as many")
    if count == 0:
        raise ValueError("given must name at least one suspect, got none; pass the first of the table")
    rows = -(-count // COLUMNS)
    cell = (DOUBLE - 0.1 - (COLUMNS - 1) * _GAP) / COLUMNS
    lines = 3 if truth is None else 4
    tall = 0.45 if images is None else cell * min(1.0, images.shape[1] / images.shape[2])
    row_height = tall + lines * _SIZE * LINE + 0.1
    height = 0.1 + rows * row_height + 0.3
    with paper():
        figure = Figure(figsize=(DOUBLE, height))
        for place in range(count):
            row, column = divmod(place, COLUMNS)
            left, top = 0.05 + column * (cell + _GAP), height - 0.08 - row * row_height
            axes = figure.add_axes((left / DOUBLE, (top - tall) / height, cell / DOUBLE, tall / height))
            colour = FAINT if truth is None else _RIGHT_LABEL if truth[place] == given[place] else _WRONG_LABEL
            if images is None:
                _text(axes, captions[place], cell)
            else:
                _picture(axes, np.asarray(images[place]))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=colour, linewidth=1.5)
            for line, (text, style) in enumerate(_words(place, given, likely, scores, rivals, truth, cell)):
                y = top - tall - 0.04 - (line + 0.8) * _SIZE * LINE  # of the baseline
                figure.text(
                    (left + cell / 2) / DOUBLE,
                    y / height,
                    text,
                    ha="center",
                    va="baseline",
                    fontsize=_SIZE,
                    parse_math=False,
                    **style,  # pyright: ignore[reportArgumentType]
                )
        _key(figure, height, truth is not None, score_name)
    return figure


def _words(
    place: int,
    given: Sequence[str],
    likely: Sequence[str],
    scores: np.ndarray,
    rivals: Sequence[str],
    truth: Sequence[str] | None,
    inches: float,
) -> list[tuple[str, dict[str, str]]]:
    """Return the lines below a cell, each with its style."""
    disputed = likely[place] != given[place]
    found = [(fit(given[place], inches, _SIZE), {"color": INK})]
    style = {"color": ALARM, "weight": "bold"} if disputed else {"color": MUTED}
    seems = likely[place] if disputed else "same" if rivals[place] == given[place] else f"same, else {rivals[place]}"
    found.append((fit(f"→ {seems}", inches, _SIZE, weight=style.get("weight", "normal")), style))
    if truth is not None:
        mark = "✓" if likely[place] == truth[place] else "✗"
        found.append((fit(f"{mark} {truth[place]}", inches, _SIZE), {"color": INK}))
    return [*found, (f"{place + 1}.  {scores[place]:.3g}".replace("-", "−"), {"color": MUTED})]


def _picture(axes: Axes, image: np.ndarray) -> None:
    if image.shape[-1] == 1:
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axes.imshow(image, interpolation="nearest")


def _text(axes: Axes, caption: str, inches: float) -> None:
    axes.text(
        0.5,
        0.5,
        fit(caption, inches - 0.08, _SIZE, lines=3),
        ha="center",
        va="center",
        fontsize=_SIZE,
        parse_math=False,
    )


def _key(figure: Figure, height: float, known: bool, score_name: str) -> None:
    score = score_name.replace("_", " ")
    lines = ["label as given", "→ likely label", "✓ or ✗ true label"][: 3 if known else 2]
    words = f"Below each: {', '.join(lines)}, rank and {score}."
    figure.text(0.05 / DOUBLE, 0.1 / height, words, fontsize=_SIZE, color=MUTED, va="center")
    if known:
        names = {"label wrong": _WRONG_LABEL, "label right": _RIGHT_LABEL}
        handles = [
            Patch(facecolor="white", edgecolor=colour, linewidth=1.5, label=name) for name, colour in names.items()
        ]
        figure.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 0), ncols=2, borderpad=0.2)
