"""Kernels of blocks of weights: how much of the whole each makes, and which groups of inputs it couples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from losskernel.errors import require
from losskernel.figures.shared.checks import require_shape
from losskernel.figures.shared.lettering import fit, labelled, legend_below, letter_all, plain
from losskernel.figures.shared.panels import colour_bar, grid_of, mark_doubt, new_figure
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper

_ROW = 0.19  # inches
_NAME = 1.1  # inches for the longest name
_WITHIN, _ACROSS = OKABE_ITO[3], OKABE_ITO[0]  # pairs of one group, of different groups
_DOTTED = (0, (1, 1.6))
_COLUMNS = 5
_MOST_NAMES = 12  # of groups, beside the rows
_LONGEST = 10  # letters of such a name
_SIDE = DOUBLE / _COLUMNS


@dataclass(frozen=True)
class BlockShares:
    """What is known of B blocks of weights, the whole network's first; NaN where something is unknown."""

    names: Sequence[str]  # [B]
    verdicts: Sequence[str]  # [B]
    weights: np.ndarray  # [B], share of the moving weights
    self_coupling: np.ndarray  # [B], share of the whole's mean self-coupling
    self_coupling_se: np.ndarray  # [B]
    cka: np.ndarray  # [B], with the whole's kernel
    ceiling: np.ndarray  # [B], what noise leaves of a CKA of 1
    neighbours: np.ndarray  # [B], share of nearest probes that the whole shares
    neighbours_se: np.ndarray  # [B]
    chance: float  # of sharing neighbours
    within: np.ndarray  # [B], mean coupling of pairs of one group
    across: np.ndarray  # [B], mean coupling of pairs of different groups

    def __post_init__(self) -> None:
        count = len(self.names)
        for name, value in vars(self).items():
            got = count if name == "chance" else len(value)
            require(got == count, f"{name} must have one entry per block, {count}, got {got}")


@paper()
def block_shares(blocks: BlockShares, value: str) -> Figure:
    """Four panels with a row per block: shares of self-coupling, likeness to the whole, neighbours, coupling of groups.

    value: what the coupling of groups is of, R² or |R|.
    """
    count = len(blocks.names)
    rows = np.arange(count)
    figure = new_figure(DOUBLE, _ROW * count + 1.0)
    grouped = bool(np.isfinite(blocks.within).any())
    panels = figure.subplots(1, 4 if grouped else 3, sharey=True)
    _bars(panels[0], rows, blocks.self_coupling, blocks.self_coupling_se)
    panels[0].plot(blocks.weights, rows, "D", color=OKABE_ITO[1], markersize=3.5, label="share of the weights")
    panels[0].set_xlim(0, 1.12 * max(1.0, np.nanmax(blocks.self_coupling, initial=1.0)))
    _bars(panels[1], rows, blocks.cka, None)
    panels[1].plot(blocks.ceiling, rows, "|", color=INK, markersize=9, label="1, less noise")
    panels[1].set_xlim(min(0.0, float(np.nanmin(blocks.cka, initial=0.0))), 1.05)
    _bars(panels[2], rows, blocks.neighbours, blocks.neighbours_se)
    panels[2].axvline(blocks.chance, color=INK, linestyle=_DOTTED, linewidth=0.9, label="chance")
    panels[2].set_xlim(0, 1.05)
    if grouped:
        _couplings(panels[3], rows, blocks)
    titles = ("share of self-coupling", "CKA with the whole", "neighbours shared", f"mean coupling {value}")
    letter_all(panels, titles, size=7.5)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(rows, [plain(fit(name, _NAME, 7)) for name in blocks.names])
    panels[0].set_ylim(count - 0.5, -0.5)
    for text, verdict in zip(panels[0].get_yticklabels(), blocks.verdicts, strict=True):
        text.set_color(INK if verdict == "pass" else VERDICTS[verdict].colour)
    looks = [VERDICTS[verdict] for verdict in sorted(set(blocks.verdicts) - {"pass"})]
    legend_below(figure, [*labelled(figure), *(Patch(color=look.colour, label=f"name: {look.word}") for look in looks)])
    return figure


def _bars(axes: Axes, rows: np.ndarray, values: np.ndarray, errors: np.ndarray | None) -> None:
    known, colours = np.isfinite(values), np.where(rows == 0, MUTED, OKABE_ITO[5])
    axes.barh(rows[known], values[known], height=0.62, color=list(colours[known]), linewidth=0)
    if errors is not None:
        axes.errorbar(values, rows, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.8)
    axes.locator_params(axis="x", nbins=4)


def _couplings(axes: Axes, rows: np.ndarray, blocks: BlockShares) -> None:
    ends = np.stack([blocks.across, blocks.within])
    if (ends[np.isfinite(ends)] > 0).all() and np.isfinite(ends).any():
        axes.set_xscale("log")
    axes.hlines(rows, ends[0], ends[1], color=FAINT, linewidth=1.5, zorder=1)
    axes.plot(blocks.within, rows, "o", color=_WITHIN, markersize=4, label="within groups")
    axes.plot(blocks.across, rows, "s", color=_ACROSS, markersize=4, label="across")
    axes.margins(x=0.12)


@paper()
def group_couplings(
    means: np.ndarray, groups: Sequence[str], titles: Sequence[str], verdicts: Sequence[str], value: str, label: str
) -> Figure:
    """A matrix of groups by groups for every block of weights, the whole network's first, on one scale of colours.

    The scale is that of a square root, so that couplings across groups show beside those within; what is below 0,
    which is noise, is drawn as 0. A block whose kernel does not pass its diagnosis says so in its title.

    means: [B, G, G], NaN where unknown. groups: [G]. titles, verdicts: [B]. value: what the entries are. label: what
    the groups are of.

    Raises:
        InputError: the shapes do not belong together.
    """
    means = np.asarray(means, dtype=float)
    require_shape("means", means, ("B", len(groups), len(groups)), "pass one per group")
    fits = len(titles) == len(verdicts) == len(means)
    require(fits, f"titles and verdicts must be {len(means)}, got {len(titles)} and {len(verdicts)}")
    columns = min(_COLUMNS, len(means))
    lines = -(-len(means) // columns)
    names = [plain(name) for name in groups]
    named = len(groups) <= _MOST_NAMES and max(map(len, groups)) <= _LONGEST
    top = max(float(np.nanmax(means)), 1e-12)
    # the square root shows couplings across groups, which are far weaker than those within
    scale = PowerNorm(0.5, 0.0, top, clip=True)
    figure = new_figure(max(_SIDE * columns + 0.9, 3.4), (_SIDE + 0.22) * lines + 0.35, wspace=0.03, hspace=0.05)
    panels = grid_of(figure, len(means), _COLUMNS)
    for number, (axes, matrix) in enumerate(zip(panels, means, strict=True)):
        axes.imshow(matrix, cmap="Blues", norm=scale, interpolation="nearest")
        axes.set_title(plain(fit(titles[number], _SIDE - 0.1, 7)), fontsize=7, pad=3)
        mark_doubt(axes, str(verdicts[number]), "\n")
        beside = named and number % columns == 0
        below = named and number + columns >= len(means) and max(map(len, groups)) <= 2
        for wanted, ticks in ((beside, axes.set_yticks), (below, axes.set_xticks)):
            ticks(range(len(groups)) if wanted else [], names if wanted else [], fontsize=5.5)
        axes.tick_params(length=0)
        axes.spines[:].set(visible=True, linewidth=0.4)
    shown, reach = ScalarMappable(scale, "Blues"), min(0.9, 2.2 / (1.5 * lines))
    label = f"mean {value} between groups\nof {plain(label)}"
    bar = colour_bar(figure, shown, panels, label, shrink=reach, pad=0.015)
    # even steps on a scale of square roots, rounded
    ticks = sorted({0.0, *(float(f"{share * top:.1g}") for share in (1 / 16, 1 / 4, 9 / 16, 1))})
    bar.set_ticks([tick for tick in ticks if tick <= top])
    bar.ax.minorticks_off()
    return figure
