"""Rows of dots: a kernel or a method each, with its interval, beside what chance gives."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from losskernel.figures.shared.style import HIGHLIGHT, MUTED

CHANCE = "#C9C9C9"


def draw_row(
    axes: Axes, row: float, value: float, interval: tuple[float, float] | None, colour: str, hollow: bool
) -> None:
    """Draw a value with its interval, if it has one."""
    if interval is not None:
        axes.plot(interval, [row, row], color=colour, linewidth=1.1, zorder=3)
    axes.plot(value, row, "o", color=colour, markerfacecolor="white" if hollow else colour, markersize=4, zorder=4)


def furnish_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows, from the top, and mark where the values are 0."""
    axes.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
    axes.set(xmargin=0.06, ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def row_handles(chance: bool = True) -> list[Artist]:
    """Return the legend's entries of the bands behind the rows."""
    bands = {"90 % of permutations": CHANCE, "the loss kernel": HIGHLIGHT}
    return [Patch(color=colour, linewidth=0, label=label) for label, colour in bands.items()][not chance :]
