"""Kernels of blocks of weights: which blocks there are, whom they couple, what they share with the whole."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_runs import CHAINS, PROBES, TASK, configuration, losses, plant

import losskernel as lk
from losskernel.errors import InputError
from losskernel.models import MLP, SmallCNN
from losskernel.sampling.samplers.base import select
from losskernel.sweeps.over_blocks import block_name, blocks_of, group_coupling, over_blocks, shared_neighbours

NAMES = ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias", "layers.10.weight"]


def test_the_parts_are_the_children_below_the_only_child() -> None:
    assert blocks_of(NAMES) == {
        "whole": None,
        "layers.0": ["layers.0.*"],
        "layers.2": ["layers.2.*"],
        "layers.10": ["layers.10.*"],
    }
    deep = ["net.trunk.conv.weight", "net.trunk.norm.weight", "net.head.bias"]
    assert list(blocks_of(deep)) == ["whole", "net.trunk", "net.head"]
    own = ["position", "encoder.0.weight", "encoder.1.weight", "encoder.1.bias"]  # a weight of the network itself
    assert blocks_of(own)["position"] == ["position"]
    assert list(blocks_of(own)) == ["whole", "position", "encoder"]


def test_the_parts_cover_every_weight_once() -> None:
    for network in (MLP(4, 2, hidden=[3, 5]), SmallCNN(10)):
        names = [name for name, _ in network.named_parameters()]
        found = [select(names, globs) for globs in list(blocks_of(names).values())[1:]]
        assert sorted(name for block in found for name in block) == sorted(names)


def test_a_restricted_whole_is_cut_into_its_own_parts() -> None:
    trunk = ["trunk.0.weight", "trunk.2.weight", "trunk.2.bias"]
    assert blocks_of(trunk, "auto", ["trunk.*"]) == {
        "trunk": ["trunk.*"],
        "trunk.0": ["trunk.0.*"],
        "trunk.2": ["trunk.2.*"],
    }


def test_blocks_can_be_named_by_globs() -> None:
    asked = ["layers.0.*", ["layers.2.*", "layers.10.*"], ["*.bias"]]
    assert blocks_of(NAMES, asked) == {
        "whole": None,
        "layers.0": ["layers.0.*"],
        "layers.2+layers.10": ["layers.2.*", "layers.10.*"],
        "_.bias": ["*.bias"],
    }
    assert block_name(None) == "whole"
    assert block_name("*") == "all"
    assert block_name(["a/b [c].*"]) == "a_b__c_"  # fit for a folder


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("deep", r"blocks must be auto or a list of blocks, got 'deep'; e\.g\. blocks=\[\[layers\.0\.\*\]"),
        ([], r"blocks=\[\] names none"),
        ([3], "blocks: 3 is not a list of globs"),
        ([[None]], r"blocks: \[None\] is not a list of globs"),
        ([["nope.*"]], r"'nope\.\*' matches no weight; the names are layers\.0\.weight"),
        ([["layers.0.*"], ["layers.0"]], "matches no weight"),
        ([["layers.0.*"], ["layers.0.*"]], r"blocks: two are called layers\.0; name their weights apart"),
    ],
)
def test_blocks_that_make_no_sense_are_refused(asked: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        blocks_of(NAMES, asked)


def test_a_network_of_one_weight_has_no_parts() -> None:
    with pytest.raises(InputError, match="blocks=auto finds one part only, w; name the blocks by globs"):
        blocks_of(["w"])


def kernel_of(values: np.ndarray, task: list[str] = TASK) -> lk.LossKernel:
    return lk.LossKernel.from_traces(lk.LossTraces.from_arrays(values, labels={"task": task}))


def test_the_coupling_of_groups_is_the_mean_over_their_pairs() -> None:
    kernel = kernel_of(losses(0.3, 1))
    found, matrix = group_coupling(kernel, "task"), kernel.coupling()
    first = np.arange(PROBES) < 20
    own = [matrix[i, j] for i in range(20) for j in range(20) if i != j]
    np.testing.assert_allclose(found.means[0, 0], np.mean(own))
    np.testing.assert_allclose(found.means[0, 1], matrix[np.ix_(first, ~first)].mean())
    np.testing.assert_allclose(found.means, found.means.T)
    np.testing.assert_allclose(found.within, (found.means[0, 0] + found.means[1, 1]) / 2)
    np.testing.assert_allclose(found.across, found.means[0, 1])
    assert (found.groups, found.of) == (["add", "mul"], "coupling")


def test_one_chain_gives_the_mean_of_abs_r_and_a_lonely_probe_no_mean() -> None:
    kernel = kernel_of(losses(0.3, 1, chains=1), ["alone", *["add"] * 19, *["mul"] * 20])
    found, matrix = group_coupling(kernel, "task"), np.abs(kernel.correlation())
    assert found.of == "abs_r"
    assert found.groups == ["add", "alone", "mul"]
    assert np.isnan(found.means[1, 1])
    np.testing.assert_allclose(found.means[1, 2], matrix[0, 20:].mean())


def test_a_label_without_groups_is_refused() -> None:
    with pytest.raises(InputError, match="label=task has 1 distinct values; choose one of 2 to 100"):
        group_coupling(kernel_of(losses(0, 1), ["add"] * PROBES), "task")
    with pytest.raises(InputError, match="there is no probe label 'class'"):
        group_coupling(kernel_of(losses(0, 1)), "class")


def test_neighbours_shared_with_oneself_are_all_and_with_a_stranger_are_chance() -> None:
    kernel, stranger = kernel_of(losses(0.0, 1)), kernel_of(losses(np.pi / 2, 2))
    assert shared_neighbours(kernel, kernel, 7).tolist() == [1.0] * PROBES
    assert abs(shared_neighbours(kernel, stranger, 7).mean() - 7 / (PROBES - 1)) < 0.12
    with pytest.raises(InputError, match="have different probes"):
        shared_neighbours(kernel, kernel.evenly(10), 3)


def plant_blocks(folder: Path, **scales: float) -> Path:
    """Blocks whose losses are the whole's, scaled; each with its own angle from it."""
    for place, (name, scale) in enumerate(scales.items()):
        config = configuration() | {"checkpoint": "trained.pt"}
        plant(folder / name.replace("_", "."), config, scale * losses(0.3 * place, 5), "fail" if place == 2 else "pass")
    return folder


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plant_blocks(tmp_path_factory.mktemp("run") / "layers", whole=1.0, conv_10=0.5, conv_9=0.25)
    over_blocks(folder)
    return folder


def test_the_shares_are_those_planted(blocks: Path) -> None:
    table = pd.read_csv(blocks / "tables" / "blocks.csv").set_index("block")
    assert table.index.tolist() == ["whole", "conv.9", "conv.10"]  # without jobs.json in the order of their numbers
    variances = {
        name: lk.LossKernel.from_traces(lk.open_traces(blocks / name)).variance().mean() for name in table.index
    }
    for name, share in table["share"].items():
        np.testing.assert_allclose(share, variances[str(name)] / variances["whole"], rtol=1e-9)
    assert table["share"].between(0.02, 1).all()
    assert table.loc["whole", "share_se"] == 0
    assert (table["share_se"].iloc[1:] > 0).all()
    assert table.loc["whole", "cka"] == table.loc["whole", "neighbours"] == 1
    assert 1 > table.loc["conv.10", "cka"] > table.loc["conv.9", "cka"] > 0  # by their angles from the whole
    assert table["verdict"].tolist() == ["pass", "fail", "pass"]
    numbers = json.loads((blocks / "layers.json").read_text())
    np.testing.assert_allclose(numbers["share/sum"], table["share"].iloc[1:].sum())
    np.testing.assert_allclose(numbers["cka/conv.9"], table.loc["conv.9", "cka"])
    assert not [key for key in numbers if key.startswith("path")]


def test_what_blocks_leave_in_the_folder(blocks: Path) -> None:
    page = (blocks / "report.html").read_text()
    assert page.count("<img") == 4
    assert "2 of 3 kernels pass the diagnosis, 1 FAIL" in page
    assert re.search(r"all shares add up to 0\.\d\d", page)
    assert not (blocks / "tables" / "steps.csv").exists()  # blocks have no order in which to walk
    groups = pd.read_csv(blocks / "tables" / "coupled_groups.csv")
    assert groups.groupby("block").size().to_dict() == {"whole": 3, "conv.9": 3, "conv.10": 3}
    kernel = lk.LossKernel.from_traces(lk.open_traces(blocks / "conv.10"))
    own = groups[(groups["block"] == "conv.10") & (groups["group"] == "add") & (groups["other"] == "mul")]
    np.testing.assert_allclose(own["mean_coupling"].item(), group_coupling(kernel, "task").across, atol=1e-12)


def test_the_jobs_file_gives_the_order(tmp_path: Path) -> None:
    folder = plant_blocks(tmp_path, early=1.0, late=0.5, all=0.9)
    (folder / "jobs.json").write_text(json.dumps({"all": ["*"], "late": ["b.*"], "early": ["a.*"], "gone": ["c.*"]}))
    over_blocks(folder, metrics=["separation/ari"])
    assert pd.read_csv(folder / "tables" / "blocks.csv")["block"].tolist() == ["all", "late", "early"]


def test_without_the_whole_or_a_label_the_rest_is_there(tmp_path: Path) -> None:
    for place, name in enumerate(("a", "b")):
        values = losses(0.1 * place, place, chains=CHAINS)
        plant(tmp_path / name, {"name": "x", "label": "kind"}, values)
    found = over_blocks(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "no shares: the kernel of the whole is not there" in page
    assert "no coupling of groups: there is no probe label &#39;kind&#39;" in page
    assert not (tmp_path / "tables" / "blocks.csv").exists()
    assert found.similarity is not None


def test_blocks_over_other_probes_are_not_compared(tmp_path: Path) -> None:
    plant_blocks(tmp_path, whole=1.0)
    plant(tmp_path / "head", configuration(), losses(0.1, 2)[:, :, :30], labels={"task": TASK[:30]})
    found = over_blocks(tmp_path)
    assert any("cannot be compared" in note for note in found.notes())
    assert [path.name for path in (tmp_path / "figures").glob("*.png")] == ["comparison.png"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder; give one of runs of blocks"):
        over_blocks(tmp_path / "nowhere")
