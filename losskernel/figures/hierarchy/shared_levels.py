"""Coupling of two probes by the finest level of a hierarchy that they share."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from losskernel.figures.shared.style import MUTED, OKABE_ITO, SINGLE, paper

if TYPE_CHECKING:
    import pandas as pd


def shared_levels(table: "pd.DataFrame") -> Figure:
    """A point with its 90 % interval for every level, from pairs that share none up.

    table: columns shared, pairs, coupling, and low and high where an error is known.
    """
    places = np.arange(len(table))
    coupling = table["coupling"].to_numpy(float)
    with paper():
        figure = Figure(figsize=(SINGLE, 2.4), layout="constrained")
        axes = figure.subplots()
        low, high = (table[end].to_numpy(float) for end in ("low", "high"))
        axes.vlines(places, low, high, color=OKABE_ITO[0], linewidth=1.2)
        axes.plot(places, coupling, "o", color=OKABE_ITO[0], markersize=4.5)
        axes.axhline(0, color=MUTED, linewidth=0.6)
        # Levels differ by orders of magnitude, and an estimate without floor may fall below 0.
        axes.set_yscale("symlog", linthresh=max(float(np.abs(coupling).min()), 1e-5))
        axes.set_ylim(min(2 * float(low.min()), 0), 3 * float(high.max()))
        axes.yaxis.set_minor_formatter(NullFormatter())
        names = [
            f"{str(name).replace('_', ' ')}\n{pairs:,}"
            for name, pairs in zip(table["shared"], table["pairs"], strict=True)
        ]
        axes.set_xticks(places, names, fontsize=6.5)
        axes.set_xlim(-0.5, len(table) - 0.5)
        axes.set_xlabel("finest level that two probes share\n(pairs of different classes beneath)")
        axes.set_ylabel("mean coupling R²")
    return figure
