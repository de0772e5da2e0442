import numpy as np
import pytest
from taxonomy_oracles import PETS, random_parents

from losskernel.data.taxonomy import Taxonomy, Tree
from losskernel.errors import InputError


def _family(tree: Tree) -> set[tuple[str, str]]:
    """Pairs of a node's identifier and its parent's."""
    return {(tree.ids[node], tree.ids[parent]) for node, parent in enumerate(tree.parents) if parent >= 0}


def test_nodes_know_their_names_parents_and_depths() -> None:
    taxonomy = Taxonomy(PETS, names={"hen": "laying hen"})
    assert list(taxonomy.parents) == list(PETS)
    assert taxonomy.roots == ["thing"]
    assert taxonomy.parents["dog"] == ("pet", "carnivore")
    assert (taxonomy.name("hen"), taxonomy.name("cat")) == ("laying hen", "cat")
    assert (taxonomy.min_depth["dog"], taxonomy.max_depth["dog"]) == (3, 4)
    assert (taxonomy.min_depth["thing"], taxonomy.max_depth["thing"]) == (0, 0)


def test_depths_are_the_extremes_over_all_ways_up() -> None:
    parents = random_parents(np.random.default_rng(1), 30)

    def lengths(node: str) -> set[int]:
        return {1 + way for parent in parents[node] for way in lengths(parent)} or {0}

    taxonomy = Taxonomy(parents)
    for node in parents:
        assert taxonomy.min_depth[node] == min(lengths(node))
        assert taxonomy.max_depth[node] == max(lengths(node))


def test_a_tree_keeps_the_nodes_at_which_leaves_part_under_their_deepest_parent() -> None:
    tree = Taxonomy(PETS, names={"hen": "laying hen"}).tree(["dog", "hen", "cat"])
    assert tree.ids == ("dog", "hen", "cat", "carnivore", "animal")  # no thing, bird, mammal; the dog is no pet here
    assert tree.names[1] == "laying hen"
    assert _family(tree) == {("dog", "carnivore"), ("cat", "carnivore"), ("hen", "animal"), ("carnivore", "animal")}
    assert tree.heights.tolist() == [0, 0, 0, 1, 2]
    assert np.isnan(tree.support).all()


def test_of_parents_equally_deep_the_first_listed_is_kept() -> None:
    parents = {"top": [], "a": ["top"], "b": ["top"], "x": ["b", "a"], "y": ["a"], "z": ["b"]}
    assert ("x", "b") in _family(Taxonomy(parents).tree(["x", "y", "z"]))
    assert ("x", "a") in _family(Taxonomy(parents | {"x": ["a", "b"]}).tree(["x", "y", "z"]))


def test_a_leaf_above_another_hangs_below_itself() -> None:
    tree = Taxonomy(PETS).tree(["carnivore", "dog", "hen"])
    assert tree.ids == ("carnivore", "dog", "hen", "carnivore", "animal")
    assert tree.parents.tolist() == [3, 3, 4, 4, -1]
    # As the root, and with nothing between: still a tree over as many leaves.
    pair = Taxonomy(PETS).tree(["dog", "thing"])
    assert (pair.ids, pair.parents.tolist()) == (("dog", "thing", "thing"), [2, 2, -1])


@pytest.mark.parametrize("seed", range(6))
def test_the_tree_agrees_with_the_ways_up_through_the_deepest_parents(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents = random_parents(rng, 40)
    taxonomy = Taxonomy(parents)
    leaves = rng.choice(list(parents), 14, replace=False).tolist()
    tree = taxonomy.tree(leaves)

    def way(node: str) -> list[str]:
        above = sorted(parents[node], key=lambda item: -taxonomy.max_depth[item])  # stable: the first of equals
        return [node, *(way(above[0]) if above else [])]

    common = tree.lca()
    for i, first in enumerate(leaves):
        for j, second in enumerate(leaves):
            lowest = next(node for node in way(first) if node in way(second))
            assert tree.ids[common[i, j]] == lowest
            assert common[i, j] >= len(leaves) or i == j
    assert all(len(tree.children(node)) >= 2 for node in range(len(leaves), len(tree.ids)))
    assert set(tree.ids[len(leaves) :]) == {tree.ids[node] for node in common[common >= len(leaves)]}


def test_faults_of_the_graph_are_named() -> None:
    with pytest.raises(InputError, match=r"taxonomy.parents must hold at least one node, got none; add"):
        Taxonomy({})
    with pytest.raises(InputError, match=r"taxonomy.parents\['a'\] must be a list, got the text 'top'"):
        Taxonomy({"top": [], "a": "top"})
    with pytest.raises(InputError, match=r"taxonomy.parents\['a'\] names \['bottom'\], which is no node; add it"):
        Taxonomy({"top": [], "a": ["bottom"]})
    with pytest.raises(InputError, match=r"taxonomy.names holds \['b'\], which is no node; drop it"):
        Taxonomy({"top": []}, names={"b": "bee"})
    with pytest.raises(InputError, match=r"no cycle, got (a -> b -> a|b -> a -> b); drop one of these links"):
        Taxonomy({"top": [], "a": ["top", "b"], "b": ["a"]})
    with pytest.raises(InputError, match=r"no cycle, got a -> a"):
        Taxonomy({"a": ["a"]})
    with pytest.raises(InputError, match=r"taxonomy.max_depth must be >= 4 \(depth of its deepest node\), got 3"):
        Taxonomy(PETS, max_depth=3)


def test_faults_of_the_leaves_are_named() -> None:
    taxonomy = Taxonomy(PETS | {"idea": []})
    for leaves, message in [
        ([], "leaves must not be empty; name at least one node"),
        (["dog", "wolf"], "taxonomy has no node 'wolf'; nodes are such as 'thing'"),
        (["dog", "cat", "dog"], "leaves must differ, got 'dog' twice; drop one"),
    ]:
        with pytest.raises(InputError, match=message):
            taxonomy.tree(leaves)
        with pytest.raises(InputError, match=message):
            taxonomy.distance(leaves)
    with pytest.raises(InputError, match="a tree needs at least 2 leaves, got 1; add"):
        taxonomy.tree(["dog"])
    with pytest.raises(InputError, match=r"leaves 'dog' \(under 'thing'\) and 'idea' \(under 'idea'\) have no common"):
        taxonomy.tree(["dog", "cat", "idea"])
    with pytest.raises(InputError, match="leaves 'dog' and 'idea' have no common ancestor; put one root above both"):
        taxonomy.distance(["dog", "cat", "idea"])
    with pytest.raises(InputError, match="taxonomy has no node 'wolf'"):
        taxonomy.name("wolf")
