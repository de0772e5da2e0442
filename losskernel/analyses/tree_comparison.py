"""Groups and trees read off a similarity, and how they compare with known ones; arrays in, numbers out."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Recovery(NamedTuple):
    """How well clusters recover groups.

    Attributes:
        ami: adjusted mutual information: 0 by chance, 1 for the same partition.
        nmi: normalised mutual information, which grows with the number of clusters.
        purity: share of members that belong to the largest group of their cluster.
    """

    ami: float
    nmi: float
    purity: float


def average_linkage(similarity: np.ndarray) -> np.ndarray:
    """Return the average-linkage tree [M - 1, 4] of a similarity [M, M] as scipy's linkage; the diagonal is ignored.

    The distance of two members is how much less alike they are than the most alike two.

    Source: Sokal and Michener 1958.
    """
    from scipy.cluster.hierarchy import linkage

    pairs = similarity[np.triu_indices(len(similarity), 1)]  # [pairs]
    return linkage(pairs.max() - pairs, method="average")


def cuts(linkage: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return the clusters [M, len(counts)] of a tree [M - 1, 4] cut into exactly so many groups, by its last merges."""
    members = len(linkage) + 1
    parents = parents_of(linkage)
    columns: list[np.ndarray] = []
    for count in counts:
        nodes = np.arange(members)  # each member's cluster: itself at first
        # Merge m makes node M + m, so that the last count - 1 nodes are those to be undone.
        while (joined := (parents[nodes] >= 0) & (parents[nodes] < 2 * members - count)).any():
            nodes = np.where(joined, parents[nodes], nodes)
        columns.append(np.unique(nodes, return_inverse=True)[1])
    return np.stack(columns, axis=1) if columns else np.empty((members, 0), dtype=int)


def recovery(groups: np.ndarray, clusters: np.ndarray) -> Recovery:
    """Compare clusters [M] with groups [M]; entropies are averaged arithmetically.

    Source: Vinh, Epps and Bailey 2010.
    """
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information, mutual_info_score

    # One table for all three: scikit-learn's own scores would each count it again, and are called by the hundred.
    table = np.asarray(contingency_matrix(groups, clusters))
    shared, expected = mutual_info_score(None, None, contingency=table), expected_mutual_information(table, table.sum())
    mean = (_entropy(table.sum(0)) + _entropy(table.sum(1))) / 2  # of the two partitions
    if mean == 0:  # one group and one cluster: the same partition
        return Recovery(1.0, 1.0, 1.0)
    # Both partitions are all of single members: chance gives the same.
    ami = (shared - expected) / (mean - expected) if mean - expected > 1e-12 else 1.0
    return Recovery(float(ami), float(shared / mean), float(table.max(0).sum() / table.sum()))


def parents_of(linkage: np.ndarray) -> np.ndarray:
    """Return the parent of every node [2 M - 1] of a tree [M - 1, 4]: leaves first, the root (-1) last."""
    merges = len(linkage)
    parents = np.full(2 * merges + 1, -1)
    parents[linkage[:, :2].astype(int)] = np.arange(merges + 1, 2 * merges + 1)[:, None]
    return parents


def dendrogram_purity(parents: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean purity of the smallest subtrees that hold two members of one group, over all such pairs.

    1 where every group has a subtree of its own; NaN where no group has two members. Exact: pairs are counted at
    their lowest common ancestor.

    Args:
        parents: of every node [V]; leaves first, children before parents, the root (-1) last.
        groups: of the leaves [M].

    Source: Heller and Ghahramani 2005.
    """
    names, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(parents), len(names)))  # [V, groups], members below each node
    counts[np.arange(len(members)), members] = 1
    below = np.zeros_like(counts)  # pairs within the children
    for node, parent in enumerate(parents[:-1]):
        counts[parent] += counts[node]
        below[parent] += counts[node] * (counts[node] - 1) / 2
    met = counts * (counts - 1) / 2 - below  # [V, groups], pairs whose lowest common ancestor it is
    met[: len(members)] = 0
    total = met.sum()
    return float((met * counts / counts.sum(1, keepdims=True)).sum() / total) if total > 0 else float("nan")


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two arrays [P]; NaN where one is constant."""
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) > 0 and np.ptp(second) > 0 else float("nan")


def members_of(clades: Iterable[frozenset[int]], leaves: int) -> np.ndarray:
    """Return which leaves belong to each clade, [A, G] bool."""
    listed = list(clades)
    member = np.zeros((len(listed), leaves), dtype=bool)
    for row, clade in zip(member, listed, strict=True):
        row[list(clade)] = True
    return member


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Jaccard index [A, B] of every two clades, given by their members [A, G] and [B, G] (bool).

    It is 1 exactly where the clades are the same.

    Source: Jaccard 1901.
    """
    first, second = first.astype(float), second.astype(float)
    shared = first @ second.T  # [A, B]
    return shared / (first.sum(1)[:, None] + second.sum(1) - shared)


def robinson_foulds(first: np.ndarray, second: np.ndarray) -> tuple[int, float]:
    """Return how many clades only one of two rooted trees has, and that as a share of the clades of both.

    first, second: members of the clades, [A, G] and [B, G] bool, without root and leaves.

    Source: Robinson and Foulds 1981.
    """
    total = len(first) + len(second)
    apart = total - 2 * int(np.count_nonzero(overlaps(first, second) == 1))
    return apart, apart / total if total else 0.0


def _entropy(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
