"""How the loss kernel agrees with layers, labels and loss gradients."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter

from losskernel.errors import require
from losskernel.figures.shared.checks import require_shape
from losskernel.figures.shared.lettering import fit, legend_below, letter_all, plain, width
from losskernel.figures.shared.panels import colour_bar, new_figure, number_cells
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, SINGLE, paper
from losskernel.figures.shared.sweep_axis import Axis

_ROW, _MOST_NUMBERS = 0.19, 16  # inches; columns whose numbers can be read
_SIZE, _WIDEST = 6.5, 2.2
# From so far on, in rad, kernels have nothing to do with each other, and none is near.
_UNRELATED = np.pi / 2 - 0.03
_MOST_PANELS = 4  # panels
_NUMBERS = ("cosine", "beyond", "low", "high", "beyond_corrected", "null_low", "null_high")
# Corrected angles below this are 0 to the noise of the correction.
_LEAST = 3e-3
_FEW = 4  # points in closed form that are marked one by one
_COLOURS = (OKABE_ITO[3], OKABE_ITO[0], OKABE_ITO[2], OKABE_ITO[4], OKABE_ITO[5], OKABE_ITO[1])
_MARKERS = ("D", "o", "X", "h", "s", "^")


@paper()
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
    above it is within the noise of the kernel itself, and is in italics. of_path: columns among which the nearest is
    sought; others, behind a gap, are targets.

    Raises:
        InputError: names do not match the distances.
    """
    require_shape("distances", distances, (len(kernels), len(layers)), "pass one per kernel and layer")
    require_shape("floors", floors, (len(kernels),), "pass one per kernel")
    names = [fit(name, _WIDEST, _SIZE) for name in kernels]
    columns = [fit(name, 1.2, _SIZE) for name in layers]
    slanted = max(width(name, _SIZE) for name in columns) > 0.75 * (DOUBLE - _WIDEST - 1) / len(layers)
    figure = new_figure(DOUBLE, 0.95 + _ROW * len(kernels) + (0.6 if slanted else 0.0))
    axes = figure.subplots()
    # the scale begins at 0, where kernels are the same
    top = max(float(np.nanmax(distances)), 1e-3)
    image = axes.imshow(np.ma.masked_invalid(distances), cmap="Blues_r", vmin=0, vmax=1.05 * top, aspect="auto")
    if len(layers) <= _MOST_NUMBERS:
        number_cells(axes, distances, distances < 0.5 * top, distances <= np.asarray(floors)[:, None], 6)
    sought = len(layers) if of_path is None else of_path
    axes.axvline(sought - 0.5, color="white", linewidth=3)  # a gap before the targets
    look = {"fill": False, "edgecolor": OKABE_ITO[3], "linewidth": 1.3}
    for row, values in enumerate(distances[:, :sought]):
        if np.isfinite(values).any() and np.nanmin(values) < _UNRELATED:
            axes.add_patch(Rectangle((int(np.nanargmin(values)) - 0.47, row - 0.44), 0.94, 0.88, **look))
    axes.set_yticks(range(len(kernels)), list(map(plain, names)), fontsize=_SIZE)
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(layers)), list(map(plain, columns)), fontsize=_SIZE, **turned)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(note, fontsize=6.5)
    shrink = min(1.0, 1.6 / (_ROW * len(kernels) + 0.3))
    colour_bar(figure, image, axes, "angular CKA distance, rad", shrink=shrink, aspect=18, pad=0.01)
    return figure


@paper()
def beyond_labels(table: pd.DataFrame, kernels: Sequence[str], target: str, note: str = "") -> Figure:
    """A panel a kernel: the raw cosine with every layer, and the cosine that is left beside the labels.

    table: columns target, kernel, layer, cosine, beyond, low, high, beyond_corrected, null_low, null_high. kernels:
    those drawn, at most four. target: whose labels.

    Raises:
        InputError: the table has no row of a kernel.
    """
    drawn = list(kernels)[:_MOST_PANELS]
    parts: list[Any] = [table[(table["target"] == target) & (table["kernel"] == name)] for name in drawn]
    filled = len(parts) > 0 and not any(part.empty for part in parts)
    require(filled, f"the table has no rows of {drawn} and {target!r}; name kernels that it holds")
    layers = list(dict.fromkeys(name for part in parts for name in part["layer"]))
    names = [fit(name, 1.1, 6.5) for name in layers]
    figure = new_figure(DOUBLE, 1.15 + 0.19 * len(layers))
    panels = figure.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False)[0]
    for axes, part in zip(panels, parts, strict=True):
        _panel(axes, part, layers)
        axes.set_xlabel("cosine with the layer")
    room = (DOUBLE - max(width(name, 6.5) for name in names) - 0.5) / len(parts) - 0.2
    letter_all(panels, [plain(fit(kernel.replace("localization", "γ"), room, 8)) for kernel in drawn])
    panels[0].set_yticks(range(len(layers)), [plain(name) for name in names], fontsize=6.5)
    panels[0].invert_yaxis()
    legend_below(figure, note=note, columns=4)
    return figure


def _panel(axes: Axes, part: pd.DataFrame, layers: Sequence[str]) -> None:
    rows = np.array([layers.index(name) for name in part["layer"]], dtype=float)
    values: dict[str, Any] = {name: part[name].to_numpy(float) for name in part.columns if name in _NUMBERS}
    chance = {"height": 0.8, "color": FAINT, "label": "by chance (90 %)", "zorder": 1}
    axes.barh(rows, values["null_high"] - values["null_low"], left=values["null_low"], **chance)
    axes.axvline(0, color=MUTED, linewidth=0.6, zorder=1.5)
    axes.plot(values["cosine"], rows, "o", color=OKABE_ITO[5], markersize=4.5, label="raw", zorder=2)
    axes.hlines(rows, values["low"], values["high"], color=OKABE_ITO[3], linewidth=1.2, zorder=3)
    axes.plot(values["beyond"], rows, "D", color=OKABE_ITO[3], markersize=4, label="beyond the labels", zorder=3)
    look = {"color": INK, "markersize": 5, "markeredgewidth": 0.9}
    axes.plot(values["beyond_corrected"], rows, "|", label="the same without sampling noise", zorder=4, **look)
    axes.tick_params(axis="y", length=0)


@paper()
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
    limit of the noise, is an arrow at the bottom. exact: name -> γ [k] and angles [k] in closed form.
    failed: [n] kernels whose diagnosis fails, drawn hollow. note: in the panel.

    Raises:
        InputError: there is no localization, or numbers do not match.
    """
    gamma, raw = np.asarray(localizations, dtype=float), np.asarray(angles, dtype=float)
    fits = gamma.ndim == 1 and len(gamma) > 0 and raw.shape == gamma.shape
    require(fits, f"angles must be one a localization, got shapes {raw.shape} and {gamma.shape}")
    floor = None if floors is None else np.asarray(floors, dtype=float)
    clean = None if corrected is None else np.asarray(corrected, dtype=float)
    closed = exact or {}
    curves = [values for values in (raw, clean, floor, *(of for _, of in closed.values())) if values is not None]
    # the axis is logarithmic, so it must end above 0; below its end values are arrows
    lowest = min([_LEAST, *(float(values[values > 0].min()) for values in curves if (values > 0).any())]) / 1.6
    figure = new_figure(SINGLE, 2.9)
    axes = figure.subplots()
    if floor is not None:
        axes.fill_between(gamma, np.full_like(gamma, lowest), floor, color=FAINT, alpha=0.7, linewidth=0)
        axes.plot(gamma, floor, color=MUTED, linewidth=0.7, linestyle=":", label="noise floor")
    for (name, (at, values)), style in zip(closed.items(), cycle(("-", "--", "-."))):
        look: dict[str, Any] = {"linestyle": style, "marker": "^" if len(at) < _FEW else "", "markersize": 4}
        axes.plot(at, values, color=INK, linewidth=0.9, label=name, **look)
    bad = np.zeros(len(gamma), dtype=bool) if failed is None else np.asarray(failed, dtype=bool)
    look = {"color": OKABE_ITO[0], "markersize": 4, "zorder": 3}
    axes.plot(gamma, raw, linewidth=1.0, **look)
    axes.plot(gamma[~bad], raw[~bad], "o", label="sampled, raw", **look)
    if bad.any():
        axes.plot(gamma[bad], raw[bad], "o", label="its diagnosis fails", markerfacecolor="white", **look)
    if clean is not None:
        seen, look = clean > lowest, {"color": OKABE_ITO[3], "markersize": 4, "zorder": 3.5}
        axes.plot(gamma[seen], clean[seen], "s-", linewidth=1.0, label="without sampling noise", **look)
        if not seen.all():
            bottom = np.full((~seen).sum(), 1.15 * lowest)
            axes.plot(gamma[~seen], bottom, "v", clip_on=False, label="the same: 0 or less", **look)
    # the guide begins where angles are clear of the noise
    least = 0.0 if floor is None else 1.5 * floor
    _guide(axes, gamma, np.where(raw > least, raw, np.nan), lowest)
    axes.set(xscale="log", yscale="log", xlabel="localization γ", ylabel="angle to the loss gradients, rad")
    axes.set(ylim=(lowest, 2.2))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower left", borderaxespad=0.2, handlelength=1.6)
    axes.set_title(note, loc="right", fontsize=6.5, color=MUTED)
    return figure


def _guide(axes: Axes, gamma: np.ndarray, raw: np.ndarray, lowest: float) -> None:
    """Draw a line of slope -1 beside the angles above the noise; raw: [n], NaN elsewhere."""
    known = np.flatnonzero(np.isfinite(raw) & (raw < 0.3))
    if len(known):
        # parallel to the angles, and above them so that it hides none
        level = 1.5 * gamma[known[0]] * raw[known[0]]
        ends = np.array([max(gamma.min(), 0.5 * gamma[known[0]]), min(gamma.max(), level / lowest)])
        axes.plot(ends, level / ends, color=MUTED, linewidth=0.8, linestyle="-.", label="slope −1")


@paper()
def joint_training(table: pd.DataFrame, drawn: Sequence[str], target: str, note: str = "") -> Figure:
    """Over training: the distance to the labels, to the own trained point, and the angle between velocities.

    table: columns what, step, to_labels, to_end, velocity. drawn: what is drawn, the loss kernel first. target: name of
    the labels. Step 0, the untrained network, is drawn one gap left of the first step.

    Raises:
        InputError: the table has no row of something drawn.
    """
    parts: list[Any] = [table[table["what"] == name] for name in drawn]
    filled = len(parts) > 0 and not any(part.empty for part in parts)
    require(filled, f"the table has no rows of {list(drawn)}; name what it holds")
    panels = [("to_labels", f"distance to {plain(target)}, rad"), ("to_end", "distance to its own end, rad")]
    if any(part["velocity"].notna().any() for part in parts):
        panels.append(("velocity", "angle between velocities, rad"))
    steps = np.unique(table["step"].to_numpy(float))
    axis = Axis("training step", [f"{step:g}" for step in steps], list(steps))
    spots = dict(zip(steps, axis.positions, strict=True))
    figure = new_figure(DOUBLE, 2.75)
    for axes, (column, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for part, name, colour, marker in zip(parts, drawn, _COLOURS, _MARKERS, strict=False):
            leading = part is parts[0]
            look = {"color": colour, "marker": marker, "linewidth": 1.6 if leading else 1.0, "label": plain(name)}
            along = [spots[step] for step in part["step"]]
            axes.plot(along, part[column].to_numpy(float), markersize=3.5, zorder=3 if leading else 2, **look)
        if column == "velocity":
            axes.axhline(np.pi / 2, color=FAINT, linewidth=1.5, zorder=1)
            axes.set(ylim=(0, np.pi), yticks=[0, np.pi / 2, np.pi], yticklabels=["0", "π/2", "π"])
            for height, word in ((0.02, "alike"), (0.93, "opposed")):
                axes.text(0.02, height, word, transform=axes.transAxes, fontsize=6.5, color=MUTED)
        else:
            axes.set_ylim(0)
        axes.set_ylabel(label)
        axis.draw(axes, named=True, most=6)
    letter_all(figure.axes)
    legend_below(figure, note=note)
    return figure
