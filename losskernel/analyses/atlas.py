"""Does the map of the probes mirror a hierarchy of their classes? UMAP coloured by position in the hierarchy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.stats import binom

from losskernel import figures
from losskernel.analyses.probe_sheets import map_table, probe_table, thumbnails
from losskernel.analyses.result import Result, check_settings
from losskernel.analyses.taxonomy_classes import TaxonomyAnalysis
from losskernel.analyses.umap_layout import ALIKE, kept_neighbours, nearest_in, nearest_probes, umap_layout
from losskernel.data.images.image_files import encode
from losskernel.data.taxonomy import Tree
from losskernel.errors import require, require_integer, require_number
from losskernel.figures.trees.map_regions import Region
from losskernel.figures.trees.trees import leaves_below, main_branches
from losskernel.kernel import LossKernel, Neighbours, replicate_mean
from losskernel.traces.loss_traces import LossTraces

# Shares of the probes that a cluster has at least; several, because branches come in all sizes.
_SIZES = (0.005, 0.01, 0.02, 0.04, 0.08)
# Share of the probes beyond which a cluster is the map rather than a part of it, unless a lowest branch is as large.
_LARGEST = 0.15
_SLACK = 1.2
_LEAST = 5
_PURE = 0.8
_CHANCE = 1e-4  # of a purity as high, were the cluster's points drawn at random
_APART = 0.25  # of the map's extent: regions nearer to each other than this count for less


class _Candidate(NamedTuple):
    node: int
    members: frozenset[int]
    centre: np.ndarray
    worth: float


def find_regions(xy: np.ndarray, tree: Tree, leaf: np.ndarray, limit: int = 8) -> list[Region]:
    """Return at most `limit` clusters of the map, each named by the lowest branch that holds 80 % of its points.

    xy: [N, 2]. leaf: [N], each probe's leaf. Clusters come from HDBSCAN at several sizes. Preferred are those that
    agree with their branch (harmonic mean of purity and of the share of the branch that is here), large ones, and
    ones far from those already chosen; none overlap, and a branch names one region only. Clusters of a single class,
    of nothing less than the whole tree, or as pure as random points might be, name none. Numbers follow the order of
    the leaves.

    Raises:
        InputError: limit < 1, or leaves that are not one per point.

    Source: Campello, Moulavi & Sander 2013 (HDBSCAN).
    """
    xy, leaf = np.asarray(xy, dtype=float), np.asarray(leaf)
    require_integer("limit", limit, at_least=1)
    require(leaf.shape == (len(xy),), f"leaf must have one entry per point ({len(xy)}), got {leaf.shape}")
    sizes = _below(tree, leaf)  # [M]
    clusters = _clusters(xy, _most(tree, sizes))
    candidates = [_region(xy, tree, leaf, sizes, members) for members in clusters]
    remaining = [candidate for candidate in candidates if candidate is not None]
    extent = float(np.ptp(xy, axis=0).max()) or 1.0
    chosen: list[_Candidate] = []
    while remaining and len(chosen) < limit:
        best = max(remaining, key=lambda region: region.worth * _distance(region, chosen, _APART * extent))
        chosen.append(best)
        remaining = [other for other in remaining if other.node != best.node and other.members.isdisjoint(best.members)]
    rank = np.argsort(tree.order())  # [G], position of each leaf in the tree's order
    chosen.sort(key=lambda region: float(np.mean(rank[leaf[list(region.members)]])))
    return [
        Region(number, tree.names[region.node], np.array(sorted(region.members)), region.centre)
        for number, region in enumerate(chosen, 1)
    ]


def _most(tree: Tree, sizes: np.ndarray) -> int:
    """Return how many points a region may have."""
    lowest = [node for node in range(tree.leaves, len(tree.ids)) if max(tree.children(node)) < tree.leaves]
    return int(max(_LEAST, _LARGEST * sizes[tree.root], _SLACK * sizes[lowest].max()))


def _clusters(xy: np.ndarray, most: int) -> Iterator[np.ndarray]:
    from sklearn.cluster import HDBSCAN

    least = sorted({max(_LEAST, round(share * len(xy))) for share in _SIZES})
    for size in least:
        if size > min(most, len(xy)):
            return
        for method in ("eom", "leaf"):
            model = HDBSCAN(
                min_cluster_size=size,
                min_samples=_LEAST,
                max_cluster_size=most,
                cluster_selection_method=method,
                copy=True,  # pyright: ignore[reportArgumentType]
            )
            clusters = model.fit_predict(xy)
            for cluster in range(clusters.max() + 1):
                if (members := np.flatnonzero(clusters == cluster)).size <= most:
                    yield members


def _region(xy: np.ndarray, tree: Tree, leaf: np.ndarray, sizes: np.ndarray, members: np.ndarray) -> _Candidate | None:
    inside = _below(tree, leaf[members])  # [M]
    # More than half of the points are below each such node: the nodes are ancestors of one another, the lowest first.
    node = int(np.flatnonzero(inside >= _PURE * len(members))[0])
    if node < tree.leaves or node == tree.root:
        return None
    if binom.sf(inside[node] - 1, len(members), sizes[node] / sizes[tree.root]) > _CHANCE:
        return None
    agreement = 2 * inside[node] / (len(members) + sizes[node])  # F1: of purity, and of the branch's share
    worth = float(agreement * (len(members) / len(xy)) ** 0.25)
    return _Candidate(node, frozenset(members.tolist()), np.median(xy[members], axis=0), worth)


def _below(tree: Tree, leaf: np.ndarray) -> np.ndarray:
    """Return how many of the points are below each node, [M]."""
    counts = np.bincount(leaf, minlength=len(tree.ids))
    for node in range(tree.root):  # a node's number is below its parent's
        counts[tree.parents[node]] += counts[node]
    return counts


def _distance(candidate: _Candidate, chosen: list[_Candidate], enough: float) -> float:
    gaps = [float(np.linalg.norm(candidate.centre - other.centre)) for other in chosen]
    return min([1.0, *(gap / enough for gap in gaps)])


_MOST_BRANCHES = 18  # that an interactive page's legend lists


@dataclass(frozen=True)
class Atlas(TaxonomyAnalysis):
    """Maps in two and three dimensions on which near synsets have near hues; coherent regions, shown by thumbnails.

    Attributes:
        neighbours: UMAP's n_neighbors, and k of the metrics.
        min_distance: UMAP's min_dist.
        of: what makes probes neighbours: "correlation" R, under which classes that compete are far apart, or
            "coupling" R², under which they are near.
        animate: draw the map in space turning, as a GIF.
        seed: fixes the layout.

    Source: Adam, Furman & Hoogland 2025, arXiv 2509.26537 (the map of ImageNet).
    """

    neighbours: int = 15
    min_distance: float = 0.1
    of: str = "correlation"
    animate: bool = True
    seed: int = 0

    meanings: ClassVar[dict[str, str]] = {
        "neighbours_kept": "mean share of a probe's nearest under the kernel that are so on the map; 0 to 1",
        "label_purity": "mean share of a probe's nearest on the map that are of its class; 0 to 1",
        "label_purity_chance": "label_purity by chance, of random other probes; 0 to 1",
        "regions": "clusters on the map that hold one branch of the taxonomy; a count",
    }

    def __post_init__(self) -> None:
        check_settings(self, "atlas", ("label", "taxonomy"), {"neighbours": 2})
        require_number("analysis.atlas.min_distance", self.min_distance, at_least=0)
        require(self.min_distance <= 1, f"analysis.atlas.min_distance must be <= 1, got {self.min_distance}; lower it")
        require(self.of in ALIKE, f"analysis.atlas.of must be one of {', '.join(ALIKE)}, got {self.of!r}")
        require(isinstance(self.animate, bool), f"analysis.atlas.animate must be true or false, got {self.animate!r}")

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return coordinates as a table, the maps as figures, an interactive page and, if asked, an animation."""
        require(kernel.probes >= 10, f"analysis.atlas needs >= 10 probes, got {kernel.probes}; drop the analysis")
        classes = self.classes(kernel.label(self.label))
        tree, leaf = classes.tree, classes.leaf
        k = min(self.neighbours, kernel.probes - 1)
        near = nearest_probes(kernel, k, self.of)
        plane, space = (umap_layout(kernel, near, self.min_distance, d, self.seed) for d in (2, 3))
        images = thumbnails(traces)
        regions = find_regions(plane, tree, leaf)  # on the map, not in the kernel
        drawn = {
            "atlas": figures.taxonomy_map(plane, tree, leaf, images, regions),
            "atlas_3d": figures.taxonomy_orbit(space, tree, leaf),
        }
        names = {"branch": _branches(tree)[leaf], "class": np.array(tree.names[: tree.leaves])[leaf]}
        labels = names | {name: values for name, values in kernel.labels.items() if name != "class"}
        page = figures.interactive_map(plane, space, labels, None if images is None else encode(images))
        numbers = np.zeros(kernel.probes, dtype=int)  # [N], of each probe's region; 0 for none
        for region in regions:
            numbers[region.members] = region.number
        table = probe_table(kernel, branch=names["branch"], region=numbers)
        return Result(
            self._metrics(plane, near, leaf) | {"regions": float(len(regions))},
            {"atlas": map_table(table, plane, space)},
            drawn,
            {"atlas": figures.interactive_page(page)},
            {"orbit": figures.turning(space, tree, leaf)} if self.animate else {},
        )

    def _metrics(self, plane: np.ndarray, near: Neighbours, leaf: np.ndarray) -> dict[str, float]:
        """Return the share of nearest neighbours that the map keeps, and of neighbours on it of the same class.

        Errors are over probes. The chance of the latter is that of a random other probe.
        """
        purity = (leaf[nearest_in(plane, near.indices.shape[1])] == leaf[:, None]).mean(axis=1)
        sizes = np.bincount(leaf)  # [G]
        chance = float((sizes[leaf] - 1).mean() / (len(leaf) - 1))
        kept = replicate_mean("neighbours_kept", kept_neighbours(plane, near))
        return kept | replicate_mean("label_purity", purity) | {"label_purity_chance": chance}


def _branches(tree: Tree) -> np.ndarray:
    """Return the name of each leaf's main branch, [G]; "other" for leaves below none of those."""
    names, below = np.full(tree.leaves, "other", dtype=object), leaves_below(tree)  # [G]
    for node in main_branches(tree, _MOST_BRANCHES):
        names[below[node]] = tree.names[node]
    return names.astype(str)
