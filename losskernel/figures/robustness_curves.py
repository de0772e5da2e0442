"""How long predictions hold out against growing perturbations, by a score of the probes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from losskernel.errors import require
from losskernel.figures.shared.lettering import fit, legend_below
from losskernel.figures.shared.panels import new_figure
from losskernel.figures.shared.style import ALARM, DOUBLE, SEQUENTIAL, SINGLE, paper

_QUARTERS = ("lowest quarter", "second", "third", "highest quarter")
_TITLES = {"noise": "Gaussian noise", "adversarial": "adversarial steps"}
_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}  # notes
_AXES = {"noise": "sd of the noise / sd of the inputs", "adversarial": "largest change / sd of the inputs"}


@paper()
def flip_curves(
    kinds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    scores: Mapping[str, np.ndarray],
    notes: Mapping[tuple[str, str], str],
    marked: np.ndarray | None = None,
    marked_name: str = "mislabelled",
) -> Figure:
    """Share of predictions not flipped against the size of the perturbation, for the quarters of each score.

    A row of panels per score, a column per kind of perturbation. Bands are standard errors over probes.

    kinds: name -> (levels [L], shares of draws that flip [N, L]). scores: name -> [N]. notes: (score, kind) -> text in
    that panel. marked: [N] bool, probes with a curve of their own, or None.

    Raises:
        InputError: there is no kind or no score, or not one entry per probe and level.
    """
    require(bool(kinds and scores), "kinds and scores must not be empty; give one of each at least")
    count = len(next(iter(scores.values())))
    for name, values in scores.items():
        fits = np.shape(values) == (count,) and count >= len(_QUARTERS)
        require(fits, f"{name} must be one score for each of {count} probes, four at least; fix its shape")
    for name, (levels, shares) in kinds.items():
        fits = np.shape(shares) == (count, len(levels))
        require(fits, f"{name} must be shares [{count}, {len(levels)}], got {np.shape(shares)}; fix its shape")
    colours = [to_hex(colormaps[SEQUENTIAL](shade)) for shade in (0.88, 0.6, 0.35, 0.05)]
    width, keys = (DOUBLE, 0.55) if len(kinds) > 1 else (SINGLE, 0.95)
    figure = new_figure(width, keys + 1.8 * len(scores))
    panels = figure.subplots(len(scores), len(kinds), sharex="col", sharey=True, squeeze=False)
    for row, (score, values) in zip(panels, scores.items(), strict=True):
        # ties are split in the order of the probes
        quarters = np.array_split(np.argsort(values, kind="stable"), len(_QUARTERS))
        for axes, (kind, (levels, shares)) in zip(row, kinds.items(), strict=True):
            for quarter, name, colour in zip(quarters, _QUARTERS, colours, strict=True):
                _curve(axes, levels, shares[quarter], name, colour, "-")
            if marked is not None and marked.any():
                _curve(axes, levels, shares[marked], marked_name, ALARM, (0, (3, 1.5)))
            note = "\n".join(fit(line, 2.0, 7, 2) for line in notes.get((score, kind), "").splitlines())
            axes.text(0.98, 0.97, note, ha="right", va="top", fontsize=7, transform=axes.transAxes, bbox=_BEHIND)
            # What lies beyond the size at which all but a hundredth flip is one flat line.
            gone = np.flatnonzero(shares.mean(axis=0) > 0.99)
            axes.set_xlim(0, levels[gone[0]] if gone.size else levels[-1])
        row[0].set_ylabel(f"share not flipped\n(quarters of {score.replace('_', '-')})")
    for above, below, kind in zip(panels[0], panels[-1], kinds, strict=True):
        above.set_title(_TITLES.get(kind, kind))
        below.set_xlabel(_AXES.get(kind, f"size of {kind}"))
    panels[0, 0].set_ylim(0, 1.03)
    title = "quarters by each score; ρ > 0: high scores flip first"
    legend_below(figure, title=title, columns=5 if len(kinds) > 1 else 2)
    return figure


def _curve(axes: Axes, levels: np.ndarray, shares: np.ndarray, name: str, colour: str, style: Any) -> None:
    """One minus the mean of shares [n, L] against the levels, from 1 at no perturbation, with its standard error."""
    sizes = np.concatenate([[0.0], levels])
    left = np.concatenate([[1.0], 1 - shares.mean(axis=0)])
    spread = shares.std(axis=0, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.zeros(len(levels))
    error = np.concatenate([[0.0], spread])
    axes.fill_between(sizes, left - error, np.minimum(left + error, 1), color=colour, alpha=0.2, linewidth=0)
    axes.plot(sizes, left, color=colour, linestyle=style, linewidth=1.3, label=name)
