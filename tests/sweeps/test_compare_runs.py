"""Runs are found and read, those without result too; what differs between them decides how they are drawn."""

import json
from pathlib import Path
from typing import Any

import pytest
from planted_runs import configuration, losses, plant, runs_of, swept

import losskernel as lk
from losskernel.analyses.result import MetricPanel
from losskernel.errors import InputError, TraceError
from losskernel.sweeps import find_runs
from losskernel.sweeps.comparison_page import different_settings
from losskernel.sweeps.design import lay_out, repeated_by, value_of, verdict_rows
from losskernel.sweeps.read_runs import Run, read_run, short_names


def test_a_sweep_a_list_and_a_pattern_name_the_same_runs(tmp_path: Path) -> None:
    for job in (0, 1, 2, 10):
        plant(tmp_path / "sweep" / str(job), configuration())
    (tmp_path / "sweep" / "tables").mkdir()
    (tmp_path / "sweep" / "3" / ".hydra").mkdir(parents=True)  # failed before anything else
    found = find_runs(tmp_path / "sweep")
    assert [path.name for path in found] == ["0", "1", "2", "3", "10"]
    assert find_runs(str(tmp_path / "sweep" / "*")) == find_runs(found) == found
    assert find_runs(str(tmp_path / "*")) == found
    assert find_runs([found[1], tmp_path / "sweep", found[1]]) == [found[1], found[0], *found[2:]]
    assert short_names([Run(path) for path in found]) == ["0", "1", "2", "3", "10"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing", "missing is not a folder; give run folders or a sweep's folder, such as runs=outputs/"),
        ("no*", "no folder matches the pattern; give run folders"),
        ("empty", "empty holds no run; give run folders"),
        ([], r"runs=\[\] names no run"),
    ],
)
def test_runs_that_are_not_there_are_refused(given: Any, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        find_runs(given)


def test_a_run_without_result_says_why(tmp_path: Path) -> None:
    failed, stopped, started, sampled = (tmp_path / name for name in ("failed", "stopped", "started", "sampled"))
    for folder in (failed, stopped, started, sampled):
        folder.mkdir()
    (failed / "failure.json").write_text(json.dumps({"error": "a bug", "config": {"sampler": {"nbeta": 7}}}))
    (started / "config.yaml").write_text("sampler: {nbeta: 8}")
    (stopped / ".hydra").mkdir()
    (stopped / ".hydra" / "config.yaml").write_text("sampler: {nbeta: 9}\ndataset: {seed: '${seed}'}")
    lk.LossTraces.from_arrays(losses(0, 0)).save(sampled / "traces.zarr")
    found = {folder.name: read_run(folder) for folder in (failed, stopped, started, sampled)}
    assert {name: run.verdict for name, run in found.items()} == dict.fromkeys(found)
    assert found["failed"].missing == "a bug"
    assert found["failed"].config == {"sampler.nbeta": 7, "chain_offset": 0}
    assert found["stopped"].config == {
        "sampler.nbeta": 9,
        "chain_offset": 0,
    }  # what only a resolver could tell is left out
    assert found["started"].missing == "it stopped before the first draw"
    assert "sampled, not analysed; losskernel-analyse run=" in found["sampled"].missing


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = plant(tmp_path / "run", configuration())
    (folder / "metrics.json").write_text("[1]")
    with pytest.raises(TraceError, match=r"metrics\.json must hold an object of names; run losskernel-analyse"):
        read_run(folder)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(TraceError, match=r"metrics\.json is no JSON"):
        read_run(folder)
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(TraceError, match=r"config\.yaml is no YAML"):
        read_run(folder)


def test_one_swept_number_is_the_axis_in_ascending_order() -> None:
    design = lay_out(swept("sampler.localization", [10.0, 0.1, 1000]))
    assert design.keys == ["sampler.localization"]
    assert design.axis.values == [0.1, 10, 1000]
    assert design.axis.logarithmic
    assert design.axis.label == "localization γ"
    assert (design.index, design.curves, design.names) == ([1, 0, 2], [""], ["10", "0.1", "1000"])


def test_two_swept_numbers_make_curves_of_the_one_with_more_values() -> None:
    grid = [
        {"sampler.nbeta": nbeta, "sampler.localization": value} for nbeta in (10, 100) for value in (1.0, 10.0, 100.0)
    ]
    design = lay_out(runs_of(*grid))
    assert design.axis.label == "localization γ"
    assert design.curves == ["nβ = 10", "nβ = 100"]
    assert [design.at(curve, place) for curve in (0, 1) for place in (0, 1, 2)] == [[0], [1], [2], [3], [4], [5]]
    assert design.names[4] == "nβ = 100, γ = 10"


def test_seeds_are_replicates_and_settings_of_the_page_are_ignored() -> None:
    configs = [
        {"seed": seed, "dataset.seed": seed, "sampler.nbeta": nbeta, "name": f"{seed}", "paths.run": f"{seed}{nbeta}"}
        for seed in (0, 1)
        for nbeta in (1.0, 10.0)
    ]
    design = lay_out(runs_of(*configs))
    assert design.keys == ["sampler.nbeta"]
    assert [design.at(0, place) for place in (0, 1)] == [[0, 2], [1, 3]]
    assert design.names[3] == "10, seed 1"
    assert repeated_by(runs_of(*configs)) == ["seed"]
    of_data = runs_of({"seed": 0, "dataset.seed": 0}, {"seed": 0, "dataset.seed": 1})
    assert (repeated_by(of_data), lay_out(of_data).keys) == (["dataset.seed"], [])
    alone = lay_out(runs_of({"seed": 3}, {"seed": 4}))
    assert (alone.axis.label, alone.axis.names, alone.axis.values) == ("seed", ["3", "4"], None)


def test_widths_of_layers_are_named_shortly() -> None:
    values = [[64], [64, 64, 64], [64, 16], "[64, 64]", [0.5, 0.5]]
    runs = [Run(Path(str(place)), {"model.hidden": value}) for place, value in enumerate(values)]
    assert [value_of(run, "model.hidden") for run in runs] == ["[64]", "3 × 64", "[64, 16]", "[64, 64]", "2 × 0.5"]


def test_keys_that_change_together_count_as_one() -> None:
    design = lay_out(runs_of(*({"a.words": str(n), "model.tasks": n, "a.more": 2 * n} for n in (2, 3, 4))))
    assert design.keys == ["model.tasks"]
    classes = lay_out(runs_of({"model._target_": "x.MLP", "model.width": 3}, {"model._target_": "y.CNN"}))
    assert (classes.axis.label, classes.axis.names, classes.axis.values) == ("model", ["MLP", "CNN"], None)


def test_runs_at_nbeta_zero_are_controls() -> None:
    design = lay_out(swept("sampler.nbeta", [0, 1.0, 100.0]))
    assert design.control == [True, False, False]
    assert design.axis.values == [1, 100]
    assert [design.controls_at(0, place) for place in (0, 1)] == [[0], [0]]  # one for every value
    grid = [{"sampler.nbeta": n, "sampler.localization": g} for n in (0, 100.0) for g in (1.0, 10.0)]
    beside = lay_out(runs_of(*grid))
    assert (beside.axis.label, beside.curves) == ("localization γ", [""])
    assert [beside.controls_at(0, place) for place in (0, 1)] == [[0], [1]]
    assert [beside.at(0, place) for place in (0, 1)] == [[2], [3]]


def test_runs_with_nothing_in_common_stand_in_the_order_given() -> None:
    design = lay_out(
        runs_of(*({key: job for key in "abcd" if key > "abcd"[job % 3]} | {"x": job % 2} for job in range(6)))
    )
    assert design.axis.values is None
    assert [design.at(0, place) for place in range(6)] == [[job] for job in range(6)]
    same = lay_out(runs_of({"a": 1}, {"a": 1}))
    assert (same.keys, same.axis.names) == ([], ["0", "1"])


def test_a_failed_run_keeps_its_place() -> None:
    found = swept("sampler.localization", [1.0, 10.0, 100.0])
    found[2] = Run(found[2].folder, found[2].config, missing="it failed")
    design = lay_out(found)
    assert design.axis.values == [1, 10, 100]
    (row,) = verdict_rows(found, design, [None])
    assert row.verdicts == ["pass", "pass", "none"]


def test_analyses_that_had_different_settings_are_named() -> None:
    spec = MetricPanel("length", (("path/length", "", "black"),))
    runs = [
        Run(Path(str(place)), metrics={"path/length": 1.0}, settings={"path": settings, "other": str(place)})
        for place, settings in enumerate(["Paths(space=AngularCKA())", "Paths(space=Bures())"])
    ]
    said = different_settings(runs, [spec])
    assert said.startswith(
        "the analysis path was asked with different settings, compare with care (run 0: Paths(space=A"
    )
    assert "run 1: Paths(space=Bures())" in said
    assert different_settings(runs[:1] * 2, [spec]) == ""
