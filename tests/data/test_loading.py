import functools
import gc
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import draw
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

import losskernel as lk
from losskernel.data import base as samples
from losskernel.data.base import PackedTensors
from losskernel.data.images.image_files import CachedImages, Crop, ImageFiles
from losskernel.data.loading import BlockLoader, MinibatchIndices, MinibatchLoader, _held_on
from losskernel.errors import InputError
from losskernel.training import Training, fit

CPU = torch.device("cpu")
CROP = Crop(8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear")
SGLD = functools.partial(lk.SGLD, step_size=1e-4, nbeta=10.0, localization=10.0)
SHORT = lk.Schedule(chains=2, burn_in=3, draws=4, thinning=2, batch_size=4)


class Counted(Dataset):
    """A plain dataset of one's own that counts how often its samples are asked for."""

    def __init__(self, count: int) -> None:
        self.inputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
        self.asked = np.zeros(count, int)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        self.asked[index] += 1
        return self.inputs[index], float(self.inputs[index].sum())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    root = tmp_path_factory.mktemp("pictures")
    names = [draw(root / f"{number}.png", number).name for number in range(23)]
    return ImageFiles(root, names, [number % 5 for number in range(23)], CROP)


def data(train: Dataset, workers: int = 0) -> lk.Data:
    probes = Subset(train, range(6))
    return lk.Data(train=train, probes=probes, loss=lk.losses.cross_entropy, workers=workers)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


@pytest.fixture
def no_collector() -> Any:
    """What is not let go by name stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_minibatches_from_files_are_those_from_memory(files: ImageFiles, tmp_path: Path) -> None:
    def minibatches(train: Dataset, workers: int, first: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
        load = MinibatchLoader(data(train, workers), MinibatchIndices(3, [0, 4], 23, 5, first), CPU)
        result = [load() for _ in range(9 - first)]  # past the end of two epochs of four
        load.close()
        return result

    cached = CachedImages(files, tmp_path, 0)
    expected = minibatches(cached, 0)
    assert expected[0][0].shape == (2, 5, 3, 8, 8)
    rows = MinibatchIndices(3, [0, 4], 23, 5)()
    assert torch.equal(expected[0][0][1, 2], files[int(rows[1, 2])][0])
    for train, workers, first in (
        (files, 0, 0),
        (files, 2, 0),
        (files, 2, 6),
        (PackedTensors(*cached.held(), CROP), 0, 0),
    ):
        for result, wanted in zip(minibatches(train, workers, first), expected[first:], strict=True):
            assert torch.equal(result[0], wanted[0])
            assert torch.equal(result[1], wanted[1])


def test_workers_stay_until_they_are_let_go(files: ImageFiles, no_collector: None) -> None:
    load = MinibatchLoader(data(files, 2), MinibatchIndices(0, [0], 23, 5), CPU)
    load()
    first = {child.pid for child in multiprocessing.active_children()}
    for _ in range(10):
        load()
    assert {child.pid for child in multiprocessing.active_children()} == first
    assert len(first) == 2
    load.close()
    assert multiprocessing.active_children() == []
    with pytest.raises(StopIteration):
        load()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_workers_outlast_ctrl_c_and_a_schedulers_signals(files: ImageFiles, number: int) -> None:
    load = MinibatchLoader(data(files, 2), MinibatchIndices(0, [0], 23, 5), CPU)
    for _ in range(2):  # one from either process: before its first, it does not listen yet
        load()
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, number)  # as a terminal and SLURM do to all processes of a command
    for _ in range(20):
        load()
    assert len(multiprocessing.active_children()) == 2
    load.close()


def test_chains_from_files_are_those_from_memory_and_leave_no_process(files: ImageFiles, no_collector: None) -> None:
    held = TensorDataset(*lk.data.stack(files))
    expected = lk.sample(network(), data(held), SGLD, SHORT, chains_per_fit=1, progress=False)
    result = lk.sample(network(), data(files, 2), SGLD, SHORT, chains_per_fit=1, progress=False)
    assert multiprocessing.active_children() == []
    np.testing.assert_array_equal(result.losses, expected.losses)
    few = Training(steps=5, batch_size=4, checkpoints=0)
    weights = [fit(network(), item, few, progress=False)[1].weight for item in (data(held), data(files, 2))]
    assert multiprocessing.active_children() == []
    assert torch.equal(*weights)


def test_a_broken_file_ends_a_run_with_its_name(tmp_path: Path) -> None:
    names = [draw(tmp_path / f"{number}.png", number).name for number in range(12)]
    (tmp_path / "11.png").write_text("no picture")
    broken = ImageFiles(tmp_path, names, [0] * 12, CROP)
    with pytest.raises(InputError, match=r"11\.png cannot be read as an image") as raised:
        lk.sample(network(), data(broken, 2), SGLD, SHORT, progress=False)
    assert len(str(raised.value).splitlines()) == 1


def test_plain_probes_are_read_once_for_all_draws() -> None:
    probes = Counted(7)
    plain = lk.Data(train=TensorDataset(torch.zeros(8, 3), torch.zeros(8)), probes=probes, loss=lk.losses.squared_error)
    traces = lk.sample(nn.Linear(3, 1), plain, SGLD, SHORT, progress=False)
    assert traces.losses.shape == (2, 4, 7)
    assert probes.asked.max() <= 3  # one looks at the first to learn the size, one at both ends
    assert (probes.asked[1:-1] == 1).all()
    assert lk.Data(train=plain.train, probes=plain.probes, loss=plain.loss).probes is plain.probes


def test_probes_too_large_to_be_kept_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "KEPT_BYTES", 7 * 3 * 4 - 1)
    probes = Counted(7)
    plain = lk.Data(train=probes, probes=probes, loss=lk.losses.squared_error)
    blocks = BlockLoader(plain.probes, 3, 0, CPU)
    for _ in range(2):
        parts = list(blocks)
        assert [len(inputs) for inputs, _ in parts] == [3, 3, 1]
        assert torch.equal(torch.cat([inputs for inputs, _ in parts]), probes.inputs)
    assert (probes.asked[1:] == 2).all()


def test_large_blocks_come_in_small_pieces(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losskernel.data.base._BATCH", 4)
    parts = list(BlockLoader(files, 10, 2, CPU))
    assert [len(inputs) for inputs, _ in parts] == [10, 10, 3]
    assert torch.equal(torch.cat([inputs for inputs, _ in parts]), lk.data.stack(files)[0])
    assert torch.cat([targets for _, targets in parts]).tolist() == [number % 5 for number in range(23)]


def test_probes_larger_than_the_device_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    samples = TensorDataset(torch.zeros(51, dtype=torch.uint8), torch.zeros(51))
    assert _held_on(samples, torch.device("cuda"))[0] is samples.tensors[0]
    assert _held_on(samples, torch.device("meta"))[0].device.type == "meta"


def test_loading_leaves_the_callers_random_numbers_alone(files: ImageFiles, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    lk.data.stack(files, 3)
    list(BlockLoader(files, 10, 0, CPU))
    MinibatchLoader(data(files), MinibatchIndices(0, [0], 23, 5), CPU)()
    CachedImages(files, tmp_path, 0).held()
    assert torch.equal(torch.get_rng_state(), before)
