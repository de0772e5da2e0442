"""Kernels along training: planted kernels, planted rotations, what is quantified, and what lands in the folder."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_runs import PROBES, TASK, configuration, losses, plant

import losskernel as lk
from losskernel.analyses.umap_layout import kept_neighbours, nearest_probes
from losskernel.errors import InputError, TraceError
from losskernel.storage.zarr_integrity import root_with
from losskernel.sweeps.over_training.over_training import (
    chained,
    displacement,
    kept_checkpoints,
    moving_maps,
    over_training,
)


def plant_stages(folder: Path, steps: list[int], angles: list[float], verdicts: list[str] | None = None) -> Path:
    """Jobs at checkpoints, whose kernels turn from one Gram matrix towards another."""
    for place, (step, angle) in enumerate(zip(steps, angles, strict=True)):
        verdict = verdicts[place] if verdicts else "pass"
        config = configuration() | {"checkpoint": f"run/checkpoints/step-{step:07d}.pt"}
        plant(folder / f"step-{step:07d}", config, losses(angle, 7 + place), verdict, complexity__llc=2.0 + place)
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernels that stay, then turn; names of steps that text would sort otherwise; one job that failed."""
    folder = tmp_path_factory.mktemp("run") / "dynamics"
    plant_stages(folder, [0, 2, 10, 100], [0.0, 0.0, 0.8, 1.5], ["fail", "warn", "pass", "pass"])
    failed = folder / "step-0000050"
    failed.mkdir()
    (failed / "failure.json").write_text(json.dumps({"error": "the chains left the finite numbers"}))
    over_training(folder)
    return folder


def kernel(angle: float, seed: int) -> lk.LossKernel:
    return lk.LossKernel.from_traces(lk.LossTraces.from_arrays(losses(angle, seed), labels={"task": TASK}))


def test_the_kernels_are_ordered_by_their_step_and_their_distances_follow_the_planted_angle(stages: Path) -> None:
    path = pd.read_csv(stages / "tables" / "path.csv")
    assert path["step"].tolist() == [0, 2, 10, 100]
    assert path["verdict"].tolist() == ["fail", "warn", "pass", "pass"]
    assert path["to_first"][0] == path["to_last"][3] == 0
    assert path["to_first"].is_monotonic_increasing
    assert (
        path["to_first"][1] < 0.3 < path["to_first"][2] < path["to_first"][3]
    )  # the second is the first but for noise
    np.testing.assert_allclose(path["to_first"][3], path["to_last"][0])
    assert np.isnan(path["to_next"][3])
    numbers = json.loads((stages / "dynamics.json").read_text())
    np.testing.assert_allclose(numbers["path/length"], path["to_next"].sum())
    np.testing.assert_allclose(numbers["path/straightness"], path["to_first"][3] / path["to_next"].sum())
    assert numbers["path/nearer_to_last_from"] == (10 if path["to_last"][2] < path["to_first"][2] else 100)


def test_what_is_left_in_the_folder(stages: Path) -> None:
    page = (stages / "report.html").read_text()
    assert page.count("<img") == 5
    assert "data:image/gif" in page
    assert "2 of 5 kernels pass the diagnosis, 1 warn, 1 FAIL, 1 without result" in page
    assert "the chains left the finite numbers" in page
    assert "step-0000010/report.html" in page
    runs = pd.read_csv(stages / "tables" / "runs.csv")
    assert runs["training_step"].tolist() == [0, 2, 10, 50, 100]
    assert runs["verdict"].tolist() == ["fail", "warn", "pass", "none", "pass"]
    maps = pd.read_csv(stages / "tables" / "maps.csv")
    assert maps.groupby("step").size().to_dict() == dict.fromkeys([0, 2, 10, 100], PROBES)
    assert list(maps.columns) == ["step", "id", "task", "x", "y"]
    # A folder with metrics.json would count as a run itself.
    assert not (stages / "metrics.json").exists()


def test_the_numbers_of_the_traces_are_beside_the_runs_own(stages: Path) -> None:
    runs = pd.read_csv(stages / "tables" / "runs.csv").set_index("training_step")
    values = losses(0.8, 9)
    np.testing.assert_allclose(runs.loc[10, "trace/mean_loss"], values.mean(), atol=1e-12)
    spread = values.var(axis=1, ddof=1).mean()
    np.testing.assert_allclose(runs.loc[10, "trace/self_coupling"], spread, rtol=1e-10)
    assert runs.loc[10, "trace/self_coupling_se"] > 0
    assert runs.loc[10, "complexity/llc"] == 4.0


def test_an_unfinished_trace_is_not_read(tmp_path: Path) -> None:
    folder = plant_stages(tmp_path, [0, 1, 2], [0.0, 0.1, 0.2])
    zarr = folder / "step-0000001" / "traces.zarr" / "zarr.json"
    zarr.write_bytes(root_with(json.loads(zarr.read_text()), complete=False))
    with pytest.raises(TraceError, match="is unfinished"):
        lk.open_traces(folder / "step-0000001")
    found = over_training(folder)
    assert pd.read_csv(folder / "tables" / "path.csv")["step"].tolist() == [0, 2]
    assert any("step-0000001 is not among the kernels" in note and "unfinished" in note for note in found.notes())


def test_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder; give one of runs at checkpoints"):
        over_training(tmp_path / "nowhere")
    folder = plant_stages(tmp_path, [3], [0.0])
    with pytest.raises(InputError, match="1 finished run: a comparison needs 2"):
        over_training(folder)
    with pytest.raises(InputError, match=r"metrics: no run has 'nope'; choose from .*complexity/llc"):
        over_training(plant_stages(tmp_path, [4], [0.0]), metrics=["nope"])
    with pytest.raises(InputError, match="alike must be <= 1, got 2"):
        over_training(folder, alike=2)
    plant(folder / "other", configuration(), losses(0.0, 1))
    with pytest.raises(InputError, match="other must be called step-<number>"):
        over_training(folder)


def test_without_maps_or_label_the_rest_is_there(tmp_path: Path) -> None:
    for step in (0, 5):
        plant(tmp_path / f"step-{step}", {"name": "x"}, losses(0.1 * step, step)[:, :, :8], labels={})
    over_training(tmp_path)
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {
        "along_training",
        "comparison",
        "kernel_similarity",
    }


def test_kernels_over_other_probes_are_not_compared(tmp_path: Path) -> None:
    plant_stages(tmp_path, [0], [0.0])
    plant(tmp_path / "step-9", configuration(), losses(0.1, 2)[:, :, :30], labels={"task": TASK[:30]})
    found = over_training(tmp_path)
    assert any("cannot be compared: their probes are not the same (40 and 30)" in note for note in found.notes())
    assert [path.name for path in (tmp_path / "figures").glob("*.png")] == ["comparison.png"]


@pytest.mark.parametrize("mirrored", [False, True])
def test_alignment_takes_out_any_rotation_reflection_and_shift(mirrored: bool) -> None:
    rng = np.random.default_rng(0)
    layout, angle = rng.normal(size=(30, 2)), 2.1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([1, -1 if mirrored else 1])
    first, second, third = chained([layout, layout @ turn + 7, (layout + 0.1) @ turn.T])
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(second, first, atol=1e-12)
    np.testing.assert_allclose(third, first, atol=1e-12)
    assert displacement(layout, layout @ turn).mean() > 0.5


def test_alignment_changes_no_distance_within_a_map() -> None:
    rng = np.random.default_rng(1)
    before = [rng.normal(size=(20, 2)) for _ in range(3)]
    for own, after in zip(before, chained(before), strict=True):
        distances = [np.linalg.norm(layout[:, None] - layout, axis=-1) for layout in (own, after)]
        np.testing.assert_allclose(*distances, atol=1e-12)


def test_displacement_is_in_radii_of_the_map() -> None:
    circle = np.array([[np.cos(angle), np.sin(angle)] for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)])
    np.testing.assert_allclose(displacement(circle, circle + np.array([0.25, 0])), 0.25)
    np.testing.assert_allclose(displacement(40 * circle, 40 * circle + np.array([10, 0])), 0.25)  # whatever the unit
    np.testing.assert_allclose(displacement(circle, -circle), 2.0)
    assert displacement(np.ones((3, 2)), np.ones((3, 2))).tolist() == [0, 0, 0]


def test_maps_move_less_and_keep_as_many_neighbours() -> None:
    kernels = [kernel(angle, seed) for seed, angle in enumerate([0.0, 0.1, 0.2, 0.3])]
    maps, again = moving_maps(kernels, neighbours=8), moving_maps(kernels, neighbours=8)
    assert maps.layouts.shape == maps.apart.shape == (4, PROBES, 2)
    np.testing.assert_array_equal(maps.layouts, again.layouts)
    moved, apart = (
        np.mean([displacement(*pair) for pair in pairwise(layouts)]) for layouts in (maps.layouts, maps.apart)
    )
    assert moved < 0.6 * apart
    assert maps.kept.mean() > maps.kept_apart.mean() - 0.05
    near = nearest_probes(kernels[2], 8)
    np.testing.assert_array_equal(maps.kept[2], kept_neighbours(maps.layouts[2], near))


def test_a_kernel_without_structure_shows_none_of_the_others_on_its_map() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 20)
    told = 4 * rng.normal(size=(4, 80, 4)) @ np.eye(4)[groups].T
    noise = rng.normal(size=(4, 80, 6)) @ rng.normal(size=(6, 80)) + 0.5 * rng.normal(size=(4, 80, 80))
    kernels = [
        lk.LossKernel.from_traces(lk.LossTraces.from_arrays(values))
        for values in (noise, told + noise, told + noise + 0.1 * rng.normal(size=noise.shape))
    ]
    layouts = moving_maps(kernels, neighbours=10).layouts
    purity = []
    for layout in layouts:
        distances = np.linalg.norm(layout[:, None] - layout, axis=-1) + 1e9 * np.eye(80)
        purity.append((groups[distances.argsort(axis=1)[:, :10]] == groups[:, None]).mean())
    assert purity[0] < 0.45
    assert min(purity[1:]) > 0.95


def test_maps_of_other_probes_or_of_one_kernel_are_refused() -> None:
    with pytest.raises(InputError, match="moving maps need >= 2 kernels, got 1"):
        moving_maps([kernel(0, 1)])
    with pytest.raises(InputError, match="need kernels over the same probes"):
        moving_maps([kernel(0, 1), kernel(0, 1).evenly(20)])


def kept(folder: Path, *names: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name in names:
        (folder / "checkpoints" / name).touch()
    return folder


def test_checkpoints_are_chosen_by_step_in_their_order(tmp_path: Path) -> None:
    run = kept(tmp_path, "step-0000000.pt", "step-0000012.pt", "step-10000000.pt", "step-0000400.pt", "trained.pt")
    every = kept_checkpoints(run)
    assert list(every) == ["step-0000000", "step-0000012", "step-0000400", "step-10000000"]
    assert every["step-0000012"] == str(run / "checkpoints" / "step-0000012.pt")
    assert list(kept_checkpoints(run, "last")) == ["step-10000000"]
    assert list(kept_checkpoints(run, [400, 0, 400])) == ["step-0000000", "step-0000400"]
    assert list(kept_checkpoints(run, 12)) == ["step-0000012"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([0, 7], r"checkpoints=\[0, 7\]: there is none of step 7; choose all, last, or from \[0, 12\]"),
        ("first", "checkpoints=first.*choose all, last"),
        ([], r"checkpoints=\[\] names none"),
        (True, "there is none of step True"),
    ],
)
def test_checkpoints_that_are_not_there_are_refused(asked: Any, message: str, tmp_path: Path) -> None:
    run = kept(tmp_path, "step-0000000.pt", "step-0000012.pt", "trained.pt")
    with pytest.raises(InputError, match=message):
        kept_checkpoints(run, asked)


def test_a_run_without_kept_checkpoints_or_not_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kept no checkpoints along its training; train it with training\.ch"):
        kept_checkpoints(kept(tmp_path / "a", "trained.pt"))
    with pytest.raises(InputError, match=r"has not ended its training; continue it with paths\.run="):
        kept_checkpoints(kept(tmp_path / "b", "step-0000000.pt"))
