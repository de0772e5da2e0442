import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from oracles import gaussian
from planted_tree import LEAVES, planted, tree_file
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from losskernel import LossKernel, LossTraces
from losskernel.analyses import Discovery, Result
from losskernel.analyses.hierarchy import taxonomy_scores
from losskernel.analyses.hierarchy.discovery import DiscoveredTree
from losskernel.analyses.hierarchy.taxonomy_scores import Reader
from losskernel.analyses.taxonomy_classes import Classes
from losskernel.errors import InputError
from losskernel.kernel.error_bars import bootstrap


def _ask(traces: LossTraces, folder: Path, **given: Any) -> Result:
    settings = {"label": "kind", "taxonomy": tree_file(folder), "permutations": 39} | given
    result = Discovery(**settings)(LossKernel.from_traces(traces), traces)
    for name, value in result.metrics.items():
        assert isinstance(value, float), name
        assert math.isfinite(value), name
    assert all(isinstance(figure, Figure) for figure in result.figures.values())
    return result


def _classes(folder: Path, leaves: Any = LEAVES) -> Classes:
    return Classes.of(np.array(leaves), tree_file(folder))


# --- trees


def test_the_true_tree_holds_every_clade(tmp_path: Path) -> None:
    classes = _classes(tmp_path)
    discovered = DiscoveredTree.of(classes, -classes.distance("path"))
    numbers = discovered.numbers()
    assert numbers["dendrogram_purity"] == numbers["clades_recovered"] == numbers["clade_overlap"] == 1
    # the three branches are joined two by two, which the known tree does not do
    assert numbers["robinson_foulds"] == 1
    assert numbers["robinson_foulds_normalised"] == 1 / (9 + 10)
    assert discovered.tree.ids[:12] == tuple(LEAVES)


def test_a_tree_by_hand(tmp_path: Path) -> None:
    classes = _classes(tmp_path, ["aaa", "aab", "baa", "bab", "caa"])  # known clades: two pairs, no others
    # (aaa aab), then with baa, then with bab
    merges = np.array([[0, 1, 1, 2], [5, 2, 2, 3], [6, 3, 3, 4], [7, 4, 4, 5]], dtype=float)
    discovered = DiscoveredTree(classes, merges)
    assert discovered.clades == [frozenset({0, 1}), frozenset({0, 1, 2}), frozenset({0, 1, 2, 3})]
    numbers = discovered.numbers()
    assert numbers["clades_recovered"] == 0.5
    assert numbers["clade_overlap"] == pytest.approx((1 + 0.5) / 2)
    assert numbers["robinson_foulds"] == 3
    assert numbers["robinson_foulds_normalised"] == 3 / 5
    # aaa and aab meet alone, baa and bab among four
    assert numbers["dendrogram_purity"] == pytest.approx((1 + 0.5) / 2)


def test_chance_keeps_the_shape_and_moves_the_leaves(tmp_path: Path) -> None:
    classes = _classes(tmp_path)
    discovered = DiscoveredTree.of(classes, -classes.distance("path"))
    null = discovered.by_chance(200, seed=0)
    assert {name: len(values) for name, values in null.items()} == dict.fromkeys(discovered.numbers(), 200)
    # of C(12, 2) pairs six are leaf pairs of the tree, as of the known one: six pairs, each met with chance 6 / 66;
    # clades of four are hit with chance 3 / C(12, 4)
    expected = (6 * 6 / 66 + 3 * 3 / 495) / 9
    assert null["clades_recovered"].mean() == pytest.approx(expected, abs=0.02)
    assert null["robinson_foulds"].mean() == pytest.approx(19 - 2 * 9 * null["clades_recovered"].mean())
    assert null["dendrogram_purity"].max() < 1
    np.testing.assert_array_equal(null["clade_overlap"], discovered.by_chance(200, seed=0)["clade_overlap"])


def test_without_known_clades_trees_cannot_be_compared(tmp_path: Path) -> None:
    classes = _classes(tmp_path, ["aaa", "baa", "caa"])
    distance = squareform([1.0, 2.0, 3.0])
    assert DiscoveredTree(classes, linkage(squareform(distance), "average")).numbers() == {}


# --- the analysis


@pytest.fixture(name="answer", scope="module")
def _answer(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return _ask(planted(signs=True), tmp_path_factory.mktemp("tree"))


def test_a_planted_tree_is_read_off_the_kernel(answer: Result) -> None:
    metrics = answer.metrics
    for name in ("dendrogram_purity", "clades_recovered", "clade_overlap"):
        assert metrics[name] == 1
        assert metrics[f"{name}_p"] == 1 / 40
        assert metrics[f"{name}_null"] < 0.7
    assert metrics["robinson_foulds"] == 1
    assert metrics["robinson_foulds_p"] == 1 / 40
    assert metrics["robinson_foulds_normalised_null"] > 0.8
    for name in ("dendrogram_purity", "clades_recovered", "robinson_foulds_normalised"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]


def test_every_clade_has_its_row(answer: Result) -> None:
    table = answer.tables["discovery_clades"]
    assert len(table) == 10
    true = table[table["jaccard"] == 1]
    assert sorted(true["nearest"]) == sorted({leaf[:2] for leaf in LEAVES} | {leaf[0] for leaf in LEAVES})
    assert (true["support"] == 1).all()
    row = true[true["nearest"] == "ab"].iloc[0]
    assert (row["members"], row["classes"]) == ("aba; abb", 2)
    joined = table[table["jaccard"] < 1].iloc[0]  # two of three unrelated branches, in any order
    assert joined["classes"] == 8
    assert joined["support"] < 1
    assert answer.metrics["support"] == pytest.approx(table["support"].mean())
    known = answer.tables["discovery_known"].set_index("clade")
    assert known.loc["ab", ["classes", "jaccard", "support"]].tolist() == [2, 1, 1]
    assert answer.tables["discovery_levels"]["dendrogram_purity"].tolist() == [1, 1]
    assert set(answer.figures) == {"discovery_tree"}


def test_support_is_the_share_of_resamples_that_hold_the_clade(tmp_path: Path) -> None:
    traces = planted(per_class=2, draws=15)
    kernel = LossKernel.from_traces(traces)
    classes = Classes.of(traces.labels["kind"], tree_file(tmp_path))
    reader = Reader(classes, classes.pairs(10), 1)
    trees: list[set[frozenset[int]]] = []

    def keep(part: Any) -> dict[str, float]:
        trees.append(set(DiscoveredTree.of(classes, reader.means(taxonomy_scores.whole(part))["abs_r"]).clades))
        return {}

    bootstrap(kernel, keep)
    answer = _ask(traces, tmp_path, of="abs_r").tables["discovery_clades"]
    expected = {"; ".join(LEAVES[leaf] for leaf in sorted(clade)): 0.0 for clade in trees[0]}
    for clade in trees[0]:
        expected["; ".join(LEAVES[leaf] for leaf in sorted(clade))] = np.mean([clade in item for item in trees[1:]])
    assert len(trees) == 41
    assert dict(zip(answer["members"], answer["support"], strict=True)) == pytest.approx(expected)
    assert 0 < answer["support"].mean() < 1
    assert (answer["support"].diff().dropna() <= 0).all()


@pytest.mark.slow
def test_noise_holds_no_tree(tmp_path: Path) -> None:
    results = []
    for seed in range(6):
        losses = gaussian(4, 20, np.eye(24), seed)
        traces = LossTraces.from_arrays(losses, labels={"kind": np.repeat(LEAVES, 2)})
        results.append(_ask(traces, tmp_path).metrics)
    for name in ("dendrogram_purity", "clade_overlap"):
        assert 0.15 < np.mean([metrics[f"{name}_p"] for metrics in results]) < 0.85
    assert np.mean([metrics["support"] for metrics in results]) < 0.6


def test_a_part_of_very_many_probes_gives_the_support(tmp_path: Path) -> None:
    whole, part = (_ask(planted(draws=100), tmp_path, limit=limit) for limit in (48, 24))
    columns = ["node", "height", "nearest", "members"]
    first, second = (item.tables["discovery_clades"].sort_values("node")[columns] for item in (whole, part))
    assert first.reset_index(drop=True).equals(second.reset_index(drop=True))
    assert whole.metrics["clade_overlap"] == part.metrics["clade_overlap"]


def test_one_chain_has_a_tree_of_its_correlations_only(tmp_path: Path) -> None:
    traces = planted(per_class=2, chains=1)
    message = r"analysis.discovery.of=coupling needs >= 2 chains, got 1; raise schedule.chains or set of=abs_r"
    with pytest.raises(InputError, match=message):
        _ask(traces, tmp_path)
    assert _ask(traces, tmp_path, of="abs_r").metrics["clades_recovered"] == 1


def test_a_known_tree_without_branches_is_drawn_beside_the_found_one(tmp_path: Path) -> None:
    kinds = np.repeat(["aaa", "baa", "caa"], 2)
    losses = gaussian(1, 3, np.eye(6))  # too few draws to resample
    result = _ask(LossTraces.from_arrays(losses, labels={"kind": kinds}), tmp_path, of="abs_r")
    assert result.metrics == {}
    assert len(result.tables["discovery_clades"]) == 1
    assert result.tables["discovery_known"].empty
    assert set(result.figures) == {"discovery_tree"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 3}, r"analysis.discovery.label must be a name, got 3"),
        ({"taxonomy": None}, r"analysis.discovery.taxonomy must be a name, got None"),
        ({"of": "cosine"}, r"analysis.discovery.of must be one of coupling, abs_r, r, got 'cosine'"),
        ({"permutations": 0}, r"analysis.discovery.permutations must be >= 1, got 0"),
        ({"limit": 9}, r"analysis.discovery.limit must be >= 10"),
    ],
)
def test_a_discovery_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Discovery(**given)
