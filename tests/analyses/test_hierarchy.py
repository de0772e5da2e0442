import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import kernel_of
from planted_tree import LEAVES, SHARES, exact, planted, tree_file

from losskernel import LossKernel, LossTraces
from losskernel.analyses.hierarchy import taxonomy_scores
from losskernel.analyses.hierarchy.comparison import Comparison, HierarchySettings, falling, reference_kernels, summary
from losskernel.analyses.hierarchy.taxonomy_scores import Reader, Scorer, centred_on, reliability, with_errors
from losskernel.analyses.rank_tests import mantel, partial_mantel, spearman, upper
from losskernel.analyses.taxonomy_classes import Classes, Pairs
from losskernel.errors import InputError
from losskernel.kernel.error_bars import bootstrap, noise_floor


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tree")


def _classes(labels: Any, folder: Path) -> Classes:
    return Classes.of(np.asarray(labels), tree_file(folder))


def _every_class(folder: Path, per_class: int = 4) -> Classes:
    return _classes(np.repeat(LEAVES, per_class), folder)


# --- classes


def test_classes_know_their_relations(folder: Path) -> None:
    classes = _every_class(folder)
    assert classes.relations == ["same class", "depth 2", "depth 1", "depth 0"]
    for alone, first in enumerate(LEAVES):
        for other, second in enumerate(LEAVES):
            common = next((depth for depth in range(3) if first[depth] != second[depth]), 3)
            assert classes.kinship[alone, other] == 3 - common
            assert classes.distance("path")[alone, other] == 2 * (3 - common)
    assert classes.names == LEAVES


def test_levels_go_from_the_classes_up(folder: Path) -> None:
    classes = _every_class(folder)
    assert [level.name for level in classes.levels] == ["class", "depth 2", "depth 1"]
    assert [level.groups.max() + 1 for level in classes.levels] == [12, 6, 3]
    for length, level in zip((3, 2, 1), classes.levels, strict=True):
        prefixes = [leaf[:length] for leaf in LEAVES]
        assert len(set(zip(prefixes, level.groups.tolist(), strict=True))) == len(set(prefixes))
    assert classes.middle.name == "depth 1"  # √12 = 3.5


def test_classes_of_unequal_depth(folder: Path) -> None:
    classes = _classes(["aaa", "aab", "b", "ca", "cb"] * 2, folder)  # b is both above others and a class
    assert classes.relations == ["same class", "depth 1", "depth 0"]
    assert [len(set(level.groups)) for level in classes.levels] == [5, 3]


def test_a_tree_without_branches_has_one_level(folder: Path) -> None:
    classes = _classes(["aaa", "baa", "caa"] * 2, folder)
    assert classes.relations == ["same class", "depth 0"]
    assert [level.name for level in classes.levels] == ["class"]
    assert classes.middle.name == "class"


def test_wordnet_knows_its_own() -> None:
    labels = ["n02123045", "n02099601", "n07753592"]  # tabby, golden retriever, banana
    classes = Classes.of(np.array(labels * 2), "wordnet")
    assert classes.relations == ["same class", "depth 1", "depth 0"]
    assert classes.names == ["golden retriever", "tabby", "banana"]  # in the order of the wnids


def test_classes_that_cannot_be_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="a hierarchy needs probes of >= 3 classes, got 2; choose another label"):
        _classes(["aaa", "aab"], folder)
    with pytest.raises(InputError, match="no node 'dog'"):
        _classes(["aaa", "aab", "dog"], folder)
    with pytest.raises(InputError, match=r"nowhere.json' does not exist"):
        Classes.of(np.array(LEAVES), "nowhere.json")


def test_a_part_is_even_within_every_class(folder: Path) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(LEAVES, [9] * 10 + [1, 2]))
    classes = _classes(labels, folder)
    chosen = classes.evenly(40)
    assert (np.diff(chosen) > 0).all()
    assert classes.at(chosen).sizes.tolist() == [3] * 10 + [1, 2]
    assert classes.at(chosen).ids == classes.ids
    assert _sizes(classes, 1) == [2] * 10 + [1, 2]
    assert _sizes(classes, 10_000) == classes.sizes.tolist()


def _sizes(classes: Classes, limit: int) -> list[int]:
    return classes.at(classes.evenly(limit)).sizes.tolist()


def test_pairs_are_of_different_classes(folder: Path) -> None:
    classes = _every_class(folder)
    pairs = classes.pairs(10_000)
    expected = {(i, j) for i in range(48) for j in range(i + 1, 48) if i // 4 != j // 4}
    assert set(zip(*map(np.ndarray.tolist, pairs), strict=True)) == expected
    some = classes.pairs(100)
    assert len(some.first) == 100
    assert set(zip(*map(np.ndarray.tolist, some), strict=True)) < expected
    assert (np.diff(some.first) >= 0).all()
    many = classes.pairs(600)  # more than half of all
    assert len(set(zip(*map(np.ndarray.tolist, many), strict=True))) == 600


# --- views


def _setting(folder: Path, **given: Any) -> tuple[LossKernel, LossTraces, Classes]:
    traces = planted(**given)
    return LossKernel.from_traces(traces), traces, _classes(traces.labels["kind"], folder)


def test_class_means_in_blocks_are_those_of_the_whole_matrix(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _, classes = _setting(folder, draws=40, signs=True)
    reader = Reader(classes, classes.pairs(300), 5)
    whole = reader.read(taxonomy_scores.in_blocks(kernel))
    monkeypatch.setattr("losskernel.kernel.loss_kernel._BLOCK_NUMBERS", 48 * 7)
    parts = reader.read(taxonomy_scores.in_blocks(kernel))
    matrices = {
        "coupling": kernel.coupling(),
        "abs_r": np.abs(kernel.correlation()),
        "r": kernel.correlation(),
    }
    assert list(whole) == list(parts) == list(matrices)
    for name, matrix in matrices.items():
        for first in range(12):
            for second in range(12):
                chosen = (classes.leaf[:, None] == first) & (classes.leaf == second) & ~np.eye(48, dtype=bool)
                assert parts[name].means[first, second] == pytest.approx(matrix[chosen].mean())
        np.testing.assert_allclose(parts[name].means, whole[name].means, atol=1e-12)
        np.testing.assert_allclose(parts[name].means, reader.means(taxonomy_scores.in_blocks(kernel))[name], atol=1e-12)
        np.testing.assert_allclose(parts[name].means, reader.means(taxonomy_scores.whole(kernel))[name], atol=1e-12)
        np.testing.assert_allclose(parts[name].pairs, matrix[reader.pairs.first, reader.pairs.second], atol=1e-12)
        np.testing.assert_allclose(parts[name].pairs, whole[name].pairs, atol=1e-12)
        np.fill_diagonal(matrix, -np.inf)
        expected = np.argsort(-matrix, axis=1)[:, :5]
        np.testing.assert_array_equal(np.sort(parts[name].nearest, 1), np.sort(expected, 1))
        assert parts[name].linkage is None
        assert whole[name].linkage.shape == (47, 4)


def test_a_class_of_one_probe_has_no_mean_with_itself(folder: Path) -> None:
    labels = ["aaa", "aab", "aab", "baa"]
    reader = Reader(_classes(labels, folder), Pairs(np.array([0]), np.array([1])), 2)
    view = reader.of_features("x", np.random.default_rng(0).normal(size=(4, 3)))["x"]
    assert np.isnan(np.diag(view.means)).tolist() == [True, False, True]
    assert np.isfinite(upper(view.means)).all()


def test_features_are_read_by_their_cosine(folder: Path) -> None:
    classes = _every_class(folder, 1)
    rows = np.random.default_rng(0).normal(size=(12, 4))
    view = Reader(classes, classes.pairs(100), 3).of_features("x", rows)["x"]
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(upper(view.means), upper(rows @ rows.T / np.outer(lengths, lengths)))


def test_equals_are_neighbours_by_chance(folder: Path) -> None:
    classes = _every_class(folder, 10)
    judged = []
    for seed in range(20):
        reader = Reader(classes, classes.pairs(100), 10, seed)
        view = reader.of_features("x", np.ones((120, 1)))["x"]
        assert (view.nearest != np.arange(120)[:, None]).all()
        judged.append(Scorer(classes, classes.distance("path"), reader.pairs)(view)["knn depth 1"])
    assert np.mean(judged) == pytest.approx(39 / 119, abs=0.04)


# --- what is known in closed form


def test_relations_have_the_planted_coupling(folder: Path) -> None:
    kernel, _, classes = _setting(folder, draws=600, signs=True)
    reader = Reader(classes, classes.pairs(10_000), 5)
    scorer = Scorer(classes, classes.distance("path"), reader.pairs)
    scores = with_errors(kernel, reader, scorer)
    rho = np.cumsum(SHARES)[::-1]
    for index, value in enumerate([*rho, 0.0]):
        score = scores["coupling"]
        name = f"relation {index}"
        assert score[name] == pytest.approx(value**2, abs=4 * score[f"{name}_se"] + 1e-4)
        assert score[f"{name}_se"] < 0.02
    assert scores["abs_r"]["relation 0"] == pytest.approx(rho[0], abs=0.03)
    assert scores["abs_r"]["relation 3"] == pytest.approx(noise_floor(kernel)["noise_floor"], rel=0.25)
    numbers = falling(scores["coupling"], 4)
    assert numbers == {"monotone": 1, "levels_apart": 3, "leading_levels_apart": 3}


def test_class_means_have_the_planted_correlation(folder: Path) -> None:
    kernel, _, classes = _setting(folder, draws=600)
    means = Reader(classes, Pairs(np.array([0]), np.array([1])), 1).read(taxonomy_scores.in_blocks(kernel))["r"].means
    expected = [[exact(first, second) for second in LEAVES] for first in LEAVES]
    np.testing.assert_allclose(means, expected, atol=0.08)


def test_the_true_tree_scores_as_such(folder: Path) -> None:
    kernel, _, classes = _setting(folder)
    reader = Reader(classes, classes.pairs(10_000), 3)
    distance = classes.distance("path")
    scorer = Scorer(classes, distance, reader.pairs, given=-distance)
    scored = scorer(reader.read(taxonomy_scores.in_blocks(kernel))["coupling"])
    # pairs that part at the root are tied in the taxonomy and noise in the kernel
    best = spearman(
        -distance[np.triu_indices(12, 1)] + 1e-9 * np.random.default_rng(0).normal(size=66), upper(distance)
    )
    assert scored["spearman_classes"] == pytest.approx(best, abs=0.05)
    assert scored["spearman_images"] > 0.7
    assert 0.5 < scored["kendall_classes"] < scored["spearman_classes"]
    assert scored["cophenetic"] > 0.8
    assert scored["tree_fit"] > 0.95
    for level in ("class", "depth 2", "depth 1"):
        for number in ("knn", "ami", "nmi", "purity", "dendrogram_purity"):
            assert scored[f"{number} {level}"] == 1
    assert "partial" not in scored  # the features are the taxonomy itself


def test_chance_is_the_share_of_others(folder: Path) -> None:
    classes = _every_class(folder)
    chance = Scorer(classes, classes.distance("path"), classes.pairs(10)).chance()
    np.testing.assert_allclose(chance, [3 / 47, 7 / 47, 15 / 47])


def test_labels_alone_know_the_classes_and_nothing_above(folder: Path) -> None:
    classes = _every_class(folder)
    rows = reference_kernels(classes.leaf, 50, seed=0)
    reader = Reader(classes, classes.pairs(10_000), 3)
    scorer = Scorer(classes, classes.distance("path"), reader.pairs)
    scored = scorer(reader.of_features("labels", rows["labels"])["labels"])
    assert scored["knn class"] == scored["ami class"] == scored["dendrogram_purity class"] == 1
    assert not {"spearman_classes", "spearman_images", "cophenetic", "ami depth 1"} & set(scored)


def test_random_rows_know_nothing(folder: Path) -> None:
    classes = _every_class(folder)
    tests = []
    for seed in range(30):
        rows = reference_kernels(classes.leaf, 50, seed)["random"]
        assert rows.shape == (48, 50)
        reader = Reader(classes, classes.pairs(10_000), 5)
        view = reader.of_features("random", rows)["random"]
        tests.append(mantel(view.means, classes.distance("path"), 59))
        if seed == 0:
            scored = Scorer(classes, classes.distance("path"), reader.pairs)(view)
            assert scored["knn depth 1"] == pytest.approx(15 / 47, abs=0.1)
            assert abs(scored["ami class"]) < 0.3
    assert np.mean([test.low < test.correlation < test.high for test in tests]) == pytest.approx(0.9, abs=0.15)
    assert np.mean([test.p for test in tests]) == pytest.approx(0.5, abs=0.2)


# --- errors and reliability


def test_errors_are_those_of_the_bootstrap(folder: Path) -> None:
    kernel, _, classes = _setting(folder, draws=60)
    reader = Reader(classes, classes.pairs(10_000), 3)
    scored = with_errors(kernel, reader, Scorer(classes, classes.distance("path"), reader.pairs))
    expected = bootstrap(
        kernel,
        lambda part: {
            "x": spearman(upper(reader.means(taxonomy_scores.whole(part))["r"]), upper(classes.distance("path")))
        },
    )
    for end in ("", "_se", "_low", "_high"):
        assert scored["r"][f"spearman_classes{end}"] == pytest.approx(expected[f"x{end}"])


def test_intervals_move_with_the_exact_value() -> None:
    rough = {"x": 0.3, "x_se": 0.1, "x_low": 0.2, "x_high": 0.4, "y": 1.0}
    assert centred_on(rough, {"x": 0.5, "z": 2.0}) == pytest.approx(
        {"x": 0.5, "x_se": 0.1, "x_low": 0.4, "x_high": 0.6, "y": 1.0, "z": 2.0}
    )


@pytest.mark.slow
def test_reliability_is_the_agreement_of_runs_of_the_full_length(folder: Path) -> None:
    predicted, means = [], []
    for seed in range(30):
        kernel, _, classes = _setting(folder, draws=5, seed=seed, per_class=2)
        reader = Reader(classes, Pairs(np.array([0]), np.array([1])), 1)
        predicted.append(reliability(kernel, reader)["r"])
        means.append(upper(reader.means(taxonomy_scores.in_blocks(kernel))["r"]))
    agreeing = [spearman(one, -other) for one, other in itertools.combinations(means, 2)]
    assert np.mean(agreeing) == pytest.approx(0.22, abs=0.05)
    assert np.mean(predicted) == pytest.approx(np.mean(agreeing), abs=0.06)


def test_reliability_needs_chains_to_part(folder: Path) -> None:
    kernel, _, classes = _setting(folder, chains=3, draws=50)
    reader = Reader(classes, Pairs(np.array([0]), np.array([1])), 1)
    assert set(reliability(kernel, reader)) == {"abs_r", "r"}  # halves of one chain have no coupling
    assert reliability(kernel.only([0]), reader) == {}


def test_falling_says_where_it_stops() -> None:
    means = [0.5, 0.4, 0.2, 0.21]
    score = {f"relation {index}": value for index, value in enumerate(means)}
    assert falling(score, 4) == {"monotone": 0}
    for name, value in list(score.items()):
        score |= {f"{name}_low": value - 0.06, f"{name}_high": value + 0.06}
    assert falling(score, 4) == {"monotone": 0, "levels_apart": 1, "leading_levels_apart": 0}
    assert falling(score, 2) == {"monotone": 1, "levels_apart": 0, "leading_levels_apart": 0}
    del score["relation 1"]  # no class has two probes, or no two classes are so related
    assert falling(score, 3) == {"monotone": 1, "levels_apart": 1, "leading_levels_apart": 1}


# --- everything together


def _comparison(folder: Path, traces: LossTraces, **given: Any) -> Comparison:
    classes = _classes(traces.labels["kind"], folder)
    settings: dict[str, Any] = {"features": "seen", "permutations": 19, "neighbours": 5} | given
    kernel = LossKernel.from_traces(traces)
    return Comparison(kernel, traces, classes, classes.distance("path"), HierarchySettings(**settings))


def test_a_part_of_very_many_probes_gives_errors_and_the_whole_the_values(folder: Path) -> None:
    traces = planted(per_class=4, draws=60)
    traces = traces.with_baselines({"seen": np.random.default_rng(0).normal(size=(48, 9))})
    whole, part = _comparison(folder, traces), _comparison(folder, traces, limit=24)
    assert part.subset[0].probes == 24
    assert part.subset[1].sizes.tolist() == [2] * 12
    indices = part.classes.evenly(24)
    np.testing.assert_array_equal(part.subset[0].ids, traces.losses["probe"].values[indices])
    for name in ("coupling", "seen", "random"):
        for number in ("spearman_classes", "knn class", "relation 1"):
            assert part.scores[name][number] == pytest.approx(whole.scores[name][number])
    for end in ("_se", "_low", "_high"):
        assert f"spearman_classes{end}" in part.scores["coupling"]
    assert part.scores["r"]["relation 0_se"] > 0
    low, value, high = (part.scores["r"][f"relation 0{end}"] for end in ("_low", "", "_high"))
    assert high - value == pytest.approx(value - low)


def test_partial_tests_are_of_the_features_named(folder: Path) -> None:
    traces = planted(draws=40)
    classes = _classes(traces.labels["kind"], folder)
    seen = np.eye(12)[classes.leaf] + np.random.default_rng(0).normal(size=(48, 12))
    comparison = _comparison(folder, traces.with_baselines({"seen": seen, "other": seen[:, ::-1] ** 2}))
    given, means = comparison.similarities["seen"].means, comparison.similarities["coupling"].means
    assert comparison.tests["coupling"]["partial"] == partial_mantel(means, comparison.distance, given, 19)
    assert comparison.tests["coupling"]["reverse"] == partial_mantel(given, comparison.distance, means, 19)
    assert set(comparison.tests["seen"]) == {"spearman_classes"}
    assert set(comparison.tests["other"]) == {"spearman_classes", "partial", "reverse"}
    assert comparison.tests["labels"] == {}
    judged = comparison.scorer(comparison.similarities["coupling"])
    assert judged["partial"] == pytest.approx(comparison.tests["coupling"]["partial"].correlation)
    assert comparison.kernel_names == ["coupling", "abs_r", "r"]


def test_draws_to_double_are_those_of_all_chains(folder: Path) -> None:
    traces = planted(per_class=2, draws=6, seed=3)
    comparison = _comparison(folder, traces)
    for name, reach in comparison.reliability.items():
        reliable = reach["reliability"]
        if reliable < 0.25 and comparison.scores[name]["spearman_classes"] > 0:
            assert reach["draws_to_double"] == np.ceil(4 * (1 - max(reliable, 0)) / (1 - 4 * max(reliable, 0)) * 24)
        else:
            assert reach["draws_to_double"] == "never"
    kept = {name for name, reach in comparison.reliability.items() if reach["draws_to_double"] != "never"}
    assert {f"draws_to_double_{name}" for name in kept} == {
        name for name in summary(comparison) if name.startswith("draws_to_double")
    }


def test_one_chain_is_compared_without_coupling(folder: Path) -> None:
    comparison = _comparison(folder, planted(per_class=2, chains=1))
    assert comparison.kernel_names == ["abs_r", "r"]
    assert comparison.reliability == {}
    numbers = summary(comparison)
    assert numbers["dendrogram_purity"] == 1
    assert "coupling_same_class" not in numbers


def test_constant_probes_are_borne(folder: Path) -> None:
    losses = planted(draws=40).losses.values.copy()
    losses[..., :9] = 0.5
    kernel = kernel_of(losses, labels={"kind": planted(draws=40).labels["kind"]})
    classes = _classes(kernel.labels["kind"], folder)
    reader = Reader(classes, classes.pairs(1000), 3)
    scorer = Scorer(classes, classes.distance("path"), reader.pairs)
    scored = scorer(reader.read(taxonomy_scores.in_blocks(kernel))["coupling"])
    assert {"spearman_classes", "spearman_images", "ami class", "cophenetic"} <= set(scored)
    assert np.isfinite(list(scored.values())).all()
