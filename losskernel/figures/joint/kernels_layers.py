"""How far each kernel of losses is from each layer of its network, the nearest marked."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from losskernel.figures.shared.lettering import fit, width
from losskernel.figures.shared.style import DOUBLE, INK, OKABE_ITO, paper
from losskernel.figures.shared.sweep_axis import plain

_ROW, _NUMBERS = 0.19, 16  # inches; columns whose numbers can be read
_SIZE, _WIDEST = 6.5, 2.2
# From so far on, in rad, kernels have nothing to do with each other, and none is near.
_UNRELATED = np.pi / 2 - 0.03


def kernels_layers(
    distances: np.ndarray,
    kernels: Sequence[str],
    layers: Sequence[str],
    floors: np.ndarray,
    of_path: int | None = None,
    note: str = "",
) -> Figure:
    """A row a kernel, a column a layer or target; the nearest layer framed, unless it is as far as unrelated ones are.

    distances: [K, L] rad, NaN where two do not belong together. floors: [K] angle that noise alone gives; what is not
    above it cannot be told from the kernel itself, and stands in italics. of_path: columns among which the nearest is
    sought; others, behind a gap, are targets.

    Raises:
        ValueError: names do not match the distances.
    """
    if np.shape(distances) != (len(kernels), len(layers)) or len(floors) != len(kernels):
        raise ValueError(f"distances must be [{len(kernels)}, {len(layers)}], got {np.shape(distances)}")
    names = [fit(name, _WIDEST, _SIZE) for name in kernels]
    columns = [fit(name, 1.2, _SIZE) for name in layers]
    slanted = max(width(name, _SIZE) for name in columns) > 0.75 * (DOUBLE - _WIDEST - 1) / len(layers)
    with paper():
        height = 0.95 + _ROW * len(kernels) + (0.6 if slanted else 0.0)
        figure = Figure(figsize=(DOUBLE, height), layout="constrained")
        axes = figure.subplots()
        top = max(float(np.nanmax(distances)), 1e-3)
        image = axes.imshow(np.ma.masked_invalid(distances), cmap="Blues_r", vmin=0, vmax=1.05 * top, aspect="auto")
        for (row, column), value in np.ndenumerate(distances):
            if np.isfinite(value) and len(layers) <= _NUMBERS:
                look = {"color": "white" if value < 0.5 * top else INK, "fontsize": 6}
                style = "italic" if value <= floors[row] else "normal"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontstyle=style, **look)
        sought = len(layers) if of_path is None else of_path
        if sought < len(layers):
            axes.axvline(sought - 0.5, color="white", linewidth=3)
        for row, values in enumerate(distances[:, :sought]):
            if np.isfinite(values).any() and np.nanmin(values) < _UNRELATED:
                _frame(axes, row, int(np.nanargmin(values)))
        axes.set_yticks(range(len(kernels)), [plain(name) for name in names], fontsize=_SIZE)
        turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        axes.set_xticks(range(len(layers)), [plain(name) for name in columns], fontsize=_SIZE, **turned)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, aspect=18, pad=0.01, shrink=min(1.0, 1.6 / (_ROW * len(kernels) + 0.3)))
        bar.set_label("angular CKA distance, rad", fontsize=7)
        bar.ax.spines[:].set_visible(False)
        if note:
            axes.set_xlabel(note, fontsize=6.5)
    return figure


def _frame(axes: Axes, row: int, column: int) -> None:
    look = {"fill": False, "edgecolor": OKABE_ITO[3], "linewidth": 1.3}
    axes.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, **look))
