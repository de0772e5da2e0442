"""Does the kernel follow a known taxonomy of the classes, and does it say more than features do?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.hierarchy.comparison import LABELS, RANDOM, Comparison, HierarchySettings, summary, with_ends
from losskernel.analyses.hierarchy.taxonomy_scores import LEVEL_NUMBERS, Score
from losskernel.analyses.rank_tests import spearman, upper
from losskernel.analyses.result import MetricPanel, Result, check_settings
from losskernel.analyses.taxonomy_classes import Level
from losskernel.data.taxonomy import MEASURES
from losskernel.errors import require
from losskernel.figures.shared.style import INK
from losskernel.kernel import LossKernel, noise_floor
from losskernel.traces.loss_traces import LossTraces

# Numbers of a kernel that belong to no level.
_PLAIN = (
    *("spearman_classes", "kendall_classes", "spearman_images", "kendall_images"),
    *("partial", "reverse", "cophenetic", "tree_fit"),
)
# How figures name the loss kernel's similarities.
_NAMES = {"coupling": "coupling R²", "abs_r": "|R|"}
# Pairs of each relation whose R is drawn.
_PAIRS = 5_000
_COLUMNS = ("spearman_classes", "partial", "knn", "ami", "dendrogram_purity")


@dataclass(frozen=True)
class Hierarchy(HierarchySettings):
    """Compare coupling, |R| and R, and other kernels over the same probes, with distances in a taxonomy.

    Sibling classes compete for probability, so that R between them is often below 0: relatedness shows in the
    coupling (R² without noise floor), not in R. Correlations are positive where the kernel agrees with the taxonomy;
    their p-values permute classes (Mantel), their errors are over chains. Pairs within a class are left out of them.
    Clusters and trees are compared at the level whose number of groups is nearest to √classes; tables hold all levels.
    """

    controlled: ClassVar[bool] = True
    objective: ClassVar[str] = "spearman_classes_coupling"
    headline: ClassVar[dict[str, str]] = {
        "spearman_classes_coupling": "coupling and hierarchy (Spearman)",
        "spearman_classes_coupling_p": "  p of the Mantel test",
        "partial_coupling": "  features held fixed",
        "spearman_classes_penultimate": "  of penultimate features",
        "leading_levels_apart": "levels apart, from the closest",
    }
    panel: ClassVar[tuple[MetricPanel, ...]] = (
        MetricPanel("coupling and hierarchy (Spearman)", (("spearman_classes_coupling", "", INK),)),
    )
    meanings: ClassVar[dict[str, str]] = {
        "spearman_classes_{kernel}_p": "one-sided Mantel p of spearman_classes_{kernel}, classes permuted; 0 to 1",
        "partial_{kernel}_p": "one-sided p of partial_{kernel}, classes permuted; 0 to 1",
        "reverse_{kernel}_p": "one-sided p of reverse_{kernel}, classes permuted; 0 to 1",
        "spearman_classes_{kernel}": "rank correlation over pairs of classes of {kernel} and nearness; -1 to 1",
        "kendall_classes_{kernel}": "Kendall's tau over pairs of classes of {kernel} and nearness; -1 to 1",
        "spearman_images_{kernel}": "rank correlation over pairs of probes of {kernel} and nearness; -1 to 1",
        "kendall_images_{kernel}": "Kendall's tau over pairs of probes of {kernel} and nearness; -1 to 1",
        "partial_{kernel}": "rank correlation of {kernel} and nearness in the taxonomy, features held fixed; -1 to 1",
        "reverse_{kernel}": "rank correlation of features and nearness in the taxonomy, {kernel} held fixed; -1 to 1",
        "reliability_{kernel}": "rank correlation of {kernel}'s class means with another run's, from halves; up to 1",
        "ceiling_{kernel}": "spearman_classes_{kernel} as it would be without Monte-Carlo noise; -1 to 1",
        "draws_to_double_{kernel}": "draws of all chains that would double spearman_classes_{kernel}; a count",
        "{kernel}_same_class": "mean {kernel} over pairs of probes of the same class",
        "{kernel}_depth_{depth}": (
            "mean {kernel} over pairs of probes whose classes first meet at depth {depth} of the taxonomy, "
            "the root being 0"
        ),
        "knn": "share of a probe's nearest that are in its group at the middle level; 0 to 1",
        "ami": "adjusted mutual information of clusters and groups at the middle level; 0 by chance, 1 the same",
        "nmi": "normalised mutual information of clusters and groups at the middle level; 0 to 1, above 0 by chance",
        "purity": "share of members in their cluster's commonest group at the middle level; 0 to 1, above 0 by chance",
        "dendrogram_purity": "mean purity of the smallest branches that join two of a group, middle level; 0 to 1",
        "cophenetic": "correlation of heights in the class tree and distances in the taxonomy; -1 to 1",
        "tree_fit": "correlation of heights in the class tree and the kernel itself: how well a tree suits it; -1 to 1",
        "monotone": "1 where the kernel's mean falls with every step up the taxonomy, else 0",
        "levels_apart": "neighbouring levels whose means have disjoint 90 % intervals; a count",
        "leading_levels_apart": "levels apart from the same class onwards, before two first overlap; a count",
        "noise_floor": "mean |R| of pairs of probes by Monte-Carlo noise alone; 0 to 1",
        "classes": "classes of the probes; a count",
        "probes": "probes; a count",
    }

    def __post_init__(self) -> None:
        known = ", ".join(MEASURES)
        require(self.measure in MEASURES, f"analysis.hierarchy.measure must be one of {known}, got {self.measure!r}")
        least = {"permutations": 1, "neighbours": 1, "limit": 10}
        check_settings(self, "hierarchy", ("label", "taxonomy", "features"), least)

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return correlations, tests and levels, tables of all kernels, and the figures."""
        classes = self.classes(kernel.label(self.label))
        comparison = Comparison(kernel, traces, classes, classes.distance(self.measure), self)
        tables = {
            "hierarchy_kernels": kernels_table(comparison),
            "hierarchy_levels": relations_table(comparison),
            "hierarchy_profiles": profiles_table(comparison),
            "hierarchy_measures": measures_table(comparison),
        }
        source = "WordNet" if self.taxonomy == "wordnet" else "taxonomy"
        distance_label = f"{source} {self.measure.replace('_', ' ')} distance"
        return Result(summary(comparison), tables, _figures(comparison, tables["hierarchy_kernels"], distance_label))


def kernels_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row per kernel, of its tests and of neighbours and clusters at the middle level.

    What is undefined for a kernel stays empty.
    """
    level = comparison.classes.middle
    rows: list[dict[str, Any]] = []
    for name, score in comparison.scores.items():
        row: dict[str, Any] = {"kernel": name}
        for number in _PLAIN:
            test = comparison.tests[name].get(number)
            row |= with_ends(score, number)
            if test is not None:
                row |= {number: test.correlation, f"{number}_p": test.p}
                row |= {f"{number}_null_low": test.low, f"{number}_null_high": test.high}
        row |= _of_level(score, level)  # the middle one; tables of levels have all
        rows.append(row | {"level": level.name} | comparison.reliability.get(name, {}))
    # A column that no kernel has, as `partial` without features, is left out.
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def profiles_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row per kernel and level: neighbours and clusters."""
    levels = list(zip(comparison.classes.levels, comparison.scorer.chance(), strict=True))
    rows: list[dict[str, Any]] = []
    for name, score in comparison.scores.items():
        for level, chance in levels:
            row = {"kernel": name, "level": level.name, "groups": level.size}
            rows.append(row | _of_level(score, level) | {"knn_chance": chance})
    return pd.DataFrame(rows)


def relations_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row per relation, from the same class to the farthest: mean similarities of the loss kernel.

    Beside them neighbours and clusters of its best similarity, at the level whose groups are so related.
    """
    classes, names, scores = comparison.classes, comparison.kernel_names, comparison.scores
    levels = list(zip(classes.levels, comparison.scorer.chance(), strict=True))
    rows: list[dict[str, Any]] = []
    for number, relation in enumerate(classes.relations):
        related = classes.kinship == number
        row: dict[str, Any] = {"relation": relation, "pairs": int(classes.weights[related].sum()) // 2}
        for name in names:
            row |= with_ends(scores[name], f"relation {number}", name)
        if number < len(levels):
            level, chance = levels[number]
            row |= {"groups": level.size, "knn_chance": chance} | _of_level(scores[names[0]], level)
        rows.append(row)
    return pd.DataFrame(rows)


def measures_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row per measure of the taxonomy, a column per kernel: rank correlations over pairs of classes."""
    rows: list[dict[str, Any]] = []
    for measure in MEASURES:
        distance = upper(comparison.classes.distance(measure))
        similarities = comparison.similarities.items()
        row = {name: spearman(upper(similarity.means), distance) for name, similarity in similarities}
        rows.append({"measure": measure} | row)
    return pd.DataFrame(rows)


def _of_level(score: Score, level: Level) -> dict[str, float]:
    """Return what neighbours and clusters recover at a level, with errors and intervals."""
    numbers: dict[str, float] = {}
    for number in LEVEL_NUMBERS:
        numbers |= with_ends(score, f"{number} {level.name}", number)
    return numbers


def _figures(comparison: Comparison, table: pd.DataFrame, distance_label: str) -> dict[str, Any]:
    """Return the figures; that of relations only where there is a coupling with errors.

    table: a row per kernel.
    """
    best, tree = comparison.kernel_names[0], comparison.classes.tree
    means = comparison.similarities[best].means  # [G, G]
    drawn = {
        "hierarchy_matrices": figures.matrix_pair(means, comparison.distance, tree, _NAMES[best], distance_label),
        "hierarchy_kernels": figures.kernel_comparison(table, [name for name in _COLUMNS if name in table]),
        "hierarchy_neighbours": _neighbours_figure(comparison),
    }
    if "relation 1_low" in comparison.scores.get("coupling", {}):
        drawn["hierarchy_relatedness"] = _relatedness_figure(comparison)
    return drawn


def _neighbours_figure(comparison: Comparison) -> figures.Figure:
    """Draw k-NN precision at every level, beside chance; errors over chains."""
    levels = comparison.classes.levels
    curves: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    for name, score in comparison.scores.items():
        if name not in ("r", LABELS, RANDOM):  # references, whose curves are known or flat
            curves[name] = np.array([score[f"knn {level.name}"] for level in levels])
            errors[name] = np.array([score.get(f"knn {level.name}_se", 0.0) for level in levels])
    names = [f"{level.name}\n({level.size})" for level in levels]
    ylabel = "share of nearest neighbours\nin the same group"
    return figures.depth_profile(names, curves, errors, comparison.scorer.chance(), ylabel)


def _relatedness_figure(comparison: Comparison) -> figures.Figure:
    """Draw R and coupling by relation."""
    score, relations = comparison.scores["coupling"], comparison.classes.relations
    present = [number for number in range(len(relations)) if f"relation {number}" in score]
    ends = ("", "_low", "_high")
    value, low, high = (np.array([score[f"relation {number}{end}"] for number in present]) for end in ends)
    floor = noise_floor(comparison.subset[0])["noise_floor"]
    names = [relations[number] for number in present]
    return figures.relatedness(names, _correlations(comparison, present), value, low, high, floor)


def _correlations(comparison: Comparison, relations: list[int]) -> list[np.ndarray]:
    """Return R of some pairs of different probes of each relation."""
    kernel, classes = comparison.subset
    rng = np.random.default_rng(comparison.settings.seed)
    first, second = np.triu_indices(kernel.probes, 1)
    kinship = classes.kinship[classes.leaf[first], classes.leaf[second]]  # [pairs]
    values = kernel.correlation()[first, second]  # [pairs]
    parts = [values[kinship == relation] for relation in relations]
    return [part if len(part) <= _PAIRS else rng.choice(part, _PAIRS, replace=False) for part in parts]
