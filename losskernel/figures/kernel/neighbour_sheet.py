"""The probes most alike to a few queries, as a sheet to read."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from losskernel.figures.shared.colouring import colour_by
from losskernel.figures.shared.lettering import LINE, fit, legend_below
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import DOUBLE, INK, blend, new_figure, paper, require_shape

_MAX_COLUMNS = 12
_MAX_HANDLES = 10
_SIZE = 6.5  # points


@paper()
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
    queries, neighbours = np.asarray(query_indices), np.asarray(neighbour_indices)
    similarity = np.asarray(similarity, dtype=float)
    _check(queries, neighbours, similarity, images, captions)
    colouring = colour_by(np.asarray(captions if groups is None else groups), "groups", len(captions))
    rows, columns = neighbours.shape[0], neighbours.shape[1] + 1
    cell = DOUBLE / max(columns, 7)
    # each row: a picture as high as wide, or a lower cell of text, and the lines beneath it
    row_height = max(0.4 * cell, 0.4) + 0.26 if images is None else cell + 0.26 + 2 * _SIZE * LINE
    height = rows * row_height + (0.1 if groups is None else 0.35)
    figure = new_figure(cell * columns, height, w_pad=0.05, h_pad=0.05, wspace=0.07, hspace=0.05)
    grid = figure.subplots(rows, columns, squeeze=False)
    scale = grey_scale(images)
    for panels, query, near, values in zip(grid, queries, neighbours, similarity, strict=True):
        probes = [query, *near]
        names = [fit(captions[probe], cell - 0.1, _SIZE, lines=2) for probe in probes]
        # as many lines as the longest name of the row has, so that its similarities are level
        lines = 1 + max(name.count("\n") for name in names)
        notes = ["query", *(minus(f"{value_label} = {value:.2f}") for value in values)]
        for axes, probe, name, note in zip(panels, probes, names, notes, strict=True):
            colour = to_rgb(tuple(colouring.rgba[probe]))
            image = None if images is None else np.asarray(images[probe])
            draw_cell(axes, image, scale, captions[probe], cell - 0.1, _SIZE)
            if image is None:
                axes.set_facecolor(blend(colour, 0.22))
            else:
                note = name + "\n" * (lines - name.count("\n")) + note
            axes.spines[:].set(visible=True, color=colour, linewidth=0.8 if image is None else 1.6)
            axes.set_xlabel(note, fontsize=_SIZE, labelpad=5)
        frame_query(panels[0], 0.055)
    if groups is not None and colouring.scale is None and len(colouring.names) <= _MAX_HANDLES:
        legend_below(figure, colouring.handles(), columns=_MAX_HANDLES)
    return figure


def _check(
    queries: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray, images: np.ndarray | None, captions: list[str]
) -> None:
    if queries.ndim != 1 or queries.size == 0:
        raise ValueError(f"query_indices must be [Q], not empty, got {queries.shape}; pass a flat array of indices")
    if neighbours.ndim != 2 or len(neighbours) != len(queries) or not 1 <= neighbours.shape[1] <= _MAX_COLUMNS:
        expected = f"[{len(queries)}, k <= {_MAX_COLUMNS}]"
        raise ValueError(f"neighbour_indices must be {expected}, got {neighbours.shape}; pass a row per query")
    require_shape("similarity", similarity, neighbours.shape, "pass one per neighbour")
    used = np.concatenate([queries, neighbours.ravel()])
    if used.dtype.kind not in "iu":
        raise ValueError(f"query_indices and neighbour_indices must be integers, got {used.dtype}; pass indices")
    if used.min() < 0 or used.max() >= len(captions):
        raise ValueError(f"captions must cover probe {used.max()}, got {len(captions)}; pass one per probe, from 0")
    require_images(images, len(captions))


def require_images(images: np.ndarray | None, count: int) -> None:
    """Refuse pictures that are not [count, H, W] or [count, H, W, 3]; None is a sheet without pictures.

    Raises:
        ValueError: they have another shape.
    """
    if images is not None and (len(images) != count or np.ndim(images) not in (3, 4)):
        raise ValueError(f"images must be [{count}, H, W] or [{count}, H, W, 3], got {np.shape(images)}; pass all")


def grey_scale(images: np.ndarray | None) -> tuple[float, float]:
    """Return one range of values for all pictures, so that a faint one looks faint."""
    return (0.0, 1.0) if images is None else (float(np.min(images)), float(np.max(images)))


def draw_cell(
    axes: Axes, image: np.ndarray | None, scale: tuple[float, float], caption: str, inches: float, size: float
) -> None:
    """Fill a cell of a sheet with a picture, or with its caption, cut to so many inches, where there is none.

    image: [H, W] or [H, W, 1] grey in the range `scale`, or [H, W, 3] colour in 0..1, or 0..255 if `scale` exceeds 1.
    """
    axes.set(xticks=[], yticks=[])
    if image is None:
        text = fit(caption, inches - 0.08, size, lines=3)
        centred: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False}
        axes.text(0.5, 0.5, text, transform=axes.transAxes, fontsize=size, **centred)
    elif image.ndim == 2 or image.shape[-1] == 1:
        grey = image.reshape(image.shape[:2])
        axes.imshow(grey, cmap="gray", vmin=scale[0], vmax=scale[1], interpolation="nearest")
    else:
        shown = image if image.dtype == np.uint8 else image.astype(float) / (255 if scale[1] > 1 else 1)
        axes.imshow(shown, interpolation="nearest")


def frame_query(axes: Axes, pad: float) -> None:
    """Frame the cell of a query, so far outside as `pad` of its side: on a dark image a dark edge would not show."""
    look = {"transform": axes.transAxes, "facecolor": "none", "edgecolor": INK, "linewidth": 1.4, "clip_on": False}
    axes.add_patch(FancyBboxPatch((0, 0), 1, 1, boxstyle=f"square,pad={pad:.3f}", **look))
