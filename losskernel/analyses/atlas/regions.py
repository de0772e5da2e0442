"""Coherent regions of a map: dense clusters that hold one branch of a hierarchy."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from losskernel.data.taxonomy import Tree
from losskernel.errors import require, require_integer
from losskernel.figures.trees.region_strips import Region
from losskernel.figures.trees.trees import children_of

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
    sizes = _below(tree, leaf)
    clusters = _clusters(xy, _most(tree, sizes))
    candidates = [found for members in clusters if (found := _candidate(xy, tree, leaf, sizes, members))]
    extent = float(np.ptp(xy, axis=0).max()) or 1.0
    chosen: list[_Candidate] = []
    while candidates and len(chosen) < limit:
        best = max(candidates, key=lambda each: each.worth * _distance(each, chosen, _APART * extent))
        chosen.append(best)
        candidates = [each for each in candidates if each.node != best.node and each.members.isdisjoint(best.members)]
    rank = np.argsort(tree.order())
    chosen.sort(key=lambda each: float(np.mean(rank[leaf[list(each.members)]])))
    return [
        Region(number, tree.names[each.node], np.array(sorted(each.members)), each.centre)
        for number, each in enumerate(chosen, 1)
    ]


def _most(tree: Tree, sizes: np.ndarray) -> int:
    """Return how many points a region may have."""
    lowest = [node for node, children in enumerate(children_of(tree)) if children and max(children) < tree.leaves]
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


def _candidate(
    xy: np.ndarray, tree: Tree, leaf: np.ndarray, sizes: np.ndarray, members: np.ndarray
) -> _Candidate | None:
    inside = _below(tree, leaf[members])
    # Of the nodes that hold so much, each is above the next: the lowest comes first.
    node = int(np.flatnonzero(inside >= _PURE * len(members))[0])
    if node < tree.leaves or node == tree.root:
        return None
    if binom.sf(inside[node] - 1, len(members), sizes[node] / sizes[tree.root]) > _CHANCE:
        return None
    agreement = 2 * inside[node] / (len(members) + sizes[node])
    worth = float(agreement * (len(members) / len(xy)) ** 0.25)
    return _Candidate(node, frozenset(members.tolist()), np.median(xy[members], axis=0), worth)


def _below(tree: Tree, leaf: np.ndarray) -> np.ndarray:
    """Return how many of the points stand below each node, [M]."""
    counts = np.bincount(leaf, minlength=len(tree.ids))
    for node in range(tree.root):  # a node stands before its parent
        counts[tree.parents[node]] += counts[node]
    return counts


def _distance(candidate: _Candidate, chosen: list[_Candidate], enough: float) -> float:
    gaps = [float(np.linalg.norm(candidate.centre - other.centre)) for other in chosen]
    return min([1.0, *(gap / enough for gap in gaps)])
