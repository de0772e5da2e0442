"""How many directions a kernel has, and which probes they join."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper

_MAX_MODES = 6
_MAX_HANDLES = 12


def spectrum(
    eigenvalues: np.ndarray,
    effective_rank: float,
    modes: np.ndarray | None,
    groups: np.ndarray | None = None,
    group_name: str = "task",
) -> Figure:
    """Eigenvalues of a kernel, their cumulative share of the trace, and its leading modes probe by probe.

    eigenvalues: [M] in any order. effective_rank: drawn dashed. modes: [k, N] the k <= 6 leading eigenvectors, or
    None for no such panel. groups: [N] labels that order and colour the probes of the modes, or None.

    Raises:
        ValueError: a shape is wrong, the trace is not positive, or there are groups without modes.
    """
    values = np.sort(np.asarray(eigenvalues, dtype=float))[::-1] if np.ndim(eigenvalues) == 1 else np.empty(0)
    if values.size == 0:
        raise ValueError(f"eigenvalues must be [M], not empty, got {np.shape(eigenvalues)}; pass a flat array")
    if not values.sum() > 0:
        raise ValueError(f"eigenvalues must have a positive sum, got {values.sum():g}; pass a kernel's, not centred")
    if modes is None and groups is not None:
        raise ValueError("groups need modes to order, got modes=None; pass the leading eigenvectors [k, N]")
    if modes is not None and (np.ndim(modes) != 2 or not 1 <= len(modes) <= _MAX_MODES):
        raise ValueError(f"modes must be [k <= {_MAX_MODES}, N], got {np.shape(modes)}; pass the leading ones")
    colouring = None
    if modes is not None and groups is not None:
        colouring = colour_by(groups, "groups", np.shape(modes)[1])

    with paper():
        figure = Figure(figsize=(DOUBLE, 2.6), layout="constrained")
        widths = [1.0, 1.0] if modes is None else [1.0, 1.0, 1.6]
        grid = GridSpec(1 if modes is None else len(modes), len(widths), figure=figure, width_ratios=widths)
        figure.get_layout_engine().set(wspace=0.1)  # pyright: ignore
        _scree(figure.add_subplot(grid[:, 0]), values)
        _cumulative(figure.add_subplot(grid[:, 1]), values, effective_rank)
        if modes is not None:
            strips = [figure.add_subplot(grid[row, 2]) for row in range(len(modes))]
            _modes(strips, np.asarray(modes, dtype=float), values, colouring)
            if colouring is not None:
                _name_groups(figure, strips, colouring, group_name)
    return figure


def _rank_axis(axes: Axes, count: int) -> None:
    axes.set_xlabel("mode")
    if count > 30:
        axes.set_xscale("log")
    axes.set_xlim(0.8, count * 1.1)


def _scree(axes: Axes, values: np.ndarray) -> None:
    # Sampling error makes a few eigenvalues negative; a log axis cannot show them, so they are counted instead.
    positive = values[values > values[0] * 1e-12]
    axes.plot(np.arange(1, len(positive) + 1), positive, color=OKABE_ITO[0], marker="o", markersize=2, linewidth=0.6)
    axes.set_yscale("log")
    _rank_axis(axes, len(positive))
    axes.set_ylabel("eigenvalue")
    share = axes.secondary_yaxis("right", functions=(lambda y: y / values.sum(), lambda s: s * values.sum()))
    share.set_ylabel("share of the trace")
    share.spines["right"].set_visible(True)
    if len(positive) < len(values):
        hidden = len(values) - len(positive)
        axes.text(
            0.04,
            0.04,
            f"{hidden} not positive,\nnot shown",
            transform=axes.transAxes,
            color=MUTED,
            fontsize=6,
        )


def _cumulative(axes: Axes, values: np.ndarray, effective_rank: float) -> None:
    axes.plot(np.arange(1, len(values) + 1), np.cumsum(values) / values.sum(), color=OKABE_ITO[0])
    axes.axhline(1, color=FAINT, linewidth=0.6, zorder=0)
    axes.axvline(effective_rank, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set_title(f"effective rank {effective_rank:.3g} (dashed)", fontsize=7)
    _rank_axis(axes, len(values))
    axes.set_ylim(0)
    axes.set_ylabel("cumulative share of the trace")


def _modes(strips: list[Axes], modes: np.ndarray, values: np.ndarray, colouring: Colouring | None) -> None:
    count = modes.shape[1]
    order = np.arange(count) if colouring is None else colouring.order
    reach = 1.1 * np.abs(modes).max()
    for number, (axes, mode) in enumerate(zip(strips, modes, strict=True)):
        colours = OKABE_ITO[0] if colouring is None else colouring.rgba[order]
        axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
        axes.scatter(np.arange(count), mode[order], s=2.5, c=colours, linewidths=0, rasterized=count > 3000)
        axes.set(xlim=(-0.5, count - 0.5), ylim=(-reach, reach), yticks=[])
        axes.set_ylabel(str(number + 1), rotation=0, ha="right", va="center", labelpad=4)
        axes.spines["bottom"].set_visible(axes is strips[-1])
        share = f"{values[number] / values.sum():.0%}" if number < len(values) else ""
        axes.text(1.01, 0.5, share, transform=axes.transAxes, va="center", fontsize=7)
        axes.tick_params(axis="x", bottom=axes is strips[-1], labelbottom=axes is strips[-1])
    strips[0].set_title("leading modes, and their share", fontsize=7)
    strips[-1].set_xlabel("probe" if colouring is None else "probe, ordered by group")


def _name_groups(figure: Figure, strips: list[Axes], colouring: Colouring, group_name: str) -> None:
    if colouring.scale is not None:
        bar = figure.colorbar(colouring.scale, ax=strips, label=group_name, aspect=30, pad=0.12)
        bar.ax.spines[:].set_visible(False)
    elif len(colouring.names) <= _MAX_HANDLES:
        figure.legend(
            handles=colouring.handles(),
            title=group_name,
            title_fontsize=7,
            loc="outside lower right",
            ncols=len(colouring.names),
            columnspacing=1.0,
            handletextpad=0.2,
        )
