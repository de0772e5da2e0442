"""Data sets that hold or read something else have another digest, the same ones the same in another process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from losskernel.data import Data, Preprocessing, image_folder
from losskernel.data.identity import _READ_SAMPLES, dataset_digest
from losskernel.losses import cross_entropy

X = torch.arange(60.0).reshape(12, 5)
Y = torch.arange(12) % 3


class Held(Dataset[Any]):
    """Reads from a tensor of its own."""

    def __init__(self, inputs: torch.Tensor, factor: float = 1.0) -> None:
        self.inputs, self.factor = inputs, factor

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> Any:
        return self.factor * self.inputs[row] + 0.5, row % 3


class Noisy(Held):
    def __getitem__(self, row: int) -> Any:
        return self.inputs[row] + self.factor * torch.randn(5), row % 3


class Files(Dataset[Any]):
    """More samples than are read, one file of bytes each."""

    def __init__(self, folder: Path, count: int = _READ_SAMPLES + 1) -> None:
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        return torch.tensor(list((self.folder / str(row % 3)).read_bytes()), dtype=torch.float32), 0


class Handle(Files):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.file = open(folder / "0", "rb")  # noqa: SIM115


BUILDERS: dict[str, Any] = {
    "tensors": lambda: TensorDataset(X, Y),
    "other inputs": lambda: TensorDataset(X + 1, Y),
    "other targets": lambda: TensorDataset(X, Y.flip(0)),
    "some rows": lambda: Subset(TensorDataset(X, Y), [0, 2]),
    "other rows": lambda: Subset(TensorDataset(X, Y), [0, 3]),
    "in another order": lambda: Subset(TensorDataset(X, Y), [2, 0]),
    "of one's own": lambda: Held(X),
    "with other content": lambda: Held(X + 1),
    "with other code": lambda: Held(X, 2.0),
    "random": lambda: Noisy(X),
    "more random": lambda: Noisy(X, 2.0),
    "list": lambda: [(x + 3, int(y)) for x, y in zip(X, Y, strict=True)],
    "large": lambda: Held(torch.zeros(_READ_SAMPLES + 1, 5)),
    "large, one number changed": lambda: Held(torch.zeros(_READ_SAMPLES + 1, 5).index_fill(0, torch.tensor([3]), 1.0)),
}


def digests() -> dict[str, str]:
    return {name: dataset_digest(build()) for name, build in BUILDERS.items()}


def test_digests_tell_data_sets_apart_and_agree_between_processes() -> None:
    here = digests()
    assert len(set(here.values())) == len(here)
    code = f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_identity as t; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(json.dumps(t.digests()))"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == here


def test_probes_that_are_read_once_count_by_what_they_hold() -> None:
    kept = Data(train=TensorDataset(X, Y), probes=Held(X), loss=cross_entropy).probes
    assert dataset_digest(kept) == dataset_digest(Held(X))


def test_files_count_by_size_and_time_where_not_all_are_read(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).write_bytes(b"abc")
    before = dataset_digest(Files(tmp_path))
    assert dataset_digest(Files(tmp_path)) == before
    (tmp_path / "1").write_bytes(b"abd")
    os.utime(tmp_path / "1", (1, 1))
    assert dataset_digest(Files(tmp_path)) != before


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).write_bytes(b"abc")
    assert dataset_digest(Handle(tmp_path)).startswith("unknown (_io.BufferedReader")


def pictures(root: Path, brightness: int) -> None:
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            path = root / kind / f"{number}.bmp"
            Image.new("RGB", (16, 16), (brightness,) * 3).save(path)
            os.utime(path, (315532800, 315532800))  # as archives do


@pytest.mark.parametrize("change", ["folder", "content"])
def test_pictures_of_one_name_size_and_time_are_told_apart(change: str, tmp_path: Path) -> None:
    def brightness(root: Path) -> float:
        preprocessing = Preprocessing(resize=16, mean=[0, 0, 0], std=[1, 1, 1])
        options = {"size": 16, "probes_per_class": 3, "workers": 0, "cache": str(tmp_path / "cache")}
        data = image_folder(root=str(root), preprocessing=preprocessing, **options)
        seen.append(dataset_digest(data.probes))
        return float(data.probes.held()[0].float().mean())  # type: ignore[attr-defined]

    seen: list[str] = []
    first, second = tmp_path / "first", tmp_path / ("second" if change == "folder" else "first")
    pictures(first, 30)
    assert brightness(first) == 30
    pictures(second, 220)
    assert brightness(second) == 220
    assert brightness(second) == 220
    assert seen[0] != seen[1] == seen[2]


def test_the_same_pictures_elsewhere_are_the_same(tmp_path: Path) -> None:
    """A compute node has its own copy of the data."""
    preprocessing = Preprocessing(resize=16, mean=[0, 0, 0], std=[1, 1, 1])
    digests_of = []
    for folder in ("shared", "scratch"):
        pictures(tmp_path / folder, 50)
        root = str(tmp_path / folder)
        data = image_folder(root=root, size=16, probes_per_class=3, workers=0, preprocessing=preprocessing)
        digests_of.append((dataset_digest(data.train), dataset_digest(data.probes)))
    assert digests_of[0] == digests_of[1]


def test_random_transforms_follow_the_seed_alone() -> None:
    from losskernel.data.loading import MinibatchIndices, MinibatchLoader

    data = Data(train=Noisy(X), probes=TensorDataset(X, Y), loss=cross_entropy)

    def batches(workers: int, chains: list[int], seed: int = 0, first: int = 0) -> torch.Tensor:
        import dataclasses

        indices = MinibatchIndices(seed, chains, 12, 4, first)
        load = MinibatchLoader(dataclasses.replace(data, workers=workers), indices, torch.device("cpu"))
        try:
            return torch.stack([load()[0] for _ in range(4 - first)])
        finally:
            load.close()

    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = batches(0, [0, 1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(batches(0, [0, 1]), whole)
    assert torch.equal(batches(1, [0, 1]), whole)
    assert torch.equal(batches(0, [1])[:, 0], whole[:, 1])  # a chain's minibatches do not depend on its neighbours
    assert torch.equal(batches(0, [0, 1], first=2), whole[2:])  # a resumed chain goes on with the same
    assert not torch.equal(batches(0, [0, 1], seed=1), whole)
    assert len(np.unique(whole.numpy())) == whole.numel()
