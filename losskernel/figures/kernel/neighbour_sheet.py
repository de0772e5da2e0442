"""The probes most alike to a few queries, as a sheet to read."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from losskernel.figures.shared.colouring import colour_by
from losskernel.figures.shared.lettering import LINE, fit
from losskernel.figures.shared.style import DOUBLE, INK, blend, paper

_MAX_COLUMNS = 12
_MAX_HANDLES = 10
_SIZE = 6.5  # points


def neighbour_sheet(
    query_indices: np.ndarray,
    neighbour_indices: np.ndarray,
    similarity: np.ndarray,
    images: np.ndarray | None,
    captions: list[str],
    groups: np.ndarray | None = None,
    value_label: str = "R",
) -> Figure:
    """A row per query: the query in a frame, then its neighbours, with caption and similarity beneath each.

    query_indices: [Q] and neighbour_indices: [Q, k <= 12], into the N probes. similarity: [Q, k]. images: [N, H, W]
    grey of any range or [N, H, W, 3] colour in 0..1 or 0..255, or None for cells of text. captions: N, short.
    groups: [N] labels that colour the edge of an image or the ground of a cell, or None to colour by caption.

    Raises:
        ValueError: a shape is wrong, or an index is not a probe.
    """
    queries = np.asarray(query_indices)
    neighbours = np.asarray(neighbour_indices)
    similarity = np.asarray(similarity, dtype=float)
    if queries.ndim != 1 or queries.size == 0:
        raise ValueError(f"query_indices must be [Q], not empty, got {queries.shape}; pass a flat array of indices")
    if neighbours.ndim != 2 or len(neighbours) != len(queries) or not 1 <= neighbours.shape[1] <= _MAX_COLUMNS:
        expected = f"[{len(queries)}, k <= {_MAX_COLUMNS}]"
        raise ValueError(f"neighbour_indices must be {expected}, got {neighbours.shape}; pass a row per query")
    if similarity.shape != neighbours.shape:
        raise ValueError(f"similarity must be {neighbours.shape}, got {similarity.shape}; pass one per neighbour")
    used = np.concatenate([queries, neighbours.ravel()])
    if used.dtype.kind not in "iu":
        raise ValueError(f"query_indices and neighbour_indices must be integers, got {used.dtype}; pass indices")
    if used.min() < 0 or used.max() >= len(captions):
        raise ValueError(f"captions must cover probe {used.max()}, got {len(captions)}; pass one per probe, from 0")
    if images is not None and (len(images) != len(captions) or np.ndim(images) not in (3, 4)):
        expected = f"[{len(captions)}, H, W] or [{len(captions)}, H, W, 3]"
        raise ValueError(f"images must be {expected}, got {np.shape(images)}; pass one per caption")
    colouring = colour_by(np.asarray(captions if groups is None else groups), "groups", len(captions))

    # One grey scale for all images, so that a faint one looks faint.
    scale = (0.0, 1.0) if images is None else (float(np.min(images)), float(np.max(images)))
    rows, columns = neighbours.shape[0], neighbours.shape[1] + 1
    cell = DOUBLE / max(columns, 7)
    names = [[fit(captions[probe], cell - 0.1, _SIZE, lines=2) for probe in row] for row in np.c_[queries, neighbours]]
    # as many lines as the longest name of the row has, so that its similarities are level
    lines = [1 + max(name.count("\n") for name in row) for row in names]
    with paper():
        width = cell * columns
        # each row: a picture as high as wide, or a lower cell of text, and the lines beneath it
        row_height = max(0.4 * cell, 0.4) + 0.26 if images is None else cell + 0.26 + 2 * _SIZE * LINE
        height = rows * row_height + (0.1 if groups is None else 0.35)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05, wspace=0.07, hspace=0.05)  # pyright: ignore
        grid = figure.subplots(rows, columns, squeeze=False)
        for row in range(rows):
            for column, probe in enumerate([queries[row], *neighbours[row]]):
                axes = grid[row, column]
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(True)
                colour = to_rgb(tuple(colouring.rgba[probe]))
                note = (
                    "query" if column == 0 else f"{value_label} = {similarity[row, column - 1]:.2f}".replace("-", "−")
                )
                if images is None:
                    _text_cell(axes, fit(captions[probe], cell - 0.18, _SIZE, lines=3), colour)
                else:
                    _image_cell(axes, np.asarray(images[probe]), scale, colour)
                    name = names[row][column]
                    note = name + "\n" * (lines[row] - name.count("\n")) + note
                axes.set_xlabel(note, fontsize=_SIZE, labelpad=5)
                if column == 0:
                    axes.add_patch(_frame(axes))
        if groups is not None and colouring.scale is None and len(colouring.names) <= _MAX_HANDLES:
            figure.legend(handles=colouring.handles(), loc="outside lower center", ncols=_MAX_HANDLES)
    return figure


def _frame(axes: Axes) -> FancyBboxPatch:
    # outside the cell, for on a dark image a dark edge would not show
    return FancyBboxPatch(
        (0, 0),
        1,
        1,
        boxstyle="square,pad=0.055",
        transform=axes.transAxes,
        facecolor="none",
        edgecolor=INK,
        linewidth=1.4,
        clip_on=False,
    )


def _image_cell(axes: Axes, image: np.ndarray, scale: tuple[float, float], colour: tuple[float, float, float]) -> None:
    if image.ndim == 2:
        axes.imshow(image, cmap="gray", vmin=scale[0], vmax=scale[1], interpolation="nearest")
    else:
        axes.imshow(image.astype(float) / (255 if scale[1] > 1 else 1), interpolation="nearest")
    axes.spines[:].set(color=colour, linewidth=1.6)


def _text_cell(axes: Axes, text: str, colour: tuple[float, float, float]) -> None:
    axes.set_facecolor(blend(colour, 0.22))
    axes.spines[:].set(color=colour, linewidth=0.8)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=_SIZE)
