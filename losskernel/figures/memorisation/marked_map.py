"""A map of the probes on which those with a fault stand out from their classes."""

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.shared.lettering import fit, width
from losskernel.figures.shared.style import DOUBLE, INK, MUTED, SINGLE, paper

_RASTERISE = 3000  # a PDF with more vector points than this opens slowly
_MOST_NAMED = 32  # classes in a legend; of more, colours say nothing
_SIZE = 6.5  # points
_PALE = 0.55


def marked_map(
    xy: np.ndarray, groups: np.ndarray, marked: np.ndarray | None, group_name: str, marked_name: str = "mislabelled"
) -> Figure:
    """Probes in the plane, pale in the colour of their group; marked ones on top, framed and in the full colour.

    xy: [N, 2], in arbitrary units. groups: [N]. marked: [N] bool, or None.

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    xy = np.asarray(xy, dtype=float)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) == 0 or not np.isfinite(xy).all():
        raise ValueError(f"xy must be [N, 2], finite and not empty, got {xy.shape}; pass one row per probe")
    chosen = np.zeros(len(xy), dtype=bool) if marked is None else np.asarray(marked, dtype=bool)
    if chosen.shape != (len(xy),):
        raise ValueError(f"marked must be [{len(xy)}], got {chosen.shape}; pass one per probe")
    colouring = colour_by(groups, "groups", len(xy))
    named = colouring.scale is not None or len(colouring.names) <= _MOST_NAMED
    rgba = colouring.rgba if named else np.tile(to_rgba(MUTED), (len(xy), 1))
    size = float(np.clip(4000 / len(xy), 1.5, 14.0))
    order = np.random.default_rng(0).permutation(len(xy))  # in the given order the last group would cover the others
    with paper():
        figure = Figure(figsize=(DOUBLE * 0.72, SINGLE), layout="constrained")
        axes = figure.subplots()
        plain, above = order[~chosen[order]], order[chosen[order]]
        raster = len(xy) > _RASTERISE
        axes.scatter(*xy[plain].T, s=size, c=rgba[plain], alpha=_PALE, linewidths=0, rasterized=raster)
        axes.scatter(
            *xy[above].T,
            s=np.clip(1.6 * size, 7.0, 20.0),
            c=rgba[above],
            edgecolors=INK,
            linewidths=0.7,
            marker="D",
            rasterized=raster,
        )
        axes.set(xticks=[], yticks=[], xlabel="map axis 1", ylabel="map axis 2")
        axes.set_aspect("equal", adjustable="datalim")
        handles = _marks(int(chosen.sum()), marked_name)
        if colouring.scale is not None:
            figure.colorbar(colouring.scale, ax=axes, shrink=0.6, label=group_name).ax.spines[:].set_visible(False)
        elif named:
            handles += _groups(colouring, group_name)
        else:
            handles.append(Line2D([], [], linestyle="", label=f"{len(colouring.names):,} values of {group_name}"))
        if handles:
            figure.legend(
                handles=handles, loc="outside right upper", fontsize=_SIZE, handletextpad=0.3, ncols=_columns(handles)
            )
    return figure


def _marks(count: int, name: str) -> list[Line2D]:
    if count == 0:
        return []
    style = {"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": INK}
    return [Line2D([], [], linestyle="", label=f"{name} ({count:,})", markeredgewidth=0.7, **style)]


def _groups(colouring: Colouring, name: str) -> list[Line2D]:
    title = Line2D([], [], linestyle="", label=fit(f"{name}:", 1.2, _SIZE))
    entries = colouring.handles(4.0)
    for entry in entries:
        entry.set_label(fit(str(entry.get_label()), 1.2, _SIZE))
    return [title, *entries]


def _columns(handles: list[Line2D]) -> int:
    widest = max(width(str(each.get_label()), _SIZE) for each in handles)
    return 2 if len(handles) > 18 and widest < 0.75 else 1
