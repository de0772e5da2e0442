"""Networks as paths: the points on every route, errors over probes, planted geodesics, runs side by side."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from command import call
from drawn import words
from planted_runs import configuration

from losskernel.analyses import Paths
from losskernel.analyses.paths import measured_paths as errors_module
from losskernel.analyses.paths.measured_paths import edges_of, errors_of, layer_paths, measure, median_error, spine
from losskernel.errors import InputError
from losskernel.geometry import AngularCKA, Bures, Point, jackknife
from losskernel.geometry.point import evenly
from losskernel.representations.points import TRAINED, NamedPoint, PointSet
from losskernel.sweeps import compare
from losskernel.sweeps.design import lay_out
from losskernel.sweeps.read_runs import read_run
from losskernel.sweeps.similarity import whole_paths


@pytest.fixture(autouse=True)
def _few_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps in a few dimensions: the curve of stress takes most of an analysis' time, and is tested with the maps."""
    monkeypatch.setattr("losskernel.analyses.paths.map_sheets._DIMENSIONS", (1, 2, 3))


N = 24
IDS = np.arange(N)
SPACE = AngularCKA()


def point(seed: int, width: int = 4) -> Point:
    return Point.from_features(np.random.default_rng([7, seed]).normal(size=(N, width)), IDS)


def points_of(*placed: tuple[str, Point, str], network: str = TRAINED, step: int | None = 50) -> list[NamedPoint]:
    """Points in the order of evaluation, each after the one before."""
    values, before = [], ()
    for index, (name, kernel, kind) in enumerate(placed):
        direct = "" if kind in ("input", "target") else network
        values.append(NamedPoint(name, kernel, kind, direct, step if direct else None, index, before))
        before = (name,)
    return values


def on_a_geodesic(shares: tuple[float, ...] = (0.2, 0.5, 0.9)) -> PointSet:
    """A path that follows the geodesic from the inputs to the target."""
    start, end = point(0), point(1)
    between = [SPACE.geodesic(start, end, share) for share in shares]
    kinds = ["layer"] * (len(shares) - 1) + ["output"]
    layers = [(f"at {share}", item, kind) for share, item, kind in zip(shares, between, kinds, strict=True)]
    placed = points_of(("inputs", start, "input"), *layers)
    return PointSet((*placed, NamedPoint("class", end, "target")))


def study(seed: int = 0, steps: tuple[int, ...] = (0, 10)) -> PointSet:
    """A trained network and kept checkpoints, of unrelated layers."""
    placed = [NamedPoint("inputs", point(0), "input"), NamedPoint("class", point(1, 2), "target")]
    for network, step in [(f"step {item}", item) for item in steps] + [(TRAINED, 50)]:
        ending = "" if network == TRAINED else f" @ {step}"
        before = "inputs"
        for index, (name, kind) in enumerate([("first", "layer"), ("second", "layer"), ("logits", "output")], 1):
            kernel = point(100 * seed + 10 * step + index)
            placed.append(NamedPoint(name + ending, kernel, kind, network, step, index, (before,)))
            before = name + ending
    return PointSet(tuple(placed))


def test_a_network_without_a_last_layer_yet_is_shown_as_far_as_it_goes() -> None:
    whole = study()
    shorter = whole.only([number for number, name in enumerate(whole.names) if name != "logits @ 0"])
    answer = Paths()(shorter)
    networks = answer.tables["path_networks"].set_index("network")
    assert np.isnan(networks.loc["step 0", "distance_to_target_logits"])
    assert networks.loc[["step 10", TRAINED], "distance_to_target_logits"].notna().all()
    assert networks.loc["step 0", "points"] == 3
    assert {"path_map", "path_profiles", "path_training"} <= set(answer.figures) == set(answer.captions)


# Points that all routes pass.


def test_branches_fall_out_of_the_spine_and_what_they_join_stays() -> None:
    chain = [(0, 1), (1, 2), (2, 3)]
    assert spine([0, 1, 2, 3], chain) == [0, 1, 2, 3]
    inception = [(0, 1), (1, 2), (1, 3), (3, 4), (2, 5), (4, 5), (5, 6)]
    assert spine(list(range(7)), inception) == [0, 1, 5, 6]
    residual = [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4)]
    assert spine(list(range(5)), residual) == [0, 1, 3, 4]
    dead_end = [(0, 1), (1, 2), (1, 3)]
    assert spine([0, 1, 2, 3], dead_end) == [0, 1, 3]


def test_any_number_of_routes_is_counted_exactly() -> None:
    blocks = 80  # 2^80 routes, more than a double holds
    edges = [edge for block in range(blocks) for edge in _block(2 * block)]
    assert spine(list(range(2 * blocks + 1)), edges) == list(range(0, 2 * blocks + 1, 2))


def _block(start: int) -> list[tuple[int, int]]:
    return [(start, start + 1), (start + 1, start + 2), (start, start + 2)]


def test_without_a_route_the_spine_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"no route leads .* use analysis.path.along=all"):
        spine([0, 1, 2], [(0, 1)])


def test_points_that_name_nobody_follow_the_one_before() -> None:
    placed = points_of(("inputs", point(0), "input"), ("a", point(2), "layer"), ("b", point(3), "layer"))
    apart = PointSet(tuple(replace(item, after=()) for item in placed))
    assert edges_of(apart, [0, 1, 2]) == [(0, 1), (1, 2)]
    skipping = PointSet((*placed[:2], replace(placed[2], after=("inputs", "a", "elsewhere"))))
    assert edges_of(skipping, [0, 1, 2]) == [(0, 1), (0, 2), (1, 2)]


def test_a_checkpoint_of_the_trained_networks_step_is_no_network_of_its_own() -> None:
    assert [walk.network for walk in layer_paths(study(steps=(0, 10, 50)))] == ["step 0", "step 10", TRAINED]
    assert [walk.step for walk in layer_paths(study(), ["step 10"])] == [10]
    assert layer_paths(study())[0].labels == ("inputs", "first", "second", "logits")  # without the step


@pytest.mark.parametrize(
    ("points", "networks", "message"),
    [
        (PointSet((NamedPoint("class", point(1), "target"),)), None, "no network has layers; choose points="),
        (study(), ["step 3"], "there is none called 'step 3'; choose from step 0, step 10, trained"),
        (PointSet((NamedPoint("a", point(1), "layer", TRAINED),)), None, "trained: a path needs >= 2 points, got 1"),
    ],
)
def test_what_cannot_be_a_path(points: PointSet, networks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        layer_paths(points, networks)


# Errors.


@pytest.mark.parametrize("centring", ["u", "double", "masked"])
def test_errors_are_those_of_leaving_every_probe_out(centring: str) -> None:
    space = AngularCKA(centring)
    path, target = [point(seed) for seed in range(4)], point(9, 2)
    errors = errors_of(path, target, space)
    np.testing.assert_allclose(errors.to_target, [jackknife(item, target, space).distance_error for item in path])
    np.testing.assert_allclose(errors.step, [jackknife(*pair, space).distance_error for pair in pairwise(path)])
    lengths, straight, gained = [], [], []
    for left_out in range(N):
        kept = np.delete(IDS, left_out)
        distances = space.distances([item.over(kept) for item in (*path, target)])
        lengths.append(np.diagonal(distances, 1)[:-1].sum())
        straight.append(distances[0, 3] / lengths[-1])
        gained.append((distances[0, 4] - distances[3, 4]) / lengths[-1])
    for error, without in ((errors.length, lengths), (errors.straightness, straight), (errors.efficiency, gained)):
        assert error == pytest.approx(np.sqrt((N - 1) * np.var(without)))


def test_of_many_probes_some_are_left_out_and_the_error_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = [point(seed) for seed in range(3)], point(9)
    some = evenly(N, 12)
    few = errors_of([item.over(some) for item in path], target.over(some), SPACE)
    monkeypatch.setattr(errors_module, "_MOST", 12)
    np.testing.assert_allclose(errors_of(path, target, SPACE).step, few.step * np.sqrt(12 / N))


def test_where_errors_have_no_closed_form_they_are_unknown() -> None:
    path = [point(seed) for seed in range(3)]
    assert np.isnan(errors_of(path, point(9), Bures()).to_target).all()
    few = [item.over(np.arange(5)) for item in path]
    assert np.isnan(errors_of(few, few[0], SPACE).length)
    assert np.isnan(median_error([errors_of(few, few[0], SPACE)]))


# The analysis.


def test_a_planted_geodesic_is_straight_and_heads_for_the_target() -> None:
    result = Paths()(on_a_geodesic())
    whole = SPACE.length(point(0), point(1))
    assert result.metrics["length"] == pytest.approx(0.9 * whole)
    assert result.metrics["straightness"] == pytest.approx(1)
    assert result.metrics["efficiency"] == pytest.approx(1)
    assert result.metrics["distance_to_target_hidden"] == pytest.approx(0.5 * whole)
    table = result.tables["path_profile"]
    np.testing.assert_allclose(table["fraction"], [0, 0.2, 0.5, 0.9], atol=1e-6)
    np.testing.assert_allclose(table["off_geodesic"], 0, atol=1e-6)
    np.testing.assert_allclose(table["heading"].dropna(), 0, atol=1e-5)
    np.testing.assert_allclose(table["progress"].dropna(), table["step_length"].dropna())
    assert table["behind"].to_numpy().all()
    assert set(result.figures) == {"path_map", "path_profiles"}


def test_every_network_has_its_row_and_the_untrained_one_its_numbers() -> None:
    points = study()
    result = Paths()(points)
    networks = result.tables["path_networks"].set_index("network")
    assert networks["step"].to_dict() == {"step 0": 0, "step 10": 10, TRAINED: 50}
    for name, prefix in ((TRAINED, ""), ("step 0", "untrained_")):
        direct = points.only(points.path(name)).arrangement(SPACE).distances
        assert networks.loc[name, "length"] == pytest.approx(np.diagonal(direct, 1).sum())
        assert result.metrics[f"{prefix}length"] == networks.loc[name, "length"]
        assert result.metrics[f"{prefix}straightness"] == pytest.approx(direct[0, -1] / np.diagonal(direct, 1).sum())
    assert {"distance_to_target_inputs", "distance_to_target_logits", "length_se", "probes"} <= set(result.metrics)
    assert result.tables["path_profile"].groupby("network").size().to_dict() == dict.fromkeys(networks.index, 4)
    assert len(result.tables["path_distances"]) == 3
    assert set(result.figures) == {"path_map", "path_profiles", "path_training", "path_distances"}


def test_an_angle_of_a_step_within_its_error_is_left_out() -> None:
    start = np.random.default_rng(0).normal(size=(N, 4))
    near = start + 1e-3 * np.random.default_rng(1).normal(size=(N, 4))
    placed = points_of(
        ("inputs", Point.from_features(start, IDS), "input"),
        ("near", Point.from_features(near, IDS), "layer"),
        ("far", point(5), "output"),
    )
    table = Paths()(PointSet((*placed, NamedPoint("class", point(1, 2), "target")))).tables["path_profile"]
    assert np.isnan(table["heading"][0])
    assert np.isfinite(table["heading"][1])


def test_the_target_and_the_path_can_be_chosen() -> None:
    points = study()
    other = points.extended([NamedPoint("coarse", point(77, 2), "target")])
    assert Paths()(other).metrics["distance_to_target_inputs"] == pytest.approx(SPACE.length(point(0), point(1, 2)))
    chosen = Paths(target="coarse", networks=[TRAINED])(other)
    assert chosen.metrics["distance_to_target_inputs"] == pytest.approx(SPACE.length(point(0), point(77, 2)))
    assert "untrained_length" not in chosen.metrics
    branched = replace(points[-1], after=("first",))
    branching = replace(points, points=(*points.points[:-1], branched))
    assert Paths()(branching).metrics["points"] == 3
    assert Paths(along="all")(branching).metrics["points"] == 4


def test_another_space_has_its_own_lengths_and_no_errors() -> None:
    space = Bures()
    result = Paths(space)(study())
    direct = space.distances([item.point for item in study().only(study().path()).points])
    assert result.metrics["length"] == pytest.approx(np.diagonal(direct, 1).sum())
    assert not any(name.endswith("_se") for name in result.metrics)
    assert "stress_classical" in result.metrics  # flat maps of one kind
    said = words(result.figures["path_training"])
    assert "m = 24 probes · Bures" in said
    assert "standard error" not in said
    assert np.isnan(measure(study(), layer_paths(study()), 1, space).noise)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "cka"}, r"analysis\.path\.space must be a space .* got 'cka'"),
        ({"along": "spin"}, r"analysis\.path\.along must be one of .* got 'spin'"),
        ({"networks": "trained"}, r"analysis\.path\.networks must be a list or null, got 'trained'"),
        ({"networks": []}, r"analysis\.path\.networks must be a list or null, got \[\]"),
        ({"names": -1}, r"analysis\.path\.names must be >= 0"),
    ],
)
def test_faults_of_the_settings_name_their_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Paths(**settings)


def test_without_a_target_there_is_a_remedy() -> None:
    points = study()
    with pytest.raises(InputError, match=r"paths need a target; choose points=\[layers,targets\]"):
        Paths()(points.only([number for number, item in enumerate(points.points) if item.kind != "target"]))
    with pytest.raises(InputError, match="there is no point 'genus'"):
        Paths(target="genus")(points)


# Runs side by side.


def leave(folder: Path, points: PointSet, config: dict[str, Any]) -> Path:
    """Leave what a run of points alone leaves."""
    from losskernel.representations.points.store import _write  # the store's own way to disk, without a network

    folder.mkdir(parents=True)
    _write(folder / "points.zarr" / "planted", "planted", points.points)
    about = {"order": ["planted"], "ids": points.ids.tolist(), "labels": {}}
    (folder / "points.zarr" / "points.json").write_text(json.dumps(about))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {
        "path/length": 2.0,
        "path/length_se": 0.1,
        "path/straightness": 0.5,
        "path/distance_to_target_hidden": 1.0,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def sweep_of_points(folder: Path) -> list[Path]:
    settings = {"analysis": {"path": {"_target_": "losskernel.analyses.Paths"}}}
    return [
        leave(folder / str(job), study(seed, ()), configuration(step_size=10.0**-job) | {"schedule": None} | settings)
        for job, seed in enumerate((0, 0, 1))
    ]


def test_runs_of_points_alone_are_compared_by_their_paths(tmp_path: Path) -> None:
    answer = compare(sweep_of_points(tmp_path), tmp_path / "out")
    assert answer.similarity is None
    assert answer.unlike == ""
    assert [run.verdict for run in answer.runs] == ["unsampled"] * 3
    assert "3 of 3 runs are of points only" in answer.overview()
    assert "kernels" not in answer.overview()
    assert [spec.title for spec in answer.panels] == ["path length, rad", "path straightness", "hidden to target, rad"]
    assert answer.summary()["runs_unsampled"] == 3
    table = pd.read_csv(tmp_path / "out" / "tables" / "whole_paths.csv")
    assert len(table) == 3
    same = table["distance"].to_numpy() < 1e-6  # the first two are the same network
    assert same.sum() == 1
    assert (table["frechet"].to_numpy()[~same] > 0.1).all()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How far apart the trained networks" in page
    assert "stable region" not in page.lower().split("<section>")[0]
    for name in ("whole_paths", "paths", "comparison"):
        assert (tmp_path / "out" / "figures" / f"{name}.pdf").is_file()


def test_paths_over_other_probes_are_named_and_left_out(tmp_path: Path) -> None:
    folders = sweep_of_points(tmp_path)
    others = [replace(item, point=replace(item.point, ids=IDS + 1)) for item in study(0, ()).points]
    folders.append(leave(tmp_path / "9", PointSet(tuple(others)), configuration(step_size=9.0)))
    runs = [read_run(folder) for folder in folders]
    answer = whole_paths(runs, lay_out(runs))
    assert len(answer.result.tables["whole_paths"]) == 3
    (note,) = answer.notes
    assert note.startswith("run ε = 9")
    assert note.endswith("its path is not compared, for its probes are others")


def test_runs_without_points_are_compared_as_ever(tmp_path: Path) -> None:
    folders = sweep_of_points(tmp_path)
    (folders[1] / "points.zarr" / "points.json").unlink()
    (folders[2] / "points.zarr" / "points.json").unlink()
    runs = [read_run(folder) for folder in folders]
    assert not whole_paths(runs, lay_out(runs)).captions


@pytest.mark.slow
def test_the_recipe_from_the_command_line(tmp_path: Path, capsys: Any) -> None:
    short = ["experiment=paths", "training.steps=20", "points.layers.checkpoints=[0]", "logger=none", "progress=false"]
    short += ["dataset.held_out=60", f"paths.outputs={tmp_path}"]
    assert call("-m", *short, "model.hidden=[16],[16,16]") == 0
    said = capsys.readouterr().out
    (folder,) = (tmp_path / "paths").iterdir()
    assert "length of the path" in said
    assert "comparison: 2 of 2 runs are of points only" in said
    table = pd.read_csv(folder / "1" / "tables" / "path_profile.csv")
    assert table["layer"][table["network"] == TRAINED].tolist() == [
        "inputs",
        "layers.0",
        "layers.1",
        "layers.2",
        "layers.3",
        "logits",
        "softmax",
    ]
    assert len(pd.read_csv(folder / "tables" / "whole_paths.csv")) == 1
    before = json.loads((folder / "1" / "metrics.json").read_text())
    again = [
        f"run={folder}/1",
        "analysis=[path]",
        "analysis.path.networks=[trained]",
        "analysis.path.space.centring=double",
    ]
    assert call(*again, command="analyse") == 0
    after = json.loads((folder / "1" / "metrics.json").read_text())
    assert after["path/length"] != pytest.approx(before["path/length"])
    assert "path/untrained_length" not in after
