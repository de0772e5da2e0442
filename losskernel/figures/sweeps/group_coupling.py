"""Which groups of inputs the parts of a network couple."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from losskernel.figures.shared.lettering import fit
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import DOUBLE, INK, paper
from losskernel.figures.shared.sweep_axis import plain

_COLUMNS = 5
_MOST_NAMES = 12  # of groups, beside the rows
_LONGEST = 10  # letters of such a name
_SIDE = DOUBLE / _COLUMNS


def group_couplings(
    means: np.ndarray, groups: Sequence[str], titles: Sequence[str], verdicts: Sequence[str], value: str, label: str
) -> Figure:
    """A matrix of groups by groups for every block of weights, the whole network's first, on one scale of colours.

    The scale is that of a square root, so that couplings across groups show beside those within; what is below 0,
    which is noise, is drawn as 0. A block whose kernel does not pass its diagnosis says so in its title.

    means: [B, G, G], NaN where unknown. groups: [G]. titles, verdicts: [B]. value: what the entries are. label: what
    the groups are of.

    Raises:
        ValueError: the shapes do not belong together.
    """
    means = np.asarray(means, dtype=float)
    if means.ndim != 3 or means.shape[1:] != (len(groups),) * 2 or len(means) == 0:
        raise ValueError(f"means must be [B, {len(groups)}, {len(groups)}], got {means.shape}; pass one per group")
    if not len(titles) == len(verdicts) == len(means):
        raise ValueError(f"titles and verdicts must be {len(means)}, got {len(titles)} and {len(verdicts)}")
    columns = min(_COLUMNS, len(means))
    lines = -(-len(means) // columns)
    named = len(groups) <= _MOST_NAMES and max(map(len, groups)) <= _LONGEST
    top = max(float(np.nanmax(means)), 1e-12)
    scale = PowerNorm(0.5, 0.0, top, clip=True)
    with paper():
        figure = Figure(figsize=(max(_SIDE * columns + 0.9, 3.4), (_SIDE + 0.22) * lines + 0.35), layout="constrained")
        figure.get_layout_engine().set(wspace=0.03, hspace=0.05)  # pyright: ignore
        panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
        for number, (axes, matrix) in enumerate(zip(panels, means, strict=False)):
            axes.imshow(matrix, cmap="Blues", norm=scale, interpolation="nearest")
            _title(axes, titles[number], str(verdicts[number]))
            axes.set(xticks=[], yticks=[])
            if named and number % columns == 0:
                axes.set_yticks(range(len(groups)), [plain(name) for name in groups], fontsize=5.5)
            if named and number + columns >= len(means) and max(map(len, groups)) <= 2:
                axes.set_xticks(range(len(groups)), [plain(name) for name in groups], fontsize=5.5)
            axes.tick_params(length=0)
            axes.spines[:].set(visible=True, linewidth=0.4)
        for axes in panels[len(means) :]:
            axes.set_visible(False)
        shown = ScalarMappable(scale, "Blues")
        bar = figure.colorbar(shown, ax=list(panels), shrink=min(0.9, 2.2 / (1.5 * lines)), aspect=24, pad=0.015)
        ticks = sorted({0.0, *(float(f"{share * top:.1g}") for share in (1 / 16, 1 / 4, 9 / 16, 1))})
        bar.set_ticks([tick for tick in ticks if tick <= top])
        bar.ax.minorticks_off()
        bar.set_label(f"mean {value} between groups\nof {plain(label)}", fontsize=7)
        bar.ax.spines[:].set_visible(False)
    return figure


def _title(axes: Axes, name: str, verdict: str) -> None:
    look = VERDICTS[verdict]
    doubted = verdict != "pass"
    text = fit(name, _SIDE - 0.1, 7) + (f"\n({look.word})" if doubted else "")
    axes.set_title(plain(text), fontsize=7, pad=3, color=look.colour if doubted else INK)
