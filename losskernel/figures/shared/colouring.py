"""How labels become colours and kernels get their names: few distinct values are groups, many numbers are a scale."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.figures.shared.lettering import legend_below, mark_sample
from losskernel.figures.shared.panels import colour_bar
from losskernel.figures.shared.style import FAINT, SEQUENTIAL, palette

# A scale beats groups once a legend of its values could no longer be read at a glance.
_MAX_NUMERIC_GROUPS = 12
MAX_LEGEND = 32  # names of groups


# The loss kernel's own rows, as tables name them.
LOSS_KERNELS = {"coupling": "loss kernel, coupling R²", "abs_r": "loss kernel, |R|", "r": "loss kernel, R"}
OTHERS = {"labels": "labels alone", "penultimate": "penultimate features", "layers": "layers (CKA)"}


@dataclass(frozen=True)
class Colouring:
    """Colours of N labelled things."""

    rgba: np.ndarray  # [N, 4]
    order: np.ndarray  # [N], a stable order in which equal labels are contiguous
    names: list[str]  # [G] of the groups, in the order of the palette; empty for a scale
    codes: np.ndarray  # [N], group of each, -1 for a scale
    scale: ScalarMappable | None  # for a colour bar; None for groups

    @property
    def colours(self) -> np.ndarray:
        """One colour per group, [G, 4]."""
        return to_rgba_array(palette(len(self.names)))

    def handles(self, size: float = 5.0) -> list[Line2D]:
        """Legend entries, one per group, each once."""
        groups = zip(self.names, self.colours, strict=True)
        return [mark_sample(name, "o", colour, size - 1) for name, colour in groups]


def colour_by(labels: np.ndarray, name: str, count: int) -> Colouring:
    """Give each of `count` things the colour of its label.

    labels: [count], text, bool or numbers; numbers with more than 12 distinct values become a colour scale, on
    which a label that is not finite is grey. `name` is the argument named in errors.

    Raises:
        ValueError: labels are not one per thing.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), got {labels.shape}; pass one label per probe")
    if labels.dtype.kind in "iuf" and len(np.unique(labels)) > _MAX_NUMERIC_GROUPS:
        return _scale(labels.astype(float))
    if labels.dtype.kind not in "iufb":
        labels = np.array([str(label) for label in labels])
    values, codes = np.unique(labels, return_inverse=True)
    if values.dtype.kind == "U":
        rank = sorted(range(len(values)), key=lambda index: _natural(str(values[index])))
        values, codes = values[rank], np.argsort(rank)[codes]
    names = [f"{value:g}" if labels.dtype.kind == "f" else str(value) for value in values]
    colours = to_rgba_array(palette(len(names)))
    return Colouring(colours[codes], np.argsort(codes, kind="stable"), names, codes, None)


def colour_key(figure: Figure, axes: Sequence[Axes], colouring: Colouring, name: str) -> None:
    """Explain a colouring below axes: a colour bar for a scale, a legend for up to 32 groups, else their number."""
    if colouring.scale is not None:
        aspect = 25.0 * len(axes)
        colour_bar(figure, colouring.scale, axes, name, size=8, below=True, shrink=0.6, aspect=aspect, pad=0.04)
    elif len(colouring.names) <= MAX_LEGEND:
        legend_below(figure, colouring.handles(), title=name, columns=MAX_LEGEND)
    else:
        figure.supxlabel(f"{len(colouring.names)} values of {name}", fontsize=7)


def _natural(name: str) -> list[tuple[int, str]]:
    # "class 10" comes after "class 9"
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _scale(labels: np.ndarray) -> Colouring:
    known = np.isfinite(labels)
    scale = ScalarMappable(Normalize(labels[known].min(), labels[known].max()), colormaps[SEQUENTIAL])
    rgba = np.where(known[:, None], scale.to_rgba(np.where(known, labels, labels[known][0])), to_rgba_array(FAINT))
    order = np.argsort(labels, kind="stable")  # NaN sorts last
    return Colouring(rgba, order, [], np.full(len(labels), -1), scale)


def printed(name: str) -> str:
    """Return a kernel's name for print."""
    return LOSS_KERNELS.get(name) or OTHERS.get(name) or name.replace("_", " ")
