"""A taxonomy read off the kernel alone, with the support of its branches, beside the known one."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses import tree_comparison
from losskernel.analyses.hierarchy.taxonomy_scores import Reader, centred_on, in_blocks, whole
from losskernel.analyses.result import Result, check_settings
from losskernel.analyses.taxonomy_classes import Classes, TaxonomyAnalysis
from losskernel.data.taxonomy import Tree
from losskernel.errors import require
from losskernel.kernel import LossKernel, Matrices, bootstrap
from losskernel.traces.loss_traces import LossTraces

_KINDS = ("coupling", "abs_r", "r")


@dataclass(frozen=True, eq=False)
class DiscoveredTree:
    """An average-linkage tree over classes.

    Attributes:
        classes: with their known tree.
        linkage: as scipy's, [G - 1, 4].
    """

    classes: Classes
    linkage: np.ndarray

    @classmethod
    def of(cls, classes: Classes, similarity: np.ndarray) -> "DiscoveredTree":
        """Build the tree of a similarity of every two classes [G, G]."""
        return cls(classes, tree_comparison.average_linkage(similarity))

    @cached_property
    def tree(self) -> Tree:
        """The tree, whose heights are how much less alike its branches are than the most alike two classes."""
        return Tree.from_linkage(self.linkage, self.classes.ids, self.classes.names)

    @cached_property
    def clades(self) -> list[frozenset[int]]:
        """Classes below every inner node but the root, in the order of the nodes."""
        return list(self.tree.clades().values())

    @cached_property
    def overlaps(self) -> np.ndarray:
        """Jaccard index of every clade with every known one, [A, B]."""
        return tree_comparison.overlaps(self._members, self._known)

    def numbers(self) -> dict[str, float]:
        """Return how much of the known tree the discovered one holds; what is undefined is left out.

        dendrogram_purity at the middle level; robinson_foulds and robinson_foulds_normalised, 1 where no clade is
        shared; clades_recovered, the share of the known clades that it has exactly, and clade_overlap, the mean
        Jaccard index of the known clades with the nearest discovered one.
        """
        purity = self.purity(self.classes.middle.groups)
        numbers = {"dendrogram_purity": purity} if np.isfinite(purity) else {}
        if len(self._known):
            apart, share = tree_comparison.robinson_foulds(self._members, self._known)
            best = self.overlaps.max(0)  # a Jaccard index of 1: the very clade
            numbers |= {"robinson_foulds": float(apart), "robinson_foulds_normalised": share}
            numbers |= {"clades_recovered": float((best == 1).mean()), "clade_overlap": float(best.mean())}
        return numbers

    def purity(self, groups: np.ndarray) -> float:
        """Return the dendrogram purity of groups of classes, [G]."""
        return tree_comparison.dendrogram_purity(self.tree.parents, groups)

    def by_chance(self, permutations: int, seed: int) -> dict[str, np.ndarray]:
        """Return the numbers, each [permutations], of trees of the same shape with permuted leaves."""
        rng = np.random.default_rng(seed)
        orders = (rng.permutation(len(self.classes.ids)) for _ in range(permutations))
        rows = [self._permuted(order).numbers() for order in orders]
        # What is defined depends on the tree's shape alone: every permuted tree has the same numbers.
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _permuted(self, order: np.ndarray) -> "DiscoveredTree":
        linkage = self.linkage.copy()  # [G - 1, 4]
        # scipy numbers the leaves first, then the merges: only the former change.
        leaves = linkage[:, :2] < len(order)
        linkage[:, :2][leaves] = order[linkage[:, :2][leaves].astype(int)]
        return DiscoveredTree(self.classes, linkage)

    @cached_property
    def _members(self) -> np.ndarray:
        return tree_comparison.members_of(self.clades, len(self.classes.ids))

    @cached_property
    def _known(self) -> np.ndarray:
        return tree_comparison.members_of(self.classes.tree.clades().values(), len(self.classes.ids))


@dataclass(frozen=True)
class Discovery(TaxonomyAnalysis):
    """Build the average-linkage tree of class means of the kernel, and compare it with a known tree.

    A branch's support is the share of resamples of the chains in whose tree it stands. p-values permute the leaves of
    the tree; `x_null` is the mean over such random trees.

    Attributes:
        of: what the tree is built from: "coupling", "abs_r" or "r".
        permutations: of the leaves.
        limit: probes at most behind errors and support, evenly from every class; matrices are N × N.
        seed: fixes the permutations.

    Source: Felsenstein 1985 (support).
    """

    of: str = "coupling"
    permutations: int = 999
    limit: int = 2000
    seed: int = 0

    controlled: ClassVar[bool] = True
    headline: ClassVar[dict[str, str]] = {
        "dendrogram_purity": "dendrogram purity of the tree",
        "dendrogram_purity_null": "  by chance",
    }
    meanings: ClassVar[dict[str, str]] = {
        "{number}_p": "one-sided p of {number}, leaves permuted; 0 to 1, small where trees are alike",
        "{number}_null": "mean of {number} over trees with permuted leaves",
        "dendrogram_purity": "mean purity of the smallest branches that join two classes of one known group; 0 to 1",
        "robinson_foulds": "clades that only one of the found and the known tree has; a count",
        "robinson_foulds_normalised": "robinson_foulds as a share of all clades; 0 the same tree, 1 none shared",
        "clades_recovered": "share of the known clades that the found tree has exactly; 0 to 1",
        "clade_overlap": "mean Jaccard index of the known clades with the nearest found one; 0 to 1",
        "support": "mean share of resamples of the chains in whose tree a branch stands; 0 to 1",
    }

    def __post_init__(self) -> None:
        kinds = ", ".join(_KINDS)
        require(self.of in _KINDS, f"analysis.discovery.of must be one of {kinds}, got {self.of!r}")
        check_settings(self, "discovery", ("label", "taxonomy"), {"permutations": 1, "limit": 10})

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return how alike the trees are, tables of clades and levels, and both trees side by side."""
        known = self.of != "coupling" or kernel.chains >= 2
        require(known, "analysis.discovery.of=coupling needs >= 2 chains, got 1; raise schedule.chains or set of=abs_r")
        classes = self.classes(kernel.label(self.label))
        discovered = DiscoveredTree.of(classes, Reader(classes).means(in_blocks(kernel))[self.of])
        rough, resampled = self._resampled(kernel, traces, classes)
        exact, null = discovered.numbers(), discovered.by_chance(self.permutations, self.seed)
        metrics = centred_on(rough, exact) | _p_values(exact, null)
        tree = discovered.tree
        branches = np.full(len(tree.parents), np.nan)  # support of each node; NaN of leaves and root
        if resampled:
            support = [np.mean([clade in other for other in resampled]) for clade in discovered.clades]
            branches[len(classes.ids) : -1] = support
            metrics["support"] = float(np.mean(support))
        title = "WordNet" if self.taxonomy == "wordnet" else "known"
        drawn = figures.tanglegram(replace(tree, support=branches), classes.tree, title_known=title)
        tables = {
            "discovery_clades": _discovered_clades(discovered, branches),
            "discovery_known": _known_clades(discovered, branches),
            "discovery_levels": _levels(discovered),
        }
        return Result(metrics, tables, {"discovery_tree": drawn})

    def _resampled(
        self, kernel: LossKernel, traces: LossTraces, classes: Classes
    ) -> tuple[dict[str, float], list[set[frozenset[int]]]]:
        """Return the numbers with errors, and the clades of every resample's tree."""
        if kernel.probes > self.limit:
            chosen = classes.evenly(self.limit)
            kernel = LossKernel.from_traces(LossTraces(traces.dataset.isel(probe=chosen)))
            classes = classes.at(chosen)
        reader = Reader(classes)
        clades: list[set[frozenset[int]]] = []

        def statistic(part: Matrices) -> dict[str, float]:
            discovered = DiscoveredTree.of(classes, reader.means(whole(part))[self.of])
            clades.append(set(discovered.clades))
            return discovered.numbers()

        numbers = bootstrap(kernel, statistic)
        return numbers, clades[1:]  # the first is the kernel itself


def _p_values(exact: dict[str, float], null: dict[str, np.ndarray]) -> dict[str, float]:
    """Return one-sided p-values, small where the trees are more alike than by chance, and the means by chance."""
    numbers: dict[str, float] = {}
    for name, values in null.items():
        # A distance is small where trees are alike.
        sign = -1 if name.startswith("robinson_foulds") else 1
        count = np.count_nonzero(sign * values >= sign * exact[name] - 1e-9)
        numbers |= {f"{name}_p": (1 + count) / (1 + len(values)), f"{name}_null": float(values.mean())}
    return numbers


def _discovered_clades(discovered: DiscoveredTree, support: np.ndarray) -> pd.DataFrame:
    """Return a row per clade of the discovered tree, the best supported first."""
    known, tree, names = discovered.classes.tree, discovered.tree, discovered.classes.names
    nodes = list(known.clades())
    rows: list[dict[str, object]] = []
    for (node, members), overlaps in zip(tree.clades().items(), discovered.overlaps, strict=True):
        row: dict[str, object] = {"node": node, "classes": len(members), "support": support[node]}
        row["height"] = tree.heights[node]
        if nodes:
            best = int(overlaps.argmax())
            row |= {"nearest": known.names[nodes[best]], "jaccard": overlaps[best]}
        rows.append(row | {"members": "; ".join(names[leaf] for leaf in sorted(members))})
    return pd.DataFrame(rows).sort_values(["support", "classes"], ascending=False, kind="stable")


def _known_clades(discovered: DiscoveredTree, support: np.ndarray) -> pd.DataFrame:
    """Return a row per clade of the known tree: the discovered one nearest to it."""
    known, nodes = discovered.classes.tree, list(discovered.tree.clades())
    rows: list[dict[str, object]] = []
    for (node, members), overlaps in zip(known.clades().items(), discovered.overlaps.T, strict=True):
        best = int(overlaps.argmax())
        row = {"clade": known.names[node], "id": known.ids[node], "classes": len(members)}
        row |= {"jaccard": overlaps[best], "nearest_node": nodes[best], "support": support[nodes[best]]}
        rows.append(row)
    return pd.DataFrame(rows, columns=["clade", "id", "classes", "jaccard", "nearest_node", "support"])


def _levels(discovered: DiscoveredTree) -> pd.DataFrame:
    """Return a row per level above the classes."""
    rows = [(level.name, level.size, discovered.purity(level.groups)) for level in discovered.classes.levels[1:]]
    return pd.DataFrame(rows, columns=["level", "groups", "dendrogram_purity"])
