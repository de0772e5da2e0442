"""Distances between kernels mean what they say, and noise is not taken for stability."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from planted_runs import TASK, configuration, losses, plant, plant_sweep, plant_turning

from losskernel.errors import InputError
from losskernel.sweeps import Comparison, compare, find_runs
from losskernel.sweeps.comparison_page import like_control
from losskernel.sweeps.design import lay_out
from losskernel.sweeps.read_runs import Run, read_run
from losskernel.sweeps.similarity import measure, paths, stable_stretch


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = plant_turning(tmp_path_factory.mktemp("planted") / "sweep")
    return [read_run(each) for each in find_runs(folder)]


def test_distances_follow_the_kernels(turning: list[Run]) -> None:
    near = measure(turning)
    assert near.members == list(range(6))
    assert near.probes == 40
    from_first = near.distances[0]
    assert from_first[4] > 3 * from_first[1]
    assert (np.diff(from_first[1:]) > 0).all()


def test_the_floor_is_the_distance_of_independent_samples_of_one_kernel(tmp_path: Path) -> None:
    found = []
    for seed in range(8):
        folder = plant(tmp_path / str(seed), configuration(), losses(0, seed, noise=2.0))
        found.append(read_run(folder))
    near = measure(found)
    off = ~np.eye(8, dtype=bool)
    assert np.cos(near.floor()[off]).mean() == pytest.approx(np.cos(near.distances[off]).mean(), rel=0.03)
    assert near.floor()[off].mean() > 0.1


def test_the_longest_stretch_that_can_be_believed_and_stays_the_same_is_stable(turning: list[Run]) -> None:
    design, near = lay_out(turning), measure(turning)
    stretch = stable_stretch(turning, design, near, 0, alike=0.8)
    assert stretch is not None
    assert (stretch.first, stretch.last) == (1, 3)  # the first fails, the fifth is another kernel
    assert stretch.cka == pytest.approx(np.cos(near.distances)[1:4, 1:4].min())
    strict = stable_stretch(turning, design, near, 0, alike=0.9999)
    assert strict is None
    lax = stable_stretch(turning, design, near, 0, alike=0.0)
    assert lax is not None
    assert (lax.first, lax.last) == (1, 5)


def test_of_stretches_as_long_the_one_with_more_passes_wins(tmp_path: Path) -> None:
    verdicts = ["warn", "warn", "fail", "pass", "pass"]
    folder = plant_sweep(tmp_path / "sweep", [1, 10, 100, 1000, 10000], [0.0] * 5, verdicts)
    found = [read_run(each) for each in find_runs(folder)]
    stretch = stable_stretch(found, lay_out(found), measure(found), 0, alike=0.8)
    assert stretch is not None
    assert (stretch.first, stretch.last) == (3, 4)


def test_kernels_of_noise_are_not_stable_however_near_their_seeds_bring_them(tmp_path: Path) -> None:
    for job in range(3):  # one seed: the same noise in each
        plant(tmp_path / str(job), configuration(localization=10.0**job), losses(0, 5, noise=40.0))
    found = [read_run(each) for each in find_runs(tmp_path)]
    near = measure(found)
    assert near.distances.max() < 1e-6
    assert near.reliability.max() < 0.5
    assert stable_stretch(found, lay_out(found), near, 0, alike=0.8) is None


def test_one_chain_cannot_tell_its_noise(tmp_path: Path) -> None:
    for job in range(2):
        plant(tmp_path / str(job), configuration(localization=10.0**job), losses(0, job, chains=1))
    found = [read_run(each) for each in find_runs(tmp_path)]
    near = measure(found)
    assert np.isnan(near.reliability).all()
    assert np.isnan(near.floor()).all()
    assert stable_stretch(found, lay_out(found), near, 0, alike=0.8) is None
    compare(find_runs(tmp_path), tmp_path / "page")  # and is drawn without a floor


def test_kernels_over_other_probes_are_refused_by_name_and_the_rest_is_shown(tmp_path: Path) -> None:
    plant(tmp_path / "0", configuration(localization=1.0), losses(0, 0))
    plant(tmp_path / "1", configuration(localization=2.0), losses(0, 1)[:, :, :30], labels={})
    plant(tmp_path / "2", configuration(localization=3.0), losses(0, 1), labels={"task": TASK[::-1]})
    found = [read_run(each) for each in find_runs(tmp_path)]
    message = r"the kernels of \S+/0 and \S+/1 cannot be compared: their probes are not the same \(40 and 30\)"
    with pytest.raises(InputError, match=message):
        measure(found)
    with pytest.raises(InputError, match=r"\(the label 'task' differs\); keep the data fixed, as with dataset.seed=0"):
        measure([found[0], found[2]])
    said = compare(find_runs(tmp_path), tmp_path / "page").overview()
    assert "cannot be compared" in said
    page = (tmp_path / "page" / "report.html").read_text()
    assert "cannot be compared" in page
    assert not (tmp_path / "page" / "figures" / "kernel_similarity.png").exists()
    assert (tmp_path / "page" / "figures" / "comparison.png").exists()


def test_a_kernel_that_is_missing_or_has_no_structure_is_named(tmp_path: Path) -> None:
    plant_sweep(tmp_path, [1, 2], [0, 0])
    plant(tmp_path / "2", configuration(localization=3.0), np.ones((4, 60, 40)))
    plant(tmp_path / "3", configuration(localization=4.0))
    found = measure([read_run(each) for each in find_runs(tmp_path)])
    assert found.members == [0, 1]
    assert found.left_out[2] == "its kernel has no structure: R is the identity"
    assert "traces.zarr" in found.left_out[3] or "holds no loss trace" in found.left_out[3]
    runs = [read_run(each) for each in find_runs(tmp_path)]
    said = Comparison(runs, lay_out(runs), [], found, "", [None], 0.8, tmp_path).notes()
    assert "run 2 is not among the kernels: its kernel has no structure: R is the identity" in said


def test_many_probes_are_thinned_evenly(turning: list[Run]) -> None:
    assert measure(turning[:2], limit=20).probes == 20


def test_paths_follow_the_swept_value_per_curve_and_seed(tmp_path: Path) -> None:
    job = 0
    for seed in (0, 1):
        for value in (100.0, 1.0, 10.0):
            own = configuration(localization=value) | {"seed": seed}
            plant(tmp_path / str(job), own, losses(0, job))
            job += 1
    found = [read_run(each) for each in find_runs(tmp_path)]
    assert paths(found, lay_out(found), measure(found)) == {"seed 0": [1, 2, 0], "seed 1": [4, 5, 3]}


def test_the_distance_to_a_runs_own_control(tmp_path: Path) -> None:
    plant(tmp_path / "0", configuration(localization=1.0), losses(0, 0), control=losses(0, 1))
    plant(tmp_path / "1", configuration(localization=2.0), losses(0, 2), control=losses(math.pi / 2, 3))
    plant(tmp_path / "2", configuration(localization=3.0), losses(0, 4))
    near = measure([read_run(each) for each in find_runs(tmp_path)])
    same, other, none = near.to_control
    assert same < 0.3 < other
    assert np.isnan(none)
    found = [read_run(each) for each in find_runs(tmp_path)]
    said = like_control(found, lay_out(found), near)
    assert re.search(r"hardly different from the control .*: 1 \(CKA 0\.9\d\d\)$", said)
