"""Scores of suspicion beside each other: where the probes with wrong labels stand among all."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from losskernel.figures.shared.lettering import fit
from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper

_ROW = 0.32  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.25, 1.1, 0.3, 0.45
_OVERLAP = 1.15  # height of a ridge in rows
_GRID = 400
_BANDWIDTH = 0.012  # of the axis
_MOST_TICKS = 60  # of single probes below a ridge
_RIGHT_LABEL, _WRONG_LABEL = OKABE_ITO[5], OKABE_ITO[3]


def score_distributions(
    scores: Mapping[str, np.ndarray],
    marked: np.ndarray | None = None,
    notes: Mapping[str, str] | None = None,
    note_name: str = "AUROC",
    marked_name: str = "mislabelled",
) -> Figure:
    """A row per score: its distribution over marked and over all other probes, each of the same area.

    The axis shows (score - median) / scale, the scale being that of a normal distribution with the same quartiles, and
    is linear near 0 and logarithmic far from it, for scores may have tails of hundreds of deviations.

    scores: name -> [N], in the order of the rows. marked: [N] bool, or None for one colour. notes: name -> what stands
    at the right of its row, below note_name.

    Raises:
        ValueError: no scores, a shape is wrong, or a score is not finite.
    """
    rows = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    count = len(next(iter(rows.values()), []))
    for name, values in rows.items():
        if values.shape != (count,) or not np.isfinite(values).all():
            raise ValueError(f"scores[{name!r}] must be finite [{count}], got {values.shape}; drop what is not finite")
    if count == 0:
        raise ValueError("scores must name at least one score of at least one probe, got none; pass name -> [N]")
    chosen = None if marked is None else np.asarray(marked, dtype=bool)
    if chosen is not None and chosen.shape != (count,):
        raise ValueError(f"marked must be [{count}], got {chosen.shape}; pass one per probe")
    places = {name: np.arcsinh(standardised(values)) for name, values in rows.items()}
    low = min(values.min() for values in places.values())
    high = max(values.max() for values in places.values())
    room = 0.04 * (high - low) or 1.0
    grid = np.linspace(low - room, high + room, _GRID)
    with paper():
        height = _TOP + _ROW * (len(rows) + _OVERLAP - 1) + _BOTTOM
        figure = Figure(figsize=(DOUBLE, height))
        axes = figure.add_axes(
            (
                _LEFT / DOUBLE,
                _BOTTOM / height,
                (DOUBLE - _LEFT - _RIGHT) / DOUBLE,
                (height - _TOP - _BOTTOM) / height,
            )
        )
        for row, (name, values) in enumerate(places.items()):
            base = len(rows) - 1.0 - row
            axes.axhline(base, color=FAINT, linewidth=0.5, zorder=row * 4)
            _ridge(axes, grid, values if chosen is None else values[~chosen], base, _RIGHT_LABEL, row * 4 + 1)
            if chosen is not None and chosen.any():
                _ridge(axes, grid, values[chosen], base, _WRONG_LABEL, row * 4 + 2)
            axes.text(-0.015, base, _shown(name), transform=axes.get_yaxis_transform(), ha="right", va="bottom")
            note = (notes or {}).get(name, "")
            axes.text(1.02, base, note, transform=axes.get_yaxis_transform(), ha="left", va="bottom", fontsize=7)
        if notes:
            axes.text(1.02, 1.01, note_name, transform=axes.transAxes, color=MUTED, fontsize=7, va="bottom")
        axes.set(xlim=(grid[0], grid[-1]), ylim=(-0.08, len(rows) + _OVERLAP - 1), yticks=[])
        axes.spines[["left"]].set_visible(False)
        _ticks(axes, grid)
        axes.set_xlabel("score, in robust standard deviations from the median; more suspicious to the right")
        names = ["all probes"] if chosen is None else ["other probes", marked_name]
        colours = (_RIGHT_LABEL, _WRONG_LABEL)
        handles = [Patch(facecolor=to_rgba(c, 0.5), edgecolor=c, label=n) for n, c in zip(names, colours, strict=False)]
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderpad=0.2)
    return figure


def standardised(values: np.ndarray) -> np.ndarray:
    """Return (values - median) / scale [N]; the scale is that of the quartiles, or of all where most are equal."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    scale = (high - low) / 1.349 or float(np.std(values)) or 1.0
    return (values - middle) / scale


def _ridge(axes: Axes, grid: np.ndarray, values: np.ndarray, base: float, colour: str, order: int) -> None:
    """Draw a smoothed histogram as high as a row, and of few values each one."""
    width = _BANDWIDTH * (grid[-1] - grid[0])
    edges = np.concatenate([grid - (grid[1] - grid[0]) / 2, [grid[-1] + (grid[1] - grid[0]) / 2]])
    counts, _ = np.histogram(np.clip(values, grid[0], grid[-1]), edges)
    steps = np.arange(-4 * width, 4 * width + 1e-12, grid[1] - grid[0])
    density = np.convolve(counts, np.exp(-0.5 * np.square(steps / width)), mode="same")
    ridge = base + 0.95 * density / density.max()
    axes.fill_between(grid, base, ridge, color=to_rgba(colour, 0.5), linewidth=0, zorder=order)
    axes.plot(grid, ridge, color=colour, linewidth=0.8, zorder=order)
    if len(values) <= _MOST_TICKS:
        axes.vlines(values, base, base + 0.12, color=colour, linewidth=0.6, zorder=order + 1)


def _ticks(axes: Axes, grid: np.ndarray) -> None:
    """Name as many powers of ten as there are, and the smallest numbers where they do not touch."""
    numbers = np.concatenate(
        [[0.0], *[sign * np.array([1.0, 3.0]) * 10.0**power for sign in (-1, 1) for power in range(9)]]
    )
    inside = np.sort(numbers[(np.arcsinh(numbers) > grid[0]) & (np.arcsinh(numbers) < grid[-1])])
    if len(inside) > 11:
        inside = inside[[not str(abs(number)).startswith("3") for number in inside]]
    axes.set_xticks(np.arcsinh(inside), [f"{number:,.0f}".replace("-", "−") for number in inside], color=INK)


def _shown(name: str) -> str:
    return fit(name.replace("_", " "), _LEFT - 0.2, 8)
