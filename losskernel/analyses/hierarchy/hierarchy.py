"""Does the kernel follow a known taxonomy of the classes, and does it say more than features do?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from losskernel.analyses.hierarchy import tables
from losskernel.analyses.hierarchy.classes import Classes
from losskernel.analyses.hierarchy.drawing import drawn
from losskernel.analyses.hierarchy.kernels import Comparison
from losskernel.analyses.hierarchy.summary import summary
from losskernel.analyses.result import Result
from losskernel.data.taxonomy import MEASURES
from losskernel.errors import require, require_integer
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces


@dataclass(frozen=True)
class Hierarchy:
    """Compare coupling, |R| and R, and other kernels over the same probes, with distances in a taxonomy.

    Sibling classes compete for probability, so that R between them is often below 0: relatedness shows in the
    coupling (R² without noise floor), not in R. Correlations are positive where the kernel agrees with the taxonomy;
    their p-values permute classes (Mantel), their errors are over chains. Pairs within a class are left out of them.
    Clusters and trees are compared at the level whose number of groups is nearest to √classes; tables hold all levels.

    Attributes:
        label: names each probe's class as the taxonomy does.
        taxonomy: "wordnet", or the path of a file that holds a tree.
        measure: of the distance in the taxonomy, one of losskernel.data.taxonomy.MEASURES.
        features: baseline for which the partial Mantel test controls.
        permutations: of the classes, for p-values.
        neighbours: k of the k-NN precision.
        limit: probes at most behind error bars and trees of probes, evenly from every class; matrices are N × N.
        seed: fixes permutations, sampled pairs and the random baseline.
    """

    label: str = "wnid"
    taxonomy: str = "wordnet"
    measure: str = "path"
    features: str = "penultimate"
    permutations: int = 999
    neighbours: int = 10
    limit: int = 2000
    seed: int = 0

    controlled: ClassVar[bool] = True
    meanings: ClassVar[dict[str, str]] = {
        "spearman_classes_{kernel}_p": "one-sided Mantel p of spearman_classes_{kernel}, classes permuted; 0 to 1",
        "partial_{kernel}_p": "one-sided p of partial_{kernel}, classes permuted; 0 to 1",
        "reverse_{kernel}_p": "one-sided p of reverse_{kernel}, classes permuted; 0 to 1",
        "spearman_classes_{kernel}": (
            "rank correlation over pairs of classes of {kernel} and nearness in the taxonomy; -1 to 1"
        ),
        "kendall_classes_{kernel}": (
            "Kendall's tau over pairs of classes of {kernel} and nearness in the taxonomy; -1 to 1"
        ),
        "spearman_images_{kernel}": (
            "rank correlation over pairs of probes of {kernel} and nearness in the taxonomy; -1 to 1"
        ),
        "kendall_images_{kernel}": (
            "Kendall's tau over pairs of probes of {kernel} and nearness in the taxonomy; -1 to 1"
        ),
        "partial_{kernel}": "rank correlation of {kernel} and nearness in the taxonomy, features held fixed; -1 to 1",
        "reverse_{kernel}": (
            "rank correlation of the features and nearness in the taxonomy, {kernel} held fixed; -1 to 1"
        ),
        "reliability_{kernel}": (
            "rank correlation of {kernel}'s class means with another run's, from halves of the chains; up to 1"
        ),
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
        "dendrogram_purity": (
            "mean purity of the smallest branches that join two of one group at the middle level; 0 to 1"
        ),
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
        for key in ("label", "taxonomy", "features"):
            value = getattr(self, key)
            require(isinstance(value, str), f"analysis.hierarchy.{key} must be a name, got {value!r}")
        known = ", ".join(MEASURES)
        require(self.measure in MEASURES, f"analysis.hierarchy.measure must be one of {known}, got {self.measure!r}")
        for key, least in (("permutations", 1), ("neighbours", 1), ("limit", 10)):
            require_integer(f"analysis.hierarchy.{key}", getattr(self, key), at_least=least)

    def check(self, labels: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where the taxonomy does not know the probes' classes."""
        Classes.of(labels[self.label], self.taxonomy)

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return correlations, tests and levels, tables of all kernels, and the figures."""
        classes = Classes.of(kernel.label(self.label), self.taxonomy)
        comparison = Comparison(
            kernel,
            traces,
            classes,
            classes.distance(self.measure),
            self.features,
            self.permutations,
            self.neighbours,
            self.limit,
            self.seed,
        )
        chance = comparison.judge.chance()
        found = {
            "hierarchy_kernels": tables.kernels(
                comparison.scores, comparison.tests, comparison.reach, classes.middle.name
            ),
            "hierarchy_levels": tables.relations(comparison.scores, comparison.own, classes, chance),
            "hierarchy_profiles": tables.profiles(comparison.scores, classes, chance),
            "hierarchy_measures": tables.measures(comparison.views, classes),
        }
        place = "WordNet" if self.taxonomy == "wordnet" else "taxonomy"
        pictures = drawn(comparison, found["hierarchy_kernels"], f"{place} {self.measure.replace('_', ' ')} distance")
        return Result(summary(comparison), found, dict(pictures))
