"""Maps of the probes at several stages, on which a probe keeps its place as far as its neighbours let it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from losskernel.figures.shared.colouring import colour_by
from losskernel.figures.shared.presentation import VERDICTS
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, paper

_MOST = 8
_COLUMNS = 4
_LEGEND = 32  # names that a legend can hold


def aligned_maps(
    layouts: np.ndarray, labels: np.ndarray, label_name: str, titles: Sequence[str], verdicts: Sequence[str]
) -> Figure:
    """At most eight of the maps, evenly chosen, the first and the last among them, on one scale.

    A map whose kernel does not pass its diagnosis says so in its title.

    layouts: [P, N, 2]. labels: [N]. titles, verdicts: [P].

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    layouts = checked(layouts, titles)
    if len(verdicts) != len(titles):
        raise ValueError(f"verdicts must be one per map, got {len(verdicts)} for {len(titles)} maps")
    colouring = colour_by(labels, "labels", layouts.shape[1])
    chosen = np.unique(np.linspace(0, len(layouts) - 1, min(_MOST, len(layouts))).round().astype(int))
    columns = min(_COLUMNS, len(chosen))
    lines = -(-len(chosen) // columns)
    order = np.random.default_rng(0).permutation(layouts.shape[1])  # or the last group would cover the others
    low, high = layouts.min(axis=(0, 1)), layouts.max(axis=(0, 1))
    reach = 0.53 * float((high - low).max()) or 1.0
    with paper():
        figure = Figure(figsize=(DOUBLE * columns / _COLUMNS, 1.95 * lines + 0.5), layout="constrained")
        panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
        for axes, number in zip(panels, chosen, strict=False):
            points = layouts[number][order]
            size = float(np.clip(1500 / len(points), 0.6, 8.0))
            axes.scatter(*points.T, s=size, c=colouring.rgba[order], linewidths=0, alpha=0.85, rasterized=True)
            centre = (low + high) / 2
            axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.spines[:].set(visible=True, color=FAINT)
            look = VERDICTS[str(verdicts[number])]
            doubted = verdicts[number] != "pass"
            title = f"{titles[number]} ({look.word})" if doubted else titles[number]
            axes.set_title(title, fontsize=7, pad=3, color=look.colour if doubted else INK)
        for axes in panels[len(chosen) :]:
            axes.set_visible(False)
        if colouring.scale is not None:
            bar = figure.colorbar(colouring.scale, ax=list(panels), location="bottom", shrink=0.5, aspect=40, pad=0.02)
            bar.set_label(label_name)
            bar.ax.spines[:].set_visible(False)
        elif len(colouring.names) <= _LEGEND:
            letters = max(map(len, [*colouring.names, "1234"])) + 3
            ncols = max(1, min(len(colouring.names), int(110 * columns / _COLUMNS) // letters))
            look = {"title_fontsize": 7, "columnspacing": 1.0, "handletextpad": 0.1}
            figure.legend(
                handles=colouring.handles(), title=label_name, loc="outside lower center", ncols=ncols, **look
            )
        else:
            figure.supxlabel(f"colours: {len(colouring.names)} values of {label_name}", fontsize=7)
    return figure


def checked(layouts: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """Return maps [P, N, 2] as floats.

    Raises:
        ValueError: they are not that, not one per title, or not finite.
    """
    layouts = np.asarray(layouts, dtype=float)
    if layouts.ndim != 3 or layouts.shape[2] != 2 or 0 in layouts.shape:
        raise ValueError(f"layouts must be [P, N, 2], not empty, got {layouts.shape}; pass one map per stage")
    if len(titles) != len(layouts):
        raise ValueError(f"titles must be one per map, got {len(titles)} for {len(layouts)} maps")
    if not np.isfinite(layouts).all():
        raise ValueError("layouts must be finite, got NaN or infinity; drop those probes first")
    return layouts
