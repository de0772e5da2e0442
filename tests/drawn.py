"""What a figure shows once it is drawn: its texts, its pictures, and which of them collide."""

from itertools import combinations, zip_longest
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from losskernel.data.taxonomy import Tree
from losskernel.figures import paper

# What was seen when a figure was drawn, so that each is drawn once however much is asked of it.
_SEEN: WeakKeyDictionary[Figure, tuple[FigureCanvasAgg, list[Text]]] = WeakKeyDictionary()


def rendered(figure: Figure) -> FigureCanvasAgg:
    """Draw a figure as for print, at a low resolution."""
    return _drawn(figure)[0]


def texts(figure: Figure) -> list[Text]:
    """Return the texts that are drawn and say something; labels of ticks beyond the limits, say, are not drawn."""
    return list(_drawn(figure)[1])


def _drawn(figure: Figure) -> tuple[FigureCanvasAgg, list[Text]]:
    if figure in _SEEN and not figure.stale:
        return _SEEN[figure]
    seen: dict[int, Text] = {}
    draw = Text.draw

    def noted(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            seen[id(self)] = self
        draw(self, renderer)

    with mock.patch.object(Text, "draw", noted), paper():
        figure.set_dpi(72)
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()  # the layout settles at the second drawing, and savefig too draws twice
        canvas.draw()
    _SEEN[figure] = canvas, list(seen.values())
    return _SEEN[figure]


def words(figure: Figure) -> str:
    """Return all texts, a line each."""
    return "\n".join(text.get_text() for text in texts(figure))


def legend(figure: Figure) -> list[str]:
    """Return the entries of the figure's legends, row by row."""
    entries: list[str] = []
    for drawn in figure.legends:
        # matplotlib holds them column by column
        columns = np.array_split([text.get_text() for text in drawn.get_texts()], drawn._ncols)  # pyright: ignore
        entries += [str(text) for row in zip_longest(*columns) for text in row if text is not None]
    return entries


def smallest(figure: Figure) -> float:
    """Return the size of the smallest text, in points."""
    return min(float(text.get_fontsize()) for text in texts(figure))


def collisions(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts, and of texts and thumbnails, that overlap by more than a hair."""
    renderer = rendered(figure).get_renderer()
    pictures = enumerate(thumbnails(figure))
    boxes = _boxes(figure) + [(f"picture {k}", _shrunk(each.get_window_extent(renderer))) for k, each in pictures]
    return [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]


def outside(figure: Figure) -> list[str]:
    """Return the texts that leave the paper by more than a hair."""
    sheet = figure.bbox
    return [
        name
        for name, box in _boxes(figure)
        if box.x0 < sheet.x0 or box.x1 > sheet.x1 or box.y0 < sheet.y0 or box.y1 > sheet.y1
    ]


def thumbnails(figure: Figure) -> list[AxesImage]:
    """Return the pictures of probes: the images of more than two rows and columns, on axes that hold several."""
    images = [image for axes in figure.axes for image in axes.images if len(axes.images) > 2]
    return [image for image in images if min(np.asarray(image.get_array()).shape[:2]) > 2]


def balanced(*widths: int) -> Tree:
    """Return the tree in which every node of level l has widths[l] children; nodes are named after their level."""
    sizes = np.cumprod(widths)
    parents, start = [], 0
    ids: list[str] = []
    for level in range(len(widths) - 1, -1, -1):
        count, above = int(sizes[level]), start + int(sizes[level])
        parents += [above + child // widths[level] for child in range(count)]
        ids += [f"level {level + 1} number {child}" for child in range(count)]
        start = above
    return Tree((*ids, "root"), (*ids, "everything"), np.array([*parents, -1]))


def _boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    renderer = rendered(figure).get_renderer()
    return [(text.get_text(), _shrunk(text.get_window_extent(renderer))) for text in texts(figure)]


def _shrunk(box: Bbox) -> Bbox:
    """Return a box without its outermost 12 % and pixel: the descenders of a line may touch the line below."""
    x, y = 0.02 * box.width + 0.5, 0.12 * box.height + 0.5
    return Bbox.from_extents(box.x0 + x, box.y0 + y, max(box.x1 - x, box.x0 + x), max(box.y1 - y, box.y0 + y))
