"""How alike probes are within a group and across groups."""

import numpy as np
from matplotlib.figure import Figure

from losskernel.figures.shared.style import INK, MUTED, OKABE_ITO, SINGLE, paper

_BINS = 60


def within_across(
    within: np.ndarray,
    across: np.ndarray,
    floor: float | None = None,
    value_label: str = "|R|",
    group_name: str = "task",
) -> Figure:
    """The values of pairs within one group and of pairs across groups, on one axis, with their means.

    within: [A]. across: [B]. floor: the mean that sampling noise alone would give, drawn dashed. The axis is
    logarithmic when all values are positive and spread over more than a factor of 30; then the density is per
    decade, so that areas still compare.

    Raises:
        ValueError: an array is not one-dimensional, is empty, or holds a value that is not finite.
    """
    samples = {"within": np.asarray(within, dtype=float), "across": np.asarray(across, dtype=float)}
    for name, values in samples.items():
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"{name} must be [pairs], not empty, got {values.shape}; pass a flat array of values")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity; drop those pairs first")
    pooled = np.concatenate(list(samples.values()))
    low, high = np.percentile(pooled, [0.5, 99.5])
    logarithmic = bool(pooled.min() > 0 and high > 30 * low)
    if logarithmic:
        edges = np.geomspace(low, pooled.max(), _BINS + 1)
    else:
        edges = np.linspace(pooled.min(), max(pooled.max(), pooled.min() + 1e-12), _BINS + 1)
    widths = np.diff(np.log10(edges) if logarithmic else edges)

    with paper():
        figure = Figure(figsize=(SINGLE, 2.3), layout="constrained")
        axes = figure.subplots()
        means = {name: float(values.mean()) for name, values in samples.items()}
        lower = min(means, key=lambda name: means[name])
        looks = (("same", OKABE_ITO[3]), ("different", OKABE_ITO[0]))
        for (name, values), (relation, colour) in zip(samples.items(), looks, strict=True):
            density = np.histogram(values, edges)[0] / (values.size * widths)
            axes.stairs(density, edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(density, edges, color=colour, linewidth=1.0, label=f"{relation} {group_name}")
            axes.axvline(means[name], color=colour, linewidth=1.0, ymax=1.0)
            # The two means' texts lean away from each other, so they never meet.
            axes.annotate(
                f"mean {means[name]:.2g}",
                (means[name], 1),
                (-2 if name == lower else 2, 2),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="right" if name == lower else "left",
                color=colour,
                fontsize=7,
            )
        if floor is not None:
            label = f"Monte-Carlo floor {floor:.2g}"
            axes.axvline(floor, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label=label)
        if logarithmic:
            axes.set_xscale("log")
        elif pooled.min() < 0 < pooled.max():
            axes.axvline(0, color=MUTED, linewidth=0.5, zorder=0)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0)
        axes.set_xlabel(f"{value_label} of a pair of probes")
        axes.set_ylabel("density (per decade)" if logarithmic else "density")
        figure.legend(loc="outside lower center", ncols=3, columnspacing=1.0, handletextpad=0.4)
    return figure
