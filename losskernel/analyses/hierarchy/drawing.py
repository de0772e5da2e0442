"""Figures of a comparison with a taxonomy."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from losskernel import figures
from losskernel.analyses.hierarchy.kernels import Comparison
from losskernel.analyses.hierarchy.rivals import LABELS, RANDOM
from losskernel.analyses.hierarchy.summary import noise_floor

# What the views of the loss kernel are called.
_NAMES = {"coupling": "coupling R²", "abs_r": "|R|"}
# Pairs of each relation whose R is drawn.
_PAIRS = 5_000
_COLUMNS = ("spearman_classes", "partial", "knn", "ami", "dendrogram_purity")


def drawn(comparison: Comparison, table: pd.DataFrame, distance_label: str) -> dict[str, Figure]:
    """Return the figures; that of relations only where there is a coupling with errors.

    table: a row per kernel.
    """
    best = comparison.own[0]
    found = {
        "hierarchy_matrices": figures.matrix_pair(
            comparison.views[best].means,
            comparison.distance,
            comparison.classes.tree,
            _NAMES[best],
            distance_label,
        ),
        "hierarchy_kernels": figures.kernel_comparison(table, [name for name in _COLUMNS if name in table]),
        "hierarchy_neighbours": _neighbours(comparison),
    }
    if "relation 1_low" in comparison.scores.get("coupling", {}):
        found["hierarchy_relatedness"] = _relatedness(comparison)
    return found


def _neighbours(comparison: Comparison) -> Figure:
    """k-NN precision at every level, beside chance; errors over chains."""
    levels = comparison.classes.levels
    curves: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    for name, score in comparison.scores.items():
        if name not in ("r", LABELS, RANDOM):
            curves[name] = np.array([score[f"knn {level.name}"] for level in levels])
            errors[name] = np.array([score.get(f"knn {level.name}_se", 0.0) for level in levels])
    names = [f"{level.name}\n({level.groups.max() + 1})" for level in levels]
    ylabel = "share of nearest neighbours\nin the same group"
    return figures.depth_profile(names, curves, errors, comparison.judge.chance(), ylabel)


def _relatedness(comparison: Comparison) -> Figure:
    """R and coupling by relation."""
    score, relations = comparison.scores["coupling"], comparison.classes.relations
    present = [number for number in range(len(relations)) if f"relation {number}" in score]
    value, low, high = (
        np.array([score[f"relation {number}{end}"] for number in present]) for end in ("", "_low", "_high")
    )
    floor = noise_floor(comparison.part[0])["noise_floor"]
    names = [relations[number] for number in present]
    return figures.relatedness(names, _correlations(comparison, present), value, low, high, floor)


def _correlations(comparison: Comparison, relations: list[int]) -> list[np.ndarray]:
    """R of some pairs of different probes of each relation."""
    kernel, classes = comparison.part
    rng = np.random.default_rng(comparison.seed)
    first, second = np.triu_indices(kernel.probes, 1)
    kinship = classes.kinship[classes.leaf[first], classes.leaf[second]]
    values = kernel.correlation()[first, second]
    parts = [values[kinship == relation] for relation in relations]
    return [part if len(part) <= _PAIRS else rng.choice(part, _PAIRS, replace=False) for part in parts]
