"""The most suspicious inputs, as a sheet to read: what they are called, and what they seem to be."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from losskernel.figures.shared.lettering import LINE, fit
from losskernel.figures.shared.style import ALARM, DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper

COLUMNS = 8
_SIZE = 6.5  # points
_GAP = 0.1  # inches between cells
_WRONG, _RIGHT = OKABE_ITO[3], OKABE_ITO[5]


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
            colour = FAINT if truth is None else _RIGHT if truth[place] == given[place] else _WRONG
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
        names = {"label wrong": _WRONG, "label right": _RIGHT}
        handles = [
            Patch(facecolor="white", edgecolor=colour, linewidth=1.5, label=name) for name, colour in names.items()
        ]
        figure.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 0), ncols=2, borderpad=0.2)
