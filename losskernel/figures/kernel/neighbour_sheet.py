"""The probes most alike to a few queries, as a sheet to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from losskernel.errors import require
from losskernel.figures.shared.checks import require_images, require_shape
from losskernel.figures.shared.colouring import colour_by
from losskernel.figures.shared.lettering import LINE, fit, legend_below
from losskernel.figures.shared.panels import new_figure
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, blend, paper

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
    kinds: Sequence[tuple[str, str]] = (),
) -> Figure:
    """A row per query: the query in a frame, then its neighbours, with caption and similarity beneath each.

    Consecutive rows of one query show it once; what else they are is written in its place.

    query_indices: [Q] and neighbour_indices: [Q, k <= 12], into the N probes. similarity: [Q, k]. images: [N, H, W]
    grey of any range or [N, H, W, 3] colour in 0..1 or 0..255, or None for cells of text. captions: N, short.
    groups: [N] labels that colour the edge of an image or the ground of a cell, or None to colour by caption; edges
    are grey where there are more groups than a legend holds.
    kinds: (what the row shows, symbol of its similarity) of every row; () for neighbours by R alone.

    Raises:
        InputError: a shape is wrong, or an index is not a probe.
    """
    queries, neighbours = np.asarray(query_indices), np.asarray(neighbour_indices)
    similarity = np.asarray(similarity, dtype=float)
    _check(queries, neighbours, similarity, images, captions)
    colouring = colour_by(np.asarray(captions if groups is None else groups), "groups", len(captions))
    # Colours that no legend explains would only distract from pictures; on cells of text they still tell groups apart.
    explained = colouring.scale is not None or len(colouring.names) <= _MAX_HANDLES
    rgba = colouring.rgba if explained or images is None else np.tile(to_rgba(MUTED), (len(captions), 1))
    rows, columns = neighbours.shape[0], neighbours.shape[1] + 1
    cell = DOUBLE / max(columns, 7)
    # each row: a picture as high as wide, or a lower cell of text, and the lines beneath it
    row_height = max(0.4 * cell, 0.4) + 0.26 if images is None else cell + 0.26 + 2 * _SIZE * LINE
    height = rows * row_height + (0.1 if groups is None else 0.35)
    figure = new_figure(cell * columns, height, w_pad=0.05, h_pad=0.05, wspace=0.07, hspace=0.05)
    grid = figure.subplots(rows, columns, squeeze=False)
    cells = Cells(images, captions, cell - 0.1, _SIZE)
    several, kinds, previous = len(kinds) > 0, kinds or [("query", "R")] * rows, -1
    for panels, query, near, values, (kind, symbol) in zip(grid, queries, neighbours, similarity, kinds, strict=True):
        repeated, previous = several and query == previous, query
        if repeated:
            panels[0].set_axis_off()
            place = {"transform": panels[0].transAxes, "ha": "right", "va": "center", "fontsize": _SIZE}
            panels[0].text(0.95, 0.5, fit(kind, cell - 0.1, _SIZE, lines=3), **place)
            panels = panels[1:]
        probes = [*near] if repeated else [query, *near]
        notes = [
            *([] if repeated else [fit(kind, cell - 0.1, _SIZE)]),
            *(minus(f"{symbol} = {value:.2f}") for value in values),
        ]
        names = [fit(captions[probe], cell - 0.1, _SIZE, lines=2) for probe in probes]
        # as many lines as the longest name of the row has, so that its similarities are level
        lines = 1 + max(name.count("\n") for name in names)
        for axes, probe, name, note in zip(panels, probes, names, notes, strict=True):
            padded = name + "\n" * (lines - name.count("\n"))
            cells.draw(axes, probe, to_rgb(tuple(rgba[probe])), padded, note, 1.6, 0.22, 5)
        if not repeated:
            frame_query(panels[0], 0.055)
    if groups is not None and colouring.scale is None and explained:
        legend_below(figure, colouring.handles(), columns=_MAX_HANDLES)
    return figure


def _check(
    queries: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray, images: np.ndarray | None, captions: list[str]
) -> None:
    require_shape("query_indices", queries, ("Q",), "pass a flat array of indices")
    fits = neighbours.ndim == 2 and len(neighbours) == len(queries) and 1 <= neighbours.shape[1] <= _MAX_COLUMNS
    expected = f"[{len(queries)}, k <= {_MAX_COLUMNS}]"
    require(fits, f"neighbour_indices must be {expected}, got {neighbours.shape}; pass a row per query")
    require_shape("similarity", similarity, neighbours.shape, "pass one per neighbour")
    used = np.concatenate([queries, neighbours.ravel()])
    whole = used.dtype.kind in "iu"
    require(whole, f"query_indices and neighbour_indices must be integers, got {used.dtype}; pass indices")
    covered = bool(used.min() >= 0 and used.max() < len(captions))
    require(covered, f"captions must cover probe {used.max()}, got {len(captions)}; pass one per probe, from 0")
    require_images(images, len(captions))


@dataclass(frozen=True)
class Cells:
    """How the probes of a sheet are shown: as pictures, or by their captions where there are none."""

    images: np.ndarray | None  # [N, H, W] grey, [N, H, W, 1] grey or [N, H, W, 3] colour
    captions: Sequence[str]  # [N]
    inches: float  # of the text in a cell
    size: float  # of the text, in points

    @cached_property
    def scale(self) -> tuple[float, float]:
        """One range of values for all pictures, so that a faint one looks faint."""
        return (0.0, 1.0) if self.images is None else (float(np.min(self.images)), float(np.max(self.images)))

    def draw(
        self, axes: Axes, probe: int, colour: Any, name: str, note: str, edge: float, tint: float, pad: float
    ) -> None:
        """Draw a probe with a coloured edge; a note beneath it, and above that the name of a picture.

        edge: width of a picture's edge, in points. tint: weight of the colour behind a caption. pad: above the note.
        """
        image = None if self.images is None else np.asarray(self.images[probe])
        draw_cell(axes, image, self.scale, self.captions[probe], self.inches, self.size)
        axes.spines[:].set(visible=True, color=colour, linewidth=0.8 if image is None else edge)
        if image is None:
            axes.set_facecolor(blend(to_rgb(colour), tint))
        axes.set_xlabel(note if image is None else name + note, fontsize=self.size, labelpad=pad)


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
