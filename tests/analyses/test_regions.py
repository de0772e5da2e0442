"""Regions of a map: clusters are found and named after the branch that they hold."""

import numpy as np
import pytest
from drawn import balanced

from losskernel.analyses.atlas import find_regions
from losskernel.data.taxonomy import Tree
from losskernel.errors import InputError
from losskernel.figures.trees.trees import leaves_below

TREE = balanced(2, 3, 4)  # 24 leaves under 6 branches under 2
BRANCHES = [node for node in range(24, TREE.root) if TREE.heights[node] == 1]


def islands(groups: list[np.ndarray], per_island: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An island of points for every group of leaves, `per_island` points per leaf."""
    rng = np.random.default_rng(seed)
    parts = [np.repeat(group, per_island) for group in groups]
    turn = 2 * np.pi * np.arange(len(groups)) / len(groups)
    xy = [
        10 * np.array([np.cos(a), np.sin(a)]) + rng.normal(size=(len(p), 2)) for a, p in zip(turn, parts, strict=True)
    ]
    return np.concatenate(xy), np.concatenate(parts)


def test_every_branch_that_is_an_island_becomes_a_region() -> None:
    below = leaves_below(TREE)
    xy, leaf = islands([below[node] for node in BRANCHES])
    shuffled = np.random.default_rng(1).permutation(len(leaf))
    regions = find_regions(xy[shuffled], TREE, leaf[shuffled])
    assert [region.number for region in regions] == list(range(1, 7))
    assert sorted(region.name for region in regions) == sorted(TREE.names[node] for node in BRANCHES)
    for region in regions:
        inside = leaf[shuffled][region.members]
        node = TREE.names.index(region.name)
        assert np.isin(inside, below[node]).mean() >= 0.8
        assert len(region.members) > 25
        np.testing.assert_allclose(region.centre, np.median(xy[shuffled][region.members], axis=0))
    rank = np.argsort(TREE.order())
    first = [rank[leaf[shuffled][region.members]].mean() for region in regions]
    assert first == sorted(first)
    again = find_regions(xy[shuffled], TREE, leaf[shuffled])
    assert all((a.members == b.members).all() for a, b in zip(regions, again, strict=True))


def test_regions_do_not_overlap_and_stay_within_the_limit() -> None:
    below = leaves_below(TREE)
    xy, leaf = islands([below[node] for node in BRANCHES], per_island=20)
    regions = find_regions(xy, TREE, leaf, limit=3)
    assert len(regions) == 3
    members = np.concatenate([region.members for region in regions])
    assert len(members) == len(set(members))
    assert len({region.name for region in regions}) == 3


def test_an_impure_island_is_named_by_a_higher_branch_or_not_at_all() -> None:
    below = leaves_below(TREE)
    halves = TREE.children(TREE.root)
    # Two branches of one half share an island; another island mixes everything; four are as they should be.
    branches = [node for node in BRANCHES if TREE.parents[node] == halves[0]]
    rest = [node for node in BRANCHES if TREE.parents[node] == halves[1]]
    shared = np.concatenate([below[branches[0]], below[branches[1]]])
    groups = [shared, np.arange(24), *(below[node] for node in [branches[2], *rest])]
    xy, leaf = islands(groups, per_island=6)
    names = {region.name for region in find_regions(xy, TREE, leaf)}
    assert names <= {TREE.names[node] for node in (*BRANCHES, halves[0])}
    assert {TREE.names[node] for node in rest} <= names
    for region in find_regions(xy, TREE, leaf):
        assert np.linalg.norm(region.centre - 10 * np.array([np.cos(np.pi / 3), np.sin(np.pi / 3)])) > 3


def test_single_classes_and_noise_name_no_region() -> None:
    xy, leaf = islands([np.array([number]) for number in range(0, 24, 4)])
    assert find_regions(xy, TREE, leaf) == []
    rng = np.random.default_rng(0)
    assert find_regions(rng.normal(size=(300, 2)), TREE, rng.integers(0, 24, 300)) == []


def test_few_points_have_no_regions() -> None:
    tree = Tree(("a", "b", "c", ""), ("a", "b", "c", "all"), np.array([3, 3, 3, -1]))
    assert find_regions(np.zeros((3, 2)), tree, np.arange(3)) == []


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="limit must be >= 1, got 0; raise limit"):
        find_regions(np.zeros((4, 2)), TREE, np.arange(4), limit=0)
    with pytest.raises(InputError, match=r"leaf must have one entry per point \(4\), got \(3,\)"):
        find_regions(np.zeros((4, 2)), TREE, np.arange(3))
