"""Measures against NLTK's own code on synsets made for the purpose, and against trees worked by hand."""

from math import log

import numpy as np
import pytest
from taxonomy_oracles import PETS, nltk_similarity, random_parents, synsets

from losskernel.data.taxonomy import MEASURES, Taxonomy
from losskernel.errors import InputError

LEAVES = ["dog", "cat", "hen", "stone"]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", range(4))
def test_similarities_are_those_of_nltk_where_nodes_have_several_parents(measure: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    taxonomy = Taxonomy(random_parents(rng, 45), max_depth=60)
    nodes = synsets(taxonomy, 60)
    chosen = rng.choice(list(taxonomy.parents), 25, replace=False).tolist()
    counts = rng.integers(1, 9, 25).tolist()
    expected = nltk_similarity([nodes[node] for node in chosen], measure, counts)
    np.testing.assert_allclose(taxonomy.similarity(chosen, measure, counts), expected, rtol=1e-12, atol=1e-12)


def test_the_graphs_above_reach_the_odd_rules_of_wu_and_palmer() -> None:
    taxonomies = [Taxonomy(random_parents(np.random.default_rng(seed), 45)) for seed in range(4)]
    similarities = [taxonomy.similarity(list(taxonomy.parents), "wu_palmer") for taxonomy in taxonomies]
    assert any((similarity != similarity.T).any() for similarity in similarities)
    assert any((similarity.diagonal() < 1).any() for similarity in similarities)


def test_edges_and_depths_by_hand() -> None:
    taxonomy = Taxonomy(PETS, max_depth=6)
    edges = np.array([[0, 2, 4, 4], [2, 0, 5, 5], [4, 5, 0, 4], [4, 5, 4, 0]])
    np.testing.assert_array_equal(taxonomy.distance(LEAVES), edges)
    np.testing.assert_allclose(taxonomy.similarity(LEAVES), 1 / (1 + edges), rtol=1e-15)
    np.testing.assert_allclose(taxonomy.similarity(LEAVES, "leacock_chodorow"), log(12) - np.log(1 + edges), rtol=1e-14)
    np.testing.assert_allclose(taxonomy.distance(LEAVES, "leacock_chodorow"), np.log(1 + edges), atol=1e-14)
    depths = np.array([[3, 3, 1, 0], [3, 4, 1, 0], [1, 1, 3, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(taxonomy.similarity(LEAVES, "lca_depth"), depths)
    apart = 4 - depths
    np.fill_diagonal(apart, 0)
    np.testing.assert_array_equal(taxonomy.distance(LEAVES, "lca_depth"), apart)


def test_wu_and_palmer_by_hand() -> None:
    taxonomy = Taxonomy(PETS)
    # Carnivore is the fourth node of its way; animal the second; thing the first.
    dog_cat, dog_hen, cat_stone = 8 / (1 + 1 + 8), 4 / (2 + 2 + 4), 2 / (4 + 1 + 2)
    similarity = taxonomy.similarity(LEAVES, "wu_palmer")
    np.testing.assert_allclose([similarity[0, 1], similarity[0, 2], similarity[1, 3]], [dog_cat, dog_hen, cat_stone])
    np.testing.assert_allclose(taxonomy.distance(LEAVES, "wu_palmer")[0, 1:3], [1 - dog_cat, 1 - dog_hen])


def test_information_counts_every_leaf_once_however_many_ways_lead_to_it() -> None:
    taxonomy = Taxonomy(PETS)
    # 8 occurrences: 5 below carnivore; 7 below animal, though the dogs come up by two ways; 8 below thing.
    counts = [2, 3, 2, 1]
    information = {"dog": -log(2 / 8), "cat": -log(3 / 8), "hen": -log(2 / 8), "stone": -log(1 / 8)}
    dog_cat, dog_hen = -log(5 / 8), -log(7 / 8)
    resnik = taxonomy.similarity(LEAVES, "resnik", counts)
    np.testing.assert_allclose(resnik.diagonal(), list(information.values()), rtol=1e-14)
    np.testing.assert_allclose(resnik[0], [information["dog"], dog_cat, dog_hen, 0], atol=1e-15)
    lin = taxonomy.similarity(LEAVES, "lin", counts)
    np.testing.assert_allclose(lin[0, 1], 2 * dog_cat / (information["dog"] + information["cat"]), rtol=1e-14)
    np.testing.assert_allclose(lin[0, 2], 2 * dog_hen / (information["dog"] + information["hen"]), rtol=1e-14)
    np.testing.assert_allclose(lin.diagonal(), 1, rtol=1e-14)
    distance = taxonomy.distance(LEAVES, "resnik", counts)
    np.testing.assert_allclose(distance[0], [0, log(8) - dog_cat, log(8) - dog_hen, log(8)])
    np.testing.assert_allclose(taxonomy.distance(LEAVES, "lin", counts), 1 - lin, atol=1e-15)
    # Each once, by default; only shares matter.
    once = taxonomy.similarity(LEAVES, "lin")
    np.testing.assert_allclose(once, taxonomy.similarity(LEAVES, "lin", np.full(4, 50)), rtol=1e-12)
    np.testing.assert_allclose(once[0, 1], 2 * log(4 / 2) / (2 * log(4)), rtol=1e-14)


def test_a_leaf_above_another_counts_its_own_occurrences_and_those_below() -> None:
    resnik = Taxonomy(PETS).similarity(["carnivore", "dog", "hen"], "resnik", [1, 2, 1])
    np.testing.assert_allclose(resnik[0], [-log(3 / 4), -log(3 / 4), 0], atol=1e-15)


def test_one_leaf_alone_is_like_itself() -> None:
    for measure in MEASURES:
        assert Taxonomy(PETS).distance(["dog"], measure).tolist() == [[0.0]]
    assert Taxonomy(PETS).similarity(["dog"], "lin").tolist() == [[1.0]]  # 0 / 0: it is all there is


@pytest.mark.parametrize("measure", MEASURES)
def test_distances_are_distances_and_fall_as_similarities_grow(measure: str) -> None:
    rng = np.random.default_rng(5)
    taxonomy = Taxonomy(random_parents(rng, 60))
    leaves = rng.choice(list(taxonomy.parents), 30, replace=False).tolist()
    counts = rng.integers(1, 9, 30)
    distance = taxonomy.distance(leaves, measure, counts)
    assert distance.dtype == np.float64
    assert (distance >= 0).all()
    assert not distance.diagonal().any()
    np.testing.assert_array_equal(distance, distance.T)
    similarity = taxonomy.similarity(leaves, measure, counts)
    upper = np.triu_indices(30, 1)
    order = np.argsort(np.maximum(similarity, similarity.T)[upper], kind="stable")
    assert (np.diff(distance[upper][order]) <= 1e-12).all()
    shuffled = rng.permutation(30)
    again = taxonomy.distance([leaves[position] for position in shuffled], measure, counts[shuffled])
    np.testing.assert_allclose(again, distance[np.ix_(shuffled, shuffled)], atol=1e-14)


def test_faults_are_named() -> None:
    taxonomy = Taxonomy(PETS)
    with pytest.raises(InputError, match=r"measure must be one of path, wu_palmer, .*, lin, got 'jcn'; choose"):
        taxonomy.distance(LEAVES, "jcn")
    with pytest.raises(InputError, match=r"counts must be one per leaf \(4\), got \(3,\); drop"):
        taxonomy.distance(LEAVES, "lin", [1, 2, 3])
    with pytest.raises(InputError, match=r"counts must be > 0, got \[0.0\]; leave out such leaves"):
        taxonomy.distance(LEAVES, "lin", [1, 2, 0, 3])
    with pytest.raises(InputError, match="measure 'leacock_chodorow' needs a taxonomy with max_depth >= 1, got 0"):
        Taxonomy({"top": []}).distance(["top"], "leacock_chodorow")
