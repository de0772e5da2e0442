"""What the chains did: mean loss and distance from the trained weights against sampler steps."""

from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MANY, SINGLE, paper


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
        ValueError: a shape is wrong, or a number of steps is not positive (zero is a burn-in of none).
    """
    draws = np.asarray(draws, dtype=float)
    if draws.ndim != 2 or draws.size == 0:
        raise ValueError(f"draws must be [chains, draws], not empty, got {draws.shape}; pass one row per chain")
    chains, count = draws.shape
    if steps_per_draw < 1:
        raise ValueError(f"steps_per_draw must be >= 1, got {steps_per_draw}; pass schedule.thinning")
    if burn_in_steps < 0:
        raise ValueError(f"burn_in_steps must be >= 0, got {burn_in_steps}; pass schedule.burn_in")
    if burn_in is not None and (np.ndim(burn_in) != 2 or len(burn_in) != chains):
        raise ValueError(f"burn_in must be [{chains}, moments], got {np.shape(burn_in)}; pass the chains of draws")
    if distance is not None and np.shape(distance) != draws.shape:
        raise ValueError(f"distance must be {draws.shape} like draws, got {np.shape(distance)}; pass one per draw")

    # A draw is the weights after a step, so the first lies one interval past the burn-in.
    steps = burn_in_steps + steps_per_draw * np.arange(1, count + 1)
    losses = draws
    loss_steps = steps
    if burn_in is not None and np.shape(burn_in)[1] > 0 and burn_in_steps > 0:
        moments = np.shape(burn_in)[1]
        losses = np.concatenate([np.asarray(burn_in, dtype=float), draws], axis=1)
        loss_steps = np.concatenate([np.arange(1, moments + 1) * burn_in_steps / moments, steps])

    with paper():
        panels = 1 if distance is None else 2
        figure = Figure(figsize=(SINGLE if panels == 1 else DOUBLE, 2.3), layout="constrained")
        first, *others = figure.subplots(1, panels, squeeze=False)[0]
        _draw(first, loss_steps, losses, burn_in_steps, steps[-1])
        if start is not None:
            first.axhline(start, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label=f"loss at w* = {start:.3g}")
        floor = losses.min() if start is None else min(losses.min(), start)
        if floor > 0 and losses.max() > 30 * floor:
            first.set_yscale("log")
        first.set_ylabel(loss_name)
        for axes in others:
            _draw(axes, steps, np.asarray(distance, dtype=float), burn_in_steps, steps[-1])
            axes.set_ylabel("distance |w − w*|")
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, columnspacing=1.2)
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
    axes.set_xlim(0, end)
    axes.set_xlabel("sampler step")
