from dataclasses import replace

import numpy as np
import pytest
from scipy.cluster.hierarchy import average, cophenet
from scipy.spatial.distance import pdist, squareform
from taxonomy_oracles import random_tree

from losskernel.data.taxonomy import Tree
from losskernel.errors import InputError

#        8
#      /   \
#     7     6
#    / \   / \
#   0   5 1   4
#      / \
#     3   2
PARENTS = np.array([7, 6, 5, 5, 6, 7, 8, 8, -1])
UNEVEN = Tree(("a", "b", "c", "d", "e", "cd", "be", "acd", "all"), (*"ABCDE", "", "", "", ""), PARENTS)


def _way(tree: Tree, node: int) -> list[int]:
    return [node, *(_way(tree, int(tree.parents[node])) if node != tree.root else [])]


def test_an_uneven_tree_by_hand() -> None:
    tree = UNEVEN
    assert (tree.leaves, tree.root) == (5, 8)
    assert tree.depths().tolist() == [2, 2, 3, 3, 2, 2, 1, 1, 0]
    assert tree.heights.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 3]
    assert np.isnan(tree.support).all()
    assert tree.lca().tolist() == [[0, 8, 7, 7, 8], [8, 1, 8, 8, 6], [7, 8, 2, 5, 8], [7, 8, 5, 3, 8], [8, 6, 8, 8, 4]]
    assert tree.lca_depth()[2].tolist() == [1, 0, 3, 2, 0]
    assert tree.clades() == {5: {2, 3}, 6: {1, 4}, 7: {0, 2, 3}}
    assert tree.groups(0).tolist() == [8] * 5
    assert tree.groups(1).tolist() == [7, 6, 7, 7, 6]
    assert tree.groups(2).tolist() == [0, 1, 5, 5, 4]
    assert tree.groups(9).tolist() == [0, 1, 2, 3, 4]
    # Mean leaf 5/3 on the one side, 5/2 on the other; leaf 0 before 2 and 3.
    assert [tree.children(node) for node in range(9)] == [[]] * 5 + [[2, 3], [1, 4], [0, 5], [7, 6]]
    assert tree.order().tolist() == [0, 2, 3, 1, 4]
    np.testing.assert_allclose(tree.positions(), np.array([0, 6, 2, 3, 7]) / 7, rtol=1e-15)


@pytest.mark.parametrize("seed", range(8))
def test_random_trees_by_brute_force(seed: int) -> None:
    tree = random_tree(np.random.default_rng(seed), leaves=17)
    ways = [_way(tree, leaf) for leaf in range(tree.leaves)]
    lowest = [[next(node for node in first if node in second) for second in ways] for first in ways]
    depths = np.array([len(_way(tree, node)) - 1 for node in range(tree.root + 1)])
    np.testing.assert_array_equal(tree.lca(), lowest)
    np.testing.assert_array_equal(tree.depths(), depths)
    np.testing.assert_array_equal(tree.lca_depth(), depths[lowest])
    below = {node: {leaf for leaf in range(tree.leaves) if node in ways[leaf]} for node in range(tree.root + 1)}
    assert tree.clades() == {node: below[node] for node in range(tree.leaves, tree.root)}
    for level in range(depths.max() + 1):
        expected = [next(node for node in way if depths[node] <= level) for way in ways]
        np.testing.assert_array_equal(tree.groups(level), expected)
    for node in range(tree.root + 1):
        assert sorted(tree.children(node)) == np.flatnonzero(tree.parents == node).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_branches_are_stretches_of_the_order_and_part_by_wider_gaps_higher_up(seed: int) -> None:
    tree = random_tree(np.random.default_rng(seed), leaves=17)
    order = tree.order()
    assert sorted(order) == list(range(17))
    position = np.argsort(order)
    for members in tree.clades().values():
        assert np.ptp(position[list(members)]) == len(members) - 1
    positions = tree.positions()
    assert (positions[order[0]], positions[order[-1]]) == (0.0, 1.0)
    heights = tree.heights[tree.lca()[order[:-1], order[1:]]]
    np.testing.assert_allclose(np.diff(positions[order]), heights / heights.sum(), atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_leaves_numbered_along_a_drawing_of_the_tree_keep_their_order(seed: int) -> None:
    tree = random_tree(np.random.default_rng(seed), leaves=17)
    parents = np.concatenate([tree.parents[tree.order()], tree.parents[17:]])
    assert Tree(tree.ids, tree.names, parents).order().tolist() == list(range(17))


def test_levels_count_from_the_deepest_leaf_below() -> None:
    tree = random_tree(np.random.default_rng(3), leaves=17)
    depths = tree.depths()
    for node, leaves in tree.clades().items():
        assert tree.heights[node] == max(depths[leaf] for leaf in leaves) - depths[node]


def test_a_linkage_keeps_its_cophenetic_distances() -> None:
    points = np.random.default_rng(0).normal(size=(15, 3))
    linkage = average(pdist(points))
    tree = Tree.from_linkage(linkage, [f"id{leaf}" for leaf in range(15)], [f"name {leaf}" for leaf in range(15)])
    np.testing.assert_allclose(tree.heights[tree.lca()], squareform(cophenet(linkage)), rtol=1e-14)
    assert tree.ids[:2] == ("id0", "id1")
    assert tree.names[14:16] == ("name 14", "")
    assert tree.ids[15:] == ("",) * 14
    assert sorted(map(len, tree.clades().values())) == sorted(linkage[:-1, 3].astype(int))


def test_support_is_carried() -> None:
    support = np.array([np.nan] * 5 + [0.5, 0.75, 1.0, np.nan])
    tree = replace(UNEVEN, support=support)
    np.testing.assert_array_equal(tree.support, support)
    np.testing.assert_array_equal(tree.parents, UNEVEN.parents)
    assert np.isnan(UNEVEN.support).all()


def test_leaves_merged_at_height_zero_are_spread_evenly() -> None:
    tree = Tree(tuple("abct"), tuple("abct"), np.array([3, 3, 3, -1]), heights=np.zeros(4))
    assert tree.positions().tolist() == [0.0, 0.5, 1.0]


def test_one_node_is_a_tree() -> None:
    tree = Tree(("a",), ("A",), np.array([-1]))
    assert (tree.leaves, tree.root, tree.order().tolist(), tree.positions().tolist()) == (1, 0, [0], [0.0])
    assert (tree.lca().tolist(), tree.clades()) == ([[0]], {})


def test_what_is_given_out_is_not_the_tree_itself() -> None:
    UNEVEN.order()[:] = 0
    UNEVEN.children(8).clear()
    assert UNEVEN.order().tolist() == [0, 2, 3, 1, 4]
    assert UNEVEN.children(8) == [7, 6]


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        (np.zeros((2, 2), dtype=int), r"tree.parents must be \[M\], not empty, got \(2, 2\)"),
        (np.zeros(0, dtype=int), r"tree.parents must be \[M\], not empty, got \(0,\)"),
        (np.array([2.0, 2.0, -1.0]), "tree.parents must be integers, got float64"),
        ([2, 2, 0], "tree.parents must name a later node for every node but the last"),
        ([2, -1, -1], "tree.parents must name a later node for every node but the last"),
        ([2, 3, -1], "tree.parents must name a later node for every node but the last"),
        ([1, 3, 3, -1], "tree.parents must number the 2 leaves first, but node 1 has children"),
    ],
)
def test_what_is_no_tree_is_named(parents: np.ndarray, message: str) -> None:
    names = ("",) * len(parents)
    with pytest.raises(InputError, match=message):
        Tree(names, names, np.asarray(parents))


def test_faults_beside_the_shape_are_named() -> None:
    parents, names = np.array([2, 2, -1]), ("a", "b", "t")
    with pytest.raises(InputError, match=r"tree.ids must have one entry per node \(3\), got 2"):
        Tree(names[:2], names, parents)
    with pytest.raises(InputError, match=r"tree.names must have one entry per node \(3\), got 2"):
        Tree(names, names[:2], parents)
    with pytest.raises(InputError, match=r"tree.heights must have one number per node \(3\), got shape \(2,\)"):
        Tree(names, names, parents, heights=np.zeros(2))
    with pytest.raises(InputError, match=r"tree.support must have one number per node \(3\), got shape \(2,\)"):
        Tree(names, names, parents, support=np.zeros(2))
    with pytest.raises(InputError, match=r"tree.heights must be finite; drop NaN and infinity"):
        Tree(names, names, parents, heights=np.array([0, 0, np.nan]))
    with pytest.raises(InputError, match=r"tree.heights must not fall towards the root: node 1 is above its parent"):
        Tree(names, names, parents, heights=np.array([0, 2.0, 1.0]))
    with pytest.raises(InputError, match="level must be >= 0, got -1"):
        UNEVEN.groups(-1)
    for linkage in (np.zeros((2, 4)), np.zeros((1, 3)), np.array([[0, 5, 1.0, 2]]), np.array([[0, 0, 1.0, 2]])):
        with pytest.raises(InputError, match=r"linkage must be scipy's \[G - 1, 4\] for the 2 leaves, got shape"):
            Tree.from_linkage(linkage, ["a", "b"], ["a", "b"])
