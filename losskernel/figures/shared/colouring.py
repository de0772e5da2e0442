"""How labels become colours and kernels get their names: few distinct values are groups, many numbers are a scale."""

import re
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba_array
from matplotlib.lines import Line2D

from losskernel.figures.shared.style import FAINT, SEQUENTIAL, palette

# A scale beats groups once a legend of its values could no longer be read at a glance.
_MAX_NUMERIC_GROUPS = 12


@dataclass(frozen=True)
class Colouring:
    """Colours of N labelled things.

    rgba: [N, 4]. order: [N], a stable order in which equal labels are contiguous. names: of the groups, in the
    order of the palette; empty for a scale. codes: [N] group of each, -1 for a scale. scale: for a colour bar,
    None for groups.
    """

    rgba: np.ndarray
    order: np.ndarray
    names: list[str]
    codes: np.ndarray
    scale: ScalarMappable | None

    @property
    def colours(self) -> np.ndarray:
        """One colour per group, [G, 4]."""
        return to_rgba_array(palette(len(self.names)))

    def handles(self, size: float = 5.0) -> list[Line2D]:
        """Legend entries, one per group, each once."""
        return [
            Line2D([], [], linestyle="", marker="o", markersize=size, markeredgewidth=0, color=colour, label=name)
            for colour, name in zip(self.colours, self.names, strict=True)
        ]


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


def _natural(name: str) -> list[tuple[int, str]]:
    # "class 10" comes after "class 9"
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _scale(labels: np.ndarray) -> Colouring:
    known = np.isfinite(labels)
    scale = ScalarMappable(Normalize(labels[known].min(), labels[known].max()), colormaps[SEQUENTIAL])
    rgba = np.where(known[:, None], scale.to_rgba(np.where(known, labels, labels[known][0])), to_rgba_array(FAINT))
    order = np.argsort(labels, kind="stable")  # NaN sorts last
    return Colouring(rgba, order, [], np.full(len(labels), -1), scale)


# The loss kernel's own rows, as tables name them.
OWN = {"coupling": "loss kernel, coupling R²", "abs_r": "loss kernel, |R|", "r": "loss kernel, R"}
OTHERS = {"labels": "labels alone", "penultimate": "penultimate features", "layers": "layers (CKA)"}
HIGHLIGHT = "#DDEBF4"


def printed(name: str) -> str:
    """Return a kernel's name for print."""
    return OWN.get(name) or OTHERS.get(name) or name.replace("_", " ")
