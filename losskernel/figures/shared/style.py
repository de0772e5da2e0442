"""The look that all figures share: colours, sizes for print, and the stamp of a failed diagnosis."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

SINGLE = 3.4  # width of one column of a two-column page, inches
DOUBLE = 7.0  # width of both columns, inches

INK = "#262626"
MUTED = "#7A7A7A"
FAINT = "#D9D9D9"
ALARM = "#B00020"

DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"

# Okabe & Ito, "Color Universal Design" (2008); yellow is last because it is weak on white paper.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")

# Okabe-Ito's first six, extended greedily: each further colour is the one farthest in Oklab from all before
# it and from white, the distance being the least over normal, deuteranope and protanope vision (Machado 2009).
MANY = (
    *OKABE_ITO[:6],
    *("#6D0C31", "#3D009E", "#7918FF", "#00E79E", "#615500", "#AA3179", "#9279FF", "#CEDB00", "#55E7FF"),
    *("#92B686", "#CE18C2", "#183D61", "#0000DB", "#926149", "#3D499E", "#B6C2CE", "#186161", "#FF5555"),
    *("#249200", "#926D92", "#FF6DCE", "#616DDB", "#F3C279", "#790079", "#6D310C", "#923149"),
)

_PAPER: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.0,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    # Text as TrueType outlines that editors keep as text, which journals ask for.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}


def paper() -> AbstractContextManager[None]:
    """Settings for print; figures are drawn within it, and should be saved within it too (PDF fonts)."""
    return matplotlib.rc_context(_PAPER)


def palette(count: int) -> list[str]:
    """`count` hex colours that colour-blind readers can tell apart, as far as so many can be told apart.

    Beyond 32 no set of hues is legible, so neighbours in the order share similar colours of a sequential map.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"count must be >= 0, got {count}; pass the number of groups")
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    if count <= len(MANY):
        return list(MANY[:count])
    return [to_hex(colormaps[SEQUENTIAL](i / (count - 1))) for i in range(count)]


def stamp(figure: Figure, text: str) -> Figure:
    """Write a warning that cannot be overlooked above a figure, as when its kernel failed the diagnosis.

    The figure grows upwards to make room, so the warning hides no data. Returns the same figure.

    Raises:
        ValueError: `text` is empty.
    """
    if not text.strip():
        raise ValueError("text must say what is wrong, got an empty string; pass the diagnosis' reason")
    with paper():
        figure.suptitle(
            text,
            color="white",
            fontsize=8,
            fontweight="bold",
            wrap=True,
            bbox={"facecolor": ALARM, "edgecolor": ALARM, "boxstyle": "square,pad=0.4"},
        )
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.3)
    return figure


def blend(colour: Sequence[float], weight: float) -> tuple[float, float, float]:
    """A tint: `colour` (red, green, blue in 0..1) mixed with white, `weight` of it being the colour."""
    red, green, blue = (1 - weight + weight * channel for channel in colour[:3])
    return red, green, blue
