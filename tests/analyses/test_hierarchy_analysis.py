import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from oracles import gaussian
from planted_tree import LEAVES, planted, tree_file

from losskernel import LossKernel, LossTraces
from losskernel.analyses import Atlas, Discovery, Hierarchy, Result
from losskernel.data.taxonomy import MEASURES
from losskernel.errors import InputError
from losskernel.runs.preflight import label_faults

ENDS = ("", "_se", "_low", "_high")


def _ask(traces: LossTraces, folder: Path, **given: Any) -> Result:
    settings = {"label": "kind", "taxonomy": tree_file(folder), "permutations": 39, "neighbours": 4} | given
    result = Hierarchy(**settings)(LossKernel.from_traces(traces), traces)
    for name, value in result.metrics.items():
        assert isinstance(value, float), name
        assert math.isfinite(value), name
    assert all(isinstance(figure, Figure) for figure in result.figures.values())
    return result


def _noise(chains: int = 4, draws: int = 40, seed: int = 0) -> LossTraces:
    kinds = np.repeat(LEAVES, 2)
    return LossTraces.from_arrays(gaussian(chains, draws, np.eye(24), seed), labels={"kind": kinds})


@pytest.fixture(name="answer", scope="module")
def _answer(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A kernel that holds the tree, beside features that hold its classes alone."""
    traces = planted(draws=200, signs=True)
    kinds = np.unique(traces.labels["kind"], return_inverse=True)[1]
    features = np.random.default_rng(0).normal(size=(12, 30))[kinds]
    features = features + np.random.default_rng(1).normal(size=(48, 30))
    traces = traces.with_baselines({"penultimate": features, "logits": features[:, :7] ** 3})
    return _ask(traces, tmp_path_factory.mktemp("tree"))


def test_a_planted_tree_is_found(answer: Result) -> None:
    metrics = answer.metrics
    for name in ("coupling", "abs_r"):
        assert metrics[f"spearman_classes_{name}_p"] == metrics[f"partial_{name}_p"] == 1 / 40
        assert metrics[f"spearman_classes_{name}_low"] > 0.6
        assert metrics[f"partial_{name}"] == pytest.approx(metrics[f"spearman_classes_{name}"], abs=0.05)
    assert metrics["coupling_same_class"] == pytest.approx(0.36, abs=4 * metrics["coupling_same_class_se"])
    assert metrics["coupling_depth_2"] == pytest.approx(0.1225, abs=4 * metrics["coupling_depth_2_se"])
    assert metrics["coupling_depth_0"] == pytest.approx(0, abs=4 * metrics["coupling_depth_0_se"])
    assert (metrics["monotone"], metrics["leading_levels_apart"]) == (1, 3)
    assert metrics["dendrogram_purity"] == metrics["ami"] == metrics["knn"] == 1
    assert (metrics["classes"], metrics["probes"]) == (12, 48)
    # features know the classes but not their tree, and R loses it to the signs
    assert metrics["spearman_classes_penultimate_p"] > 0.05
    assert metrics["spearman_classes_r"] < 0.5
    assert metrics["abs_r_depth_0"] == pytest.approx(metrics["noise_floor"], rel=0.3)


def test_numbers_of_the_kernel_have_errors_and_intervals(answer: Result) -> None:
    names = ["spearman_classes", "kendall_classes", "spearman_images", "kendall_images", "partial"]
    for name in [*(f"{number}_coupling" for number in names), "coupling_depth_1", "r_same_class", "ami", "cophenetic"]:
        value, error, low, high = (answer.metrics[f"{name}{end}"] for end in ENDS)
        assert error >= 0
        assert low <= value <= high
    assert not any(name.startswith("spearman_classes_penultimate_se") for name in answer.metrics)


def test_the_table_of_kernels_has_all_of_them_in_the_same_columns(answer: Result) -> None:
    table = answer.tables["hierarchy_kernels"].set_index("kernel")
    assert table.index.tolist() == ["coupling", "abs_r", "r", "penultimate", "logits", "labels", "random"]
    wanted = ["spearman_classes", "kendall_classes", "spearman_images", "cophenetic", "ami", "dendrogram_purity", "knn"]
    assert set(wanted) <= set(table)
    assert table[wanted].drop(index="labels").notna().all(axis=None)
    assert table.loc["labels", ["spearman_classes", "spearman_classes_p", "cophenetic", "ami"]].isna().all()
    assert np.isnan(table.loc["penultimate", "partial"])
    assert table["partial_p"].drop(index=["penultimate", "labels"]).between(1 / 40, 1).all()
    assert table["spearman_classes_low"].isna().tolist() == [False] * 3 + [True] * 4
    random = table.loc["random"]
    assert random["spearman_classes_null_low"] < 0 < random["spearman_classes_null_high"]
    assert set(table["draws_to_double"].dropna()) == {"never"}
    assert table["reliability"].notna().tolist() == [True] * 3 + [False] * 4


def test_the_table_of_levels_goes_from_the_same_class_to_the_root(answer: Result) -> None:
    table = answer.tables["hierarchy_levels"]
    assert table["relation"].tolist() == ["same class", "depth 2", "depth 1", "depth 0"]
    assert table["pairs"].tolist() == [12 * 6, 6 * 16, 3 * 4 * 16, 3 * 64 * 4]
    assert table["pairs"].sum() == 48 * 47 // 2
    assert (table["coupling"].diff().dropna() < 0).all()
    assert table["groups"].tolist()[:3] == [12, 6, 3]
    assert np.isnan(table["groups"][3])
    np.testing.assert_allclose(table["knn_chance"][:3], [3 / 47, 7 / 47, 15 / 47])
    for row, name in enumerate(("same_class", "depth_2", "depth_1", "depth_0")):
        for kind in ("coupling", "abs_r", "r"):
            for end in ENDS:
                assert table[f"{kind}{end}"][row] == answer.metrics[f"{kind}_{name}{end}"]


def test_every_measure_and_every_level_has_its_row(answer: Result) -> None:
    measures = answer.tables["hierarchy_measures"]
    assert measures["measure"].tolist() == list(MEASURES)
    # in a tree whose classes are equally deep and equally frequent all measures rank alike
    np.testing.assert_allclose(measures["coupling"], answer.metrics["spearman_classes_coupling"])
    profiles = answer.tables["hierarchy_profiles"]
    assert profiles["level"].tolist() == ["class", "depth 2", "depth 1"] * 7
    assert profiles[profiles["kernel"] == "labels"]["ami"].isna().tolist() == [False, True, True]


def test_there_is_a_figure_of_everything(answer: Result) -> None:
    names = {"hierarchy_matrices", "hierarchy_kernels", "hierarchy_neighbours", "hierarchy_relatedness"}
    assert set(answer.figures) == names


@pytest.mark.slow
def test_noise_follows_no_taxonomy(tmp_path: Path) -> None:
    answer = [_ask(_noise(seed=seed, draws=12), tmp_path).metrics for seed in range(3)]
    values = [metrics[f"spearman_classes_{name}_p"] for metrics in answer for name in ("coupling", "abs_r", "random")]
    assert 0.15 < np.mean(values) < 0.85
    assert all(metrics["leading_levels_apart"] == 0 for metrics in answer)
    assert not any(name.startswith(("partial", "reverse")) for name in answer[0])  # there are no features


def test_one_chain_has_no_coupling(tmp_path: Path) -> None:
    result = _ask(planted(per_class=2, chains=1), tmp_path)
    assert result.tables["hierarchy_kernels"]["kernel"].tolist() == ["abs_r", "r", "labels", "random"]
    assert "hierarchy_relatedness" not in result.figures
    assert result.metrics["spearman_classes_abs_r_p"] == 1 / 40


def test_a_tree_without_branches_has_nothing_to_follow(tmp_path: Path) -> None:
    traces = LossTraces.from_arrays(gaussian(2, 30, np.eye(9)), labels={"kind": np.repeat(["aaa", "baa", "caa"], 3)})
    result = _ask(traces, tmp_path)
    assert not any(name.startswith(("spearman", "kendall", "draws")) for name in result.metrics)
    assert {"ami", "knn", "coupling_same_class", "coupling_depth_0"} <= set(result.metrics)


def test_wordnet_is_the_default(tmp_path: Path) -> None:
    # two cats, two dogs, two fruits
    wnids = ["n02123045", "n02123394", "n02099601", "n02099712", "n07753592", "n07747607"]
    groups, animals = np.repeat([0, 0, 1, 1, 2, 2], 3), np.repeat([0, 0, 0, 0, 1, 1], 3)
    shared = 0.4 * (groups[:, None] == groups) + 0.4 * (animals[:, None] == animals)
    losses = gaussian(2, 60, shared + 0.2 * np.eye(18))
    traces = LossTraces.from_arrays(losses, labels={"wnid": np.repeat(wnids, 3)})
    metrics = _ask(traces, tmp_path, label="wnid", taxonomy="wordnet", measure="lin").metrics
    assert metrics["spearman_classes_coupling_low"] > 0.6
    assert metrics["ami"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 3}, r"analysis.hierarchy.label must be a name, got 3"),
        ({"taxonomy": None}, r"analysis.hierarchy.taxonomy must be a name, got None"),
        ({"features": 1}, r"analysis.hierarchy.features must be a name, got 1"),
        ({"measure": "jiang"}, r"analysis.hierarchy.measure must be one of path, .*lin, got 'jiang'"),
        ({"permutations": 0}, r"analysis.hierarchy.permutations must be >= 1, got 0"),
        ({"neighbours": 0}, r"analysis.hierarchy.neighbours must be >= 1"),
        ({"limit": 9}, r"analysis.hierarchy.limit must be >= 10"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hierarchy(**given)


def test_a_label_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no probe label 'wnid'; the labels are kind"):
        _ask(_noise(), tmp_path, label="wnid")


@pytest.mark.parametrize("analysis", [Atlas, Discovery, Hierarchy])
def test_classes_that_the_taxonomy_lacks_are_known_before_compute(analysis: Any, tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text('{"thing": {"animal": ["dog", "cat"], "tool": ["saw"]}}')
    settings = {"asked": analysis(label="class", taxonomy=str(tmp_path / "tree.json"))}
    assert label_faults(settings, {"class": np.array(["dog", "saw", "cat"])}) == []
    (fault,) = label_faults(settings, {"class": np.array(["dog", "saw", "cow"])})
    assert fault.startswith("analysis.asked: ")
    assert "'cow'" in fault
