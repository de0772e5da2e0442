"""The paper's experiment on ImageNet, through the real command line, on a small folder laid out like it."""

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import call
from pictures import draw, googlenet_file, imagenet_like

import losskernel as lk
from losskernel.data.images.image_folders import class_names
from losskernel.models import inception_v1
from losskernel.traces.loss_traces import open_traces

# All that is not like the real thing: less of everything, and only the head's weights move.
SMALL = (
    "analysis=[convergence,neighbours]",
    "baselines=none",
    "analysis.neighbours.beside=[]",
    "analysis.neighbours.misclassified=0",
    "logger=none",
    "progress=false",
    "threads=1",
    "dataset.size=32",
    "dataset.probes_per_class=2",
    "sampler.parameters=[fc.*]",
    "schedule.chains=2",
    "schedule.burn_in=2",
    "schedule.draws=4",
    "schedule.thinning=1",
    "schedule.batch_size=4",
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSKERNEL_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_the_experiment_on_imagenet_runs_as_it_will_on_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    # So that training pictures stream from their files, as those of the real one do.
    monkeypatch.setattr("losskernel.data.images.image_folders._TRAIN_CACHED_BYTES", 0)
    wnids = imagenet_like(tmp_path / "imagenet", classes=20, train=4, val=3)
    weights = googlenet_file(tmp_path)
    real = ("experiment=inception", f"dataset.root={tmp_path / 'imagenet'}", f"model.weights={weights}")
    assert call(*real, *SMALL, "dataset.workers=2", f"paths.run={tmp_path / 'run'}") == 0
    assert "schedule.draws" in capsys.readouterr().out  # four draws cannot be judged, and it says so
    assert multiprocessing.active_children() == []

    traces = open_traces(tmp_path / "run")
    assert traces.losses.shape == (2, 4, 40)
    assert traces.losses.isel(chain=0).std("draw").min() > 0
    assert traces.labels["wnid"].tolist() == [wnid for wnid in wnids for _ in range(2)]
    assert traces.labels["class"].tolist() == [class_names()[wnid] for wnid in traces.labels["wnid"]]
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"report.html", "metrics.json", "config.yaml"}
    assert (tmp_path / "run" / "figures" / "neighbours.png").is_file()

    # The losses at the start are the network's own on the pictures that the ids name.
    crop = lk.data.Preprocessing("torchvision/googlenet").at(32)
    pixels = torch.stack([crop.read(tmp_path / "imagenet" / name) for name in traces.losses["probe"].values])
    targets = torch.tensor([list(class_names()).index(wnid) for wnid in traces.labels["wnid"]])
    with torch.no_grad():
        expected = lk.losses.cross_entropy(inception_v1(weights=str(weights)).eval()(crop(pixels)), targets)
    np.testing.assert_allclose(traces.dataset.start_losses, expected, rtol=1e-4)
    (cached,) = (tmp_path / "cache").iterdir()
    np.testing.assert_array_equal(np.load(cached), pixels)


def test_what_is_missing_is_said_before_compute_with_all_other_faults(tmp_path: Path, capsys: Any) -> None:
    faults = ("model.weights=nowhere.pt", "sampler.step_size=-1", "schedule.draws=1")
    for root in ("null", str(tmp_path / "nothing")):
        assert call("experiment=inception", f"dataset.root={root}", *SMALL[:6], *faults, f"paths.run={tmp_path}") == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 4
        for key in ("dataset.root", "model.weights=nowhere.pt", "sampler.step_size", "schedule.draws"):
            assert sum(line.startswith(f"losskernel: {key}") for line in lines) == 1, lines
        assert any("register at image-net.org" in line for line in lines)


def test_a_run_that_is_refused_decodes_nothing(tmp_path: Path, capsys: Any) -> None:
    for name in ("ant", "bee"):
        for number in range(3):
            draw(tmp_path / "own" / name / f"{number}.jpg", number)
    own = ("model=inception_v1", "model.outputs=2", "dataset=image_folder", f"dataset.root={tmp_path / 'own'}")
    assert call(*own, *SMALL[:9], "training.steps=0", "schedule.batch_size=7", f"paths.run={tmp_path}") == 1
    assert "schedule.batch_size must be <= the 6 training samples, got 7" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
