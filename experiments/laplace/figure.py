"""The figure of the study, from results.csv and pairs.npz."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losskernel.figures.shared.style import DOUBLE, FAINT, INK, MUTED, OKABE_ITO, paper

LOOKS = {
    "order 2": ("Laplace, order 2", OKABE_ITO[0], "o", "-"),
    "order 1": ("Laplace, order 1", OKABE_ITO[1], "s", "-"),
    "Gaussian draws": ("Gaussian draws, true losses", OKABE_ITO[2], "^", "--"),
}
AXIS = "localization γ (nats / weight²)"
PANELS = {
    "narrow": ("toy, γ = 10⁵: narrow", "toy", 1e5),
    "singular": ("toy, γ = 1: singular", "toy", 1.0),
    "digits": ("digits, γ = 300 (recipe)", "digits", 300.0),
}


def draw(folder: Path) -> None:
    """Write laplace.png beside the results."""
    results, pairs = pd.read_csv(folder / "results.csv"), np.load(folder / "pairs.npz")
    toy = results[results["study"] == "toy"]
    with paper():
        figure = Figure(figsize=(DOUBLE, 4.5), layout="constrained")
        axes = figure.subplots(2, 3)
        figure.get_layout_engine().set(wspace=0.06, hspace=0.05)  # pyright: ignore
        _disagreements(axes[0, 0], toy)
        _traces(axes[0, 1], toy)
        _gains(axes[0, 2], toy)
        for place, (name, about) in zip(axes[1], PANELS.items(), strict=True):
            _scatter(place, pairs[name], results, *about)
        for place, letter in zip(axes.flat, "abcdef", strict=True):
            place.set_title(letter, loc="left", fontweight="bold", fontsize=9)
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=4, columnspacing=1.4)
        figure.savefig(folder / "laplace.png")


def _over_localization(axes: Axes, toy: pd.DataFrame, label: str) -> None:
    """A logarithmic axis over localization with the curvature of the loss marked on it."""
    axes.axvline(toy["sharpest"].iloc[0], color=MUTED, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
    axes.annotate(
        "nβλ$_{max}$",
        (toy["sharpest"].iloc[0], 1),
        (2, 1),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        fontsize=6,
        color=MUTED,
        va="bottom",
        ha="center",
    )
    axes.set_xscale("log")
    axes.set_xlabel(AXIS)
    axes.set_ylabel(label)


def _curves(axes: Axes, toy: pd.DataFrame, name: str) -> None:
    for reference, (label, colour, marker, style) in LOOKS.items():
        rows = toy[toy["reference"] == reference]
        axes.errorbar(
            rows["localization"],
            rows[name],
            2 * rows[f"{name}_se"],
            color=colour,
            marker=marker,
            linestyle=style,
            markersize=2.8,
            elinewidth=0.7,
            label=label,
        )


def _disagreements(axes: Axes, toy: pd.DataFrame) -> None:
    rows = toy[toy["reference"] == "order 2"]
    floor = 1 - rows["correlation_ceiling"]
    axes.plot(rows["localization"], floor, color=INK, linewidth=0.8, label="Monte-Carlo floor")
    _curves(
        axes, toy.assign(disagreement=1 - toy["correlation"], disagreement_se=toy["correlation_se"]), "disagreement"
    )
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.5)
    _over_localization(axes, toy, "1 − correlation of R\nwith SGLD's")


def _traces(axes: Axes, toy: pd.DataFrame) -> None:
    axes.axhline(1, color=FAINT, linewidth=0.6, zorder=0)
    _curves(axes, toy, "trace_ratio")
    axes.set_yscale("log")
    _over_localization(axes, toy, "trace of K:\nSGLD / reference")


def _gains(axes: Axes, toy: pd.DataFrame) -> None:
    rows = toy[toy["reference"] == "order 2"]
    axes.plot(rows["localization"], rows["gain"], color=OKABE_ITO[0], marker="o", markersize=2.8, label="Laplace")
    axes.errorbar(
        rows["localization"],
        rows["chain_gain"],
        2 * rows["chain_gain_se"],
        color=OKABE_ITO[3],
        marker="D",
        markersize=2.8,
        elinewidth=0.7,
        label="SGLD",
    )
    axes.legend(loc="upper right")
    _over_localization(axes, toy, "rise of the training loss,\nnβ (E L − L*) (nats)")


def _scatter(axes: Axes, pair: np.ndarray, results: pd.DataFrame, title: str, study: str, localization: float) -> None:
    """R of pairs of probes: the Laplace kernel's, and SGLD's."""
    rows = results[(results["study"] == study) & np.isclose(results["localization"], localization)]
    row = rows[rows["reference"] == "order 2"].iloc[0]
    axes.plot([-1, 1], [-1, 1], color=MUTED, linewidth=0.6, zorder=3)
    axes.scatter(*pair, s=3, color=OKABE_ITO[0], alpha=0.25, linewidths=0, rasterized=True)
    axes.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), xticks=[-1, 0, 1], yticks=[-1, 0, 1], box_aspect=1)
    text = f"correlation {row['correlation']:.3f}\n(ceiling {row['correlation_ceiling']:.3f})"
    axes.text(0.98, 0.04, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=7)
    axes.set_title(title)
    axes.set_xlabel("R of a pair, Laplace order 2")
    axes.set_ylabel("R of a pair, SGLD")


if __name__ == "__main__":
    draw(Path(__file__).parent)
