"""Curves of a kernel and its chains: losses against steps, values of pairs, eigenvalues and modes."""

from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from losskernel.errors import require
from losskernel.figures.shared.checks import require_finite, require_shape
from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.shared.lettering import legend_below
from losskernel.figures.shared.panels import colour_bar, new_figure
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MANY, MUTED, OKABE_ITO, SINGLE, paper

_BINS = 60  # of a histogram
_MAX_MODES = 6
_MAX_HANDLES = 12
_DASHED: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (4, 2))}


@paper()
def loss_traces(
    draws: np.ndarray,
    burn_in: np.ndarray | None,
    steps_per_draw: int,
    burn_in_steps: int,
    start: float | None,
    distance: np.ndarray | None,
    loss_name: str = "mean probe loss",
) -> Figure:
    """Mean loss of every chain against sampler step, and beside it the distance from w*.

    draws: [C, D] mean loss at each draw. burn_in: [C, W] the same at W even moments of the burn-in, or None.
    steps_per_draw: sampler steps from one draw to the next. start: the same loss at w*, or None. distance:
    [C, D] |w - w*| at each draw, or None for one panel only. The black line is the mean over chains. loss_name: which
    loss it is.

    Raises:
        InputError: a shape is wrong, or a number of steps is not positive (zero is a burn-in of none).
    """
    draws = np.asarray(draws, dtype=float)
    require_shape("draws", draws, ("chains", "draws"), "pass one row per chain")
    require(steps_per_draw >= 1, f"steps_per_draw must be >= 1, got {steps_per_draw}; pass schedule.thinning")
    require(burn_in_steps >= 0, f"burn_in_steps must be >= 0, got {burn_in_steps}; pass schedule.burn_in")
    # no burn-in is a burn-in of no moments
    early = np.empty((len(draws), 0)) if burn_in is None else np.asarray(burn_in, dtype=float)
    matching = early.ndim == 2 and len(early) == len(draws)
    require(matching, f"burn_in must be [{len(draws)}, moments], got {early.shape}; pass the chains of draws")
    if distance is not None:
        require_shape("distance", distance, draws.shape, "pass one per draw")
    # A draw is the weights after a step, so the first lies one interval past the burn-in.
    steps = burn_in_steps + steps_per_draw * np.arange(1, draws.shape[1] + 1)
    moments = early.shape[1] if burn_in_steps > 0 else 0
    early_steps = np.arange(1, moments + 1) * burn_in_steps / max(moments, 1)
    losses = np.concatenate([early[:, :moments], draws], axis=1)

    figure = new_figure(SINGLE if distance is None else DOUBLE, 2.3)
    first, *others = figure.subplots(1, 1 if distance is None else 2, squeeze=False)[0]
    _draw(first, np.concatenate([early_steps, steps]), losses, burn_in_steps, steps[-1])
    if start is not None:
        first.axhline(start, label=f"loss at w* = {start:.3g}", **_DASHED)
    least = min(losses.min(), np.inf if start is None else start)
    if least > 0 and losses.max() > 30 * least:
        first.set_yscale("log")
    first.set_ylabel(loss_name)
    for axes in others:
        _draw(axes, steps, np.asarray(distance, dtype=float), burn_in_steps, steps[-1])
        axes.set_ylabel("distance |w − w*|")
    legend_below(figure, columns=4)
    return figure


def _draw(axes: Axes, steps: np.ndarray, values: np.ndarray, burn_in_steps: int, end: int) -> None:
    chains = len(values)
    if burn_in_steps > 0:
        axes.axvspan(0, burn_in_steps, color=FAINT, alpha=0.45, linewidth=0, label="burn-in")
    for chain, colour in zip(range(chains), cycle(MANY), strict=False):
        label = ("chain" if chains == 1 else f"each of {chains} chains") if chain == 0 else None
        axes.plot(steps, values[chain], color=colour, linewidth=0.5, alpha=0.7, label=label)
    if chains > 1:
        axes.plot(steps, values.mean(axis=0), color=INK, linewidth=1.0, label="mean over chains")
    axes.set(xlim=(0, end), xlabel="sampler step")


@paper()
def within_across(
    within: np.ndarray, across: np.ndarray, floor: float | None = None, group_name: str = "task"
) -> Figure:
    """The values of pairs within one group and of pairs across groups, on one axis, with their means.

    within: [A]. across: [B]. floor: the mean that sampling noise alone would give, drawn dashed. The axis is
    logarithmic when all values are positive and spread over more than a factor of 30; then the density is per
    decade, so that areas still compare.

    Raises:
        InputError: an array is not one-dimensional, is empty, or holds a value that is not finite.
    """
    samples = {"within": np.asarray(within, dtype=float), "across": np.asarray(across, dtype=float)}
    for name, values in samples.items():
        require_shape(name, values, ("pairs",), "pass a flat array of values")
        require_finite(name, values, "drop those pairs first")
    edges, logarithmic = _bins(np.concatenate(list(samples.values())))
    widths = np.diff(np.log10(edges) if logarithmic else edges)

    figure = new_figure(SINGLE, 2.3)
    axes = figure.subplots()
    means = {name: float(values.mean()) for name, values in samples.items()}
    lower = min(means, key=lambda name: means[name])
    looks = (("same", OKABE_ITO[3]), ("different", OKABE_ITO[0]))
    for (name, values), (relation, colour) in zip(samples.items(), looks, strict=True):
        density = np.histogram(values, edges)[0] / (values.size * widths)
        axes.stairs(density, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(density, edges, color=colour, linewidth=1.0, label=f"{relation} {group_name}")
        axes.axvline(means[name], color=colour, linewidth=1.0)
        # The two means' texts lean away from each other, so they never meet.
        shift, side = (-2, "right") if name == lower else (2, "left")
        above = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "color": colour, "fontsize": 7}
        axes.annotate(f"mean {means[name]:.2g}", (means[name], 1), (shift, 2), ha=side, **above)
    if floor is not None:
        axes.axvline(floor, label=f"Monte-Carlo floor {floor:.2g}", **_DASHED)
    if logarithmic:
        axes.set_xscale("log")
    elif edges[0] < 0 < edges[-1]:
        axes.axvline(0, color=MUTED, linewidth=0.5, zorder=0)
    density = "density (per decade)" if logarithmic else "density"
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None), xlabel="|R| of a pair of probes", ylabel=density)
    legend_below(figure, columns=3)
    return figure


def _bins(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the edges of the histogram's bins, and whether they are evenly spaced on a logarithmic axis."""
    low, high = np.percentile(values, [0.5, 99.5])
    if values.min() > 0 and high > 30 * low:
        return np.geomspace(low, values.max(), _BINS + 1), True
    return np.linspace(values.min(), max(values.max(), values.min() + 1e-12), _BINS + 1), False


@paper()
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
        InputError: a shape is wrong, the trace is not positive, or there are groups without modes.
    """
    require_shape("eigenvalues", eigenvalues, ("M",), "pass a flat array")
    values = np.sort(np.asarray(eigenvalues, dtype=float))[::-1]
    total = float(values.sum())
    require(total > 0, f"eigenvalues must have a positive sum, got {total:g}; pass a kernel's, not centred")
    ordered = modes is not None or groups is None
    require(ordered, "groups need modes to order, got modes=None; pass the leading eigenvectors [k, N]")
    if modes is not None:
        few = modes.ndim == 2 and 1 <= len(modes) <= _MAX_MODES
        require(few, f"modes must be [k <= {_MAX_MODES}, N], got {modes.shape}; pass the leading ones")
    rows = [] if modes is None else list(np.asarray(modes, dtype=float))
    colouring = None if groups is None else colour_by(groups, "groups", len(rows[0]))

    figure = new_figure(DOUBLE, 2.6, wspace=0.1)
    widths = [1.0, 1.0, 1.6] if rows else [1.0, 1.0]
    grid = GridSpec(max(len(rows), 1), len(widths), figure=figure, width_ratios=widths)
    _scree(figure.add_subplot(grid[:, 0]), values)
    _cumulative(figure.add_subplot(grid[:, 1]), values, effective_rank)
    if rows:
        strips = [figure.add_subplot(grid[row, 2]) for row in range(len(rows))]
        _modes(strips, np.stack(rows), values, colouring)
        if colouring is not None and colouring.scale is not None:
            colour_bar(figure, colouring.scale, strips, group_name, size=8, shrink=1.0, aspect=30, pad=0.12)
        elif colouring is not None and len(colouring.names) <= _MAX_HANDLES:
            legend_below(figure, colouring.handles(), title=group_name, columns=_MAX_HANDLES)
    return figure


def _rank_axis(axes: Axes, count: int) -> None:
    axes.set(xscale="log" if count > 30 else "linear", xlim=(0.8, count * 1.1), xlabel="mode")


def _scree(axes: Axes, values: np.ndarray) -> None:
    # Sampling error makes a few eigenvalues negative; a log axis cannot show them, so they are counted instead.
    positive = values[values > values[0] * 1e-12]
    axes.plot(np.arange(1, len(positive) + 1), positive, color=OKABE_ITO[0], marker="o", markersize=2, linewidth=0.6)
    _rank_axis(axes, len(positive))
    axes.set(yscale="log", ylabel="eigenvalue")
    # the same axis read as shares of the trace
    share = axes.secondary_yaxis("right", functions=(lambda y: y / values.sum(), lambda s: s * values.sum()))
    share.set_ylabel("share of the trace")
    share.spines["right"].set_visible(True)
    if len(positive) < len(values):
        note = f"{len(values) - len(positive)} not positive,\nnot shown"
        axes.text(0.04, 0.04, note, transform=axes.transAxes, color=MUTED, fontsize=6)


def _cumulative(axes: Axes, values: np.ndarray, effective_rank: float) -> None:
    axes.plot(np.arange(1, len(values) + 1), np.cumsum(values) / values.sum(), color=OKABE_ITO[0])
    axes.axhline(1, color=FAINT, linewidth=0.6, zorder=0)
    axes.axvline(effective_rank, **_DASHED)
    axes.set_title(f"effective rank {effective_rank:.3g} (dashed)", fontsize=7)
    _rank_axis(axes, len(values))
    axes.set(ylim=(0, None), ylabel="cumulative share of the trace")


def _modes(strips: list[Axes], modes: np.ndarray, values: np.ndarray, colouring: Colouring | None) -> None:
    count = modes.shape[1]
    order = np.arange(count) if colouring is None else colouring.order
    # one scale for all modes, so that their sizes compare
    reach = 1.1 * np.abs(modes).max()
    for number, (axes, mode) in enumerate(zip(strips, modes, strict=True)):
        colours = OKABE_ITO[0] if colouring is None else colouring.rgba[order]
        axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
        axes.scatter(np.arange(count), mode[order], s=2.5, c=colours, linewidths=0, rasterized=count > 3000)
        axes.set(xlim=(-0.5, count - 0.5), ylim=(-reach, reach), yticks=[])
        axes.set_ylabel(str(number + 1), rotation=0, ha="right", va="center", labelpad=4)
        share = f"{values[number] / values.sum():.0%}" if number < len(values) else ""
        axes.text(1.01, 0.5, share, transform=axes.transAxes, va="center", fontsize=7)
        axes.spines["bottom"].set_visible(axes is strips[-1])
        axes.tick_params(axis="x", bottom=axes is strips[-1], labelbottom=axes is strips[-1])
    strips[0].set_title("leading modes, and their share", fontsize=7)
    strips[-1].set_xlabel("probe" if colouring is None else "probe, ordered by group")
