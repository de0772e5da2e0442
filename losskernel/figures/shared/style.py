"""What all figures share: their look in print, how one is opened, its letters, legend, colour bar and stamp."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike

from losskernel.figures.shared.presentation import VERDICTS

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


def new_figure(
    width: float,
    height: float,
    wspace: float | None = None,
    hspace: float | None = None,
    w_pad: float | None = None,
    h_pad: float | None = None,
) -> Figure:
    """Open a figure, sizes in inches, whose parts are laid out so that they do not overlap.

    wspace, hspace: between panels, as shares of a panel. w_pad, h_pad: around panels, in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(wspace=wspace, hspace=hspace, w_pad=w_pad, h_pad=h_pad)
    return figure


def colour_bar(
    figure: Figure,
    shown: ScalarMappable,
    axes: Axes | Sequence[Axes],
    label: str,
    size: float = 7.0,
    below: bool = False,
    shrink: float = 0.85,
    aspect: float = 24.0,
    pad: float = 0.02,
    extend: str = "neither",
) -> Colorbar:
    """Put a colour bar without a frame beside axes, or below them, with its label in points of size."""
    side = "bottom" if below else "right"
    bar = figure.colorbar(shown, ax=axes, location=side, shrink=shrink, aspect=aspect, pad=pad, extend=extend)
    bar.set_label(label, fontsize=size)
    bar.ax.spines[:].set_visible(False)
    return bar


def number_cells(axes: Axes, values: np.ndarray, dark: np.ndarray, italic: np.ndarray, size: float = 5.5) -> None:
    """Write the finite ones of values [n, m] into the cells of an image: white where it is dark, some in italics."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            look = {"color": "white" if dark[row, column] else INK, "fontsize": size}
            style = "italic" if italic[row, column] else "normal"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontstyle=style, **look)


def mark_doubt(axes: Axes, verdict: str, before: str = " ") -> None:
    """Say in a panel's title that its kernel does not pass the diagnosis, if so; before: between title and verdict."""
    look = VERDICTS[verdict]
    if verdict != "pass":
        title = axes.title
        title.set(text=f"{title.get_text()}{before}({look.word})", color=look.colour)


def require_shape(name: str, value: ArrayLike, shape: Sequence[int | str], remedy: str = "") -> None:
    """Refuse an array of another shape, or an empty one.

    Args:
        name: of the argument.
        value: what is array-like, or has a length.
        shape: lengths, or letters for those that are free.
        remedy: what to do, for the message.

    Raises:
        ValueError: it has another shape.
    """
    got_shape = np.shape(value)
    fits = [want == got if isinstance(want, int) else got > 0 for want, got in zip(shape, got_shape, strict=False)]
    if len(got_shape) != len(shape) or not all(fits):
        wanted = f"[{', '.join(map(str, shape))}]" + ", not empty" * any(isinstance(want, str) for want in shape)
        raise ValueError(f"{name} must be {wanted}, got {got_shape}{remedy and f'; {remedy}'}")


def require_finite(name: str, values: np.ndarray, remedy: str) -> None:
    """Refuse numbers that are not finite.

    Raises:
        ValueError: there are such.
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity; {remedy}")


def palette(count: int) -> list[str]:
    """`count` hex colours that colour-blind readers can distinguish, as far as so many can be distinguished.

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


def points_of(values: np.ndarray, dimensions: int, name: str) -> np.ndarray:
    """Return the coordinates of points, [N, dimensions], as floats.

    Raises:
        ValueError: they are not that, or not finite.
    """
    values = np.asarray(values, dtype=float)
    require_shape(name, values, ("N", dimensions), "pass one row per probe")
    require_finite(name, values, "drop those probes first")
    return values


def shuffled(count: int) -> np.ndarray:
    """Return an order in which to draw points: in the given one, the last group would cover the others."""
    return np.random.default_rng(0).permutation(count)


def blend(colour: Sequence[float], weight: float) -> tuple[float, float, float]:
    """A tint: `colour` (red, green, blue in 0..1) mixed with white, `weight` of it being the colour."""
    red, green, blue = (1 - weight + weight * channel for channel in colour[:3])
    return red, green, blue
