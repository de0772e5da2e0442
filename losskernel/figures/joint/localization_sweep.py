"""The angle between the loss kernel and the kernel of loss gradients as the localisation grows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from losskernel.figures.shared.style import FAINT, INK, MUTED, OKABE_ITO, SINGLE, paper

# Corrected angles below this are 0 to the noise of the correction.
_LEAST = 3e-3
_FEW = 4  # points in closed form that are marked one by one


def localization_sweep(
    localizations: Sequence[float] | np.ndarray,
    angles: Sequence[float] | np.ndarray,
    corrected: Sequence[float] | np.ndarray | None = None,
    floors: Sequence[float] | np.ndarray | None = None,
    exact: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    failed: Sequence[bool] | np.ndarray | None = None,
    note: str = "",
) -> Figure:
    """Raw angles, angles without sampling noise, what noise alone gives, and a guide of slope -1, on log-log axes.

    localizations: [n] γ. angles, corrected, floors: [n] rad; a corrected angle of 0, where the kernels agree to the
    last that noise lets see, stands as an arrow at the bottom. exact: name -> γ [k] and angles [k] in closed form.
    failed: [n] kernels whose diagnosis fails, drawn hollow. note: in the panel.

    Raises:
        ValueError: there is no localization, or numbers do not match.
    """
    gamma, raw = np.asarray(localizations, dtype=float), np.asarray(angles, dtype=float)
    if gamma.ndim != 1 or len(gamma) == 0 or raw.shape != gamma.shape:
        raise ValueError(f"angles must be one a localization, got shapes {raw.shape} and {gamma.shape}")
    known = [np.asarray(each, dtype=float) for each in (corrected, floors) if each is not None]
    lowest = min([_LEAST, *(float(each[each > 0].min()) for each in [raw, *known] if (each > 0).any())])
    exact = exact or {}
    lowest = min([lowest, *(float(values.min()) for _, values in exact.values())]) / 1.6
    with paper():
        figure = Figure(figsize=(SINGLE, 2.9), layout="constrained")
        axes = figure.subplots()
        if floors is not None:
            floor = np.asarray(floors, dtype=float)
            axes.fill_between(gamma, np.full_like(gamma, lowest), floor, color=FAINT, alpha=0.7, linewidth=0)
            axes.plot(gamma, floor, color=MUTED, linewidth=0.7, linestyle=":", label="noise floor")
        for place, (name, (at, values)) in enumerate(exact.items()):
            look: dict[str, Any] = {"linestyle": ("-", "--", "-.")[place % 3], "marker": "^" if len(at) < _FEW else ""}
            axes.plot(at, values, color=INK, linewidth=0.9, markersize=4, label=name, **look)
        bad = np.zeros(len(gamma), dtype=bool) if failed is None else np.asarray(failed, dtype=bool)
        axes.plot(gamma, raw, color=OKABE_ITO[0], linewidth=1.0, zorder=3)
        axes.plot(gamma[~bad], raw[~bad], "o", color=OKABE_ITO[0], markersize=4, label="sampled, raw", zorder=3)
        if bad.any():
            hollow = {"markerfacecolor": "white", "color": OKABE_ITO[0], "markersize": 4}
            axes.plot(gamma[bad], raw[bad], "o", label="its diagnosis fails", zorder=3, **hollow)
        if corrected is not None:
            _corrected(axes, gamma, np.asarray(corrected, dtype=float), lowest)
        least = 0.0 if floors is None else 1.5 * np.asarray(floors, dtype=float)
        _guide(axes, gamma, np.where(raw > least, raw, np.nan), lowest)
        axes.set(xscale="log", yscale="log", xlabel="localization γ", ylabel="angle to the loss gradients, rad")
        axes.set_ylim(lowest, 2.2)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="lower left", borderaxespad=0.2, handlelength=1.6)
        if note:
            axes.set_title(note, loc="right", fontsize=6.5, color=MUTED)
    return figure


def _corrected(axes: Axes, gamma: np.ndarray, values: np.ndarray, lowest: float) -> None:
    seen, gone = values > lowest, values <= lowest
    look = {"color": OKABE_ITO[3], "markersize": 4, "zorder": 3.5}
    axes.plot(gamma[seen], values[seen], "s-", linewidth=1.0, label="without sampling noise", **look)
    if gone.any():
        axes.plot(
            gamma[gone], np.full(gone.sum(), 1.15 * lowest), "v", clip_on=False, label="the same: 0 or less", **look
        )


def _guide(axes: Axes, gamma: np.ndarray, told: np.ndarray, lowest: float) -> None:
    """Draw a line of slope -1 beside what is above the noise, `told` [n] being NaN elsewhere."""
    known = np.flatnonzero(np.isfinite(told) & (told < 0.3))
    if len(known):
        level = 1.5 * gamma[known[0]] * told[known[0]]
        ends = np.array([max(gamma.min(), 0.5 * gamma[known[0]]), min(gamma.max(), level / lowest)])
        axes.plot(ends, level / ends, color=MUTED, linewidth=0.8, linestyle="-.", label="slope −1")
