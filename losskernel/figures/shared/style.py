"""The look of figures in print: sizes, colours, and the settings of matplotlib."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib import colormaps
from matplotlib.colors import to_hex

from losskernel.errors import require

SINGLE = 3.4  # width of one column of a two-column page, inches
DOUBLE = 7.0  # width of both columns, inches

RASTERISE = 3000  # a PDF with more vector points than this opens slowly

INK = "#262626"
MUTED = "#7A7A7A"
FAINT = "#D9D9D9"
ALARM = "#B00020"

HIGHLIGHT = "#DDEBF4"  # behind what the eye should find first
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

_PAPER = matplotlib.rc_params_from_file(Path(__file__).parent / "paper.mplstyle", use_default_template=False)


@contextmanager
def paper() -> Iterator[None]:
    """Settings for print, as a context or a decorator; draw figures within it, and save them within it (PDF fonts)."""
    with matplotlib.rc_context(_PAPER):
        yield


def palette(count: int) -> list[str]:
    """`count` hex colours that colour-blind readers can distinguish, as far as so many can be distinguished.

    Beyond 32 no set of hues is legible, so neighbours in the order share similar colours of a sequential map.

    Raises:
        InputError: `count` is negative.
    """
    require(count >= 0, f"count must be >= 0, got {count}; pass the number of groups")
    if count <= len(MANY):
        return list((OKABE_ITO if count <= len(OKABE_ITO) else MANY)[:count])
    return [to_hex(colormaps[SEQUENTIAL](i / (count - 1))) for i in range(count)]


def blend(colour: Sequence[float], weight: float) -> tuple[float, float, float]:
    """A tint: `colour` (red, green, blue in 0..1) mixed with white, `weight` of it being the colour."""
    red, green, blue = (1 - weight + weight * channel for channel in colour[:3])
    return red, green, blue
