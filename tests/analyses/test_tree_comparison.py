import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from losskernel.analyses.tree_comparison import (
    average_linkage,
    cuts,
    dendrogram_purity,
    members_of,
    overlaps,
    parents_of,
    pearson,
    recovery,
    robinson_foulds,
)

POINTS = np.random.default_rng(0).normal(size=(30, 2))
# ((0 1) (2 3)) 4, as numbers of merges: 5 = 0 1, 6 = 2 3, 7 = 5 6, 8 = 7 4.
BALANCED = np.array([[0, 1, 1, 2], [2, 3, 1, 2], [5, 6, 2, 4], [7, 4, 3, 5]], dtype=float)


def test_the_tree_of_a_similarity_is_that_of_its_complement() -> None:
    distance = pdist(POINTS)
    expected = linkage(distance, "average")
    merged = average_linkage(5 - squareform(distance))
    np.testing.assert_allclose(merged[:, [0, 1, 3]], expected[:, [0, 1, 3]])
    np.testing.assert_allclose(merged[:, 2], expected[:, 2] - distance.min(), atol=1e-12)


def test_a_tree_does_not_know_the_diagonal() -> None:
    similarity = -squareform(pdist(POINTS))
    np.testing.assert_array_equal(average_linkage(similarity), average_linkage(similarity + 9 * np.eye(30)))


def test_cuts_make_exactly_as_many_clusters_as_asked() -> None:
    tree = linkage(POINTS, "average")
    counts = [30, 1, 2, 7, 7]
    cut = cuts(tree, counts)
    assert cut.shape == (30, 5)
    for clusters, count in zip(cut.T, counts, strict=True):
        expected = cut_tree(tree, n_clusters=count)[:, 0]
        assert len(set(zip(clusters, expected, strict=True))) == len(set(clusters)) == count
    assert cuts(tree, []).shape == (30, 0)
    tied = average_linkage(np.ones((6, 6)))
    assert [len(set(column)) for column in cuts(tied, [1, 2, 3, 4, 5, 6]).T] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("count", [1, 3, 30])
def test_recovery_is_that_of_scikit_learn(count: int) -> None:
    rng = np.random.default_rng(0)
    clusters = np.resize(np.arange(count), 30)
    for groups in (rng.integers(4, size=30), np.zeros(30, int), np.arange(30)):
        recovered = recovery(groups, clusters)
        assert recovered.ami == pytest.approx(adjusted_mutual_info_score(groups, clusters), abs=1e-12)
        assert recovered.nmi == pytest.approx(normalized_mutual_info_score(groups, clusters), abs=1e-12)
        sizes = [np.bincount(groups[clusters == cluster]).max() for cluster in range(count)]
        assert recovered.purity == pytest.approx(sum(sizes) / 30)


def test_recovery_does_not_depend_on_names() -> None:
    groups = np.array([0, 0, 1, 1, 2])
    assert recovery(groups, np.array([7, 7, 3, 3, 9])) == (1, 1, 1)
    assert recovery(groups, np.array([0, 1, 0, 1, 2])).ami < 0.5


# --- dendrogram purity


def test_parents_number_the_merges_after_the_leaves() -> None:
    assert parents_of(BALANCED).tolist() == [5, 5, 6, 6, 8, 7, 7, 8, -1]


def test_dendrogram_purity_by_hand() -> None:
    parents = parents_of(BALANCED)
    assert dendrogram_purity(parents, np.array([0, 0, 1, 1, 2])) == 1
    assert dendrogram_purity(parents, np.array([0, 0, 0, 0, 1])) == 1
    # pairs of 0: (0 1) meets in 5, pure; (0 2) and (1 2) in 7, of whose four leaves three are 0
    assert dendrogram_purity(parents, np.array([0, 0, 0, 1, 2])) == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert np.isnan(dendrogram_purity(parents, np.arange(5)))


def _by_pairs(parents: np.ndarray, groups: np.ndarray) -> float:
    """Dendrogram purity by its definition."""
    above = [[leaf] for leaf in range(len(groups))]
    for chain in above:
        while parents[chain[-1]] >= 0:
            chain.append(int(parents[chain[-1]]))
    values = []
    for first, second in itertools.combinations(range(len(groups)), 2):
        if groups[first] == groups[second]:
            node = next(node_above for node_above in above[first] if node_above in above[second])
            below = [leaf for leaf, chain in enumerate(above) if node in chain]
            values.append(np.mean(groups[below] == groups[first]))
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(4))
def test_dendrogram_purity_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents, groups = parents_of(average_linkage(-squareform(pdist(POINTS)))), rng.integers(4, size=30)
    assert dendrogram_purity(parents, groups) == pytest.approx(_by_pairs(parents, groups))


def test_dendrogram_purity_of_a_tree_with_broad_branches() -> None:
    parents = np.array([6, 6, 6, 7, 7, 7, 8, 8, -1])  # (0 1 2) (3 4 5)
    assert dendrogram_purity(parents, np.array([0, 0, 0, 1, 1, 1])) == 1
    groups = np.array([0, 0, 1, 1, 1, 0])
    assert dendrogram_purity(parents, groups) == pytest.approx(_by_pairs(parents, groups))


# --- clades


def _clades(*members: str) -> np.ndarray:
    return members_of([frozenset(map(int, node_above)) for node_above in members], 6)


def test_overlaps_are_shares_of_the_union() -> None:
    shared = overlaps(_clades("01", "0123"), _clades("01", "12", "45"))
    np.testing.assert_allclose(shared, [[1, 1 / 3, 0], [0.5, 0.5, 0]])


def test_robinson_foulds_by_hand() -> None:
    balanced, other = _clades("01", "23", "45", "0123"), _clades("01", "24", "35", "012435")
    assert robinson_foulds(balanced, balanced) == (0, 0)
    assert robinson_foulds(balanced, other[:3]) == (5, 5 / 7)
    assert robinson_foulds(balanced, balanced[[2, 0]]) == (2, 2 / 6)  # a tree with fewer branchings
    assert robinson_foulds(balanced, _clades()) == (4, 1)
    assert robinson_foulds(_clades(), _clades()) == (0, 0)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert np.isnan(pearson(np.ones(4), np.arange(4.0)))
    assert pearson(np.arange(4.0), 3 - 2 * np.arange(4.0)) == pytest.approx(-1)
