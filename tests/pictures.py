"""Picture files for tests: folders laid out like ImageNet, CIFAR's archives, weights like torchvision's."""

import functools
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from losskernel.data.images.image_folders import class_names


def shared_data(name: str) -> Path:
    """Return a file of the folder of real networks and pictures; where it is not there, the test is skipped by name."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / name
    if not path.exists():
        pytest.skip(f"the real data are not on this machine: there is no {path}")
    return path


def draw(path: Path, number: int, mode: str = "RGB") -> Path:
    """Write a picture of 80 × 64 pixels whose content depends on a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def imagenet_like(root: Path, classes: int = 20, train: int = 8, val: int = 4) -> list[str]:
    """Lay a folder out like ImageNet, with wnids spread over all of it; return them."""
    wnids = list(class_names())[:: 1000 // classes][:classes]
    for number, wnid in enumerate(wnids):
        for each in range(train):
            draw(root / "train" / wnid / f"{wnid}_{each}.JPEG", 100 * number + each)
        for each in range(val):
            draw(root / "val" / wnid / f"ILSVRC2012_val_{each:08d}.JPEG", 100 * number + 50 + each)
    return wnids


def settled(model: nn.Module) -> nn.Module:
    """Give BatchNorms the statistics of some noise: with those of an untrained network its outputs know no input."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@functools.cache
def googlenet_file(folder: Path) -> Path:
    """Write a state dict like torchvision's own file: 1,000 outputs, and the auxiliary heads."""
    from torchvision.models import googlenet

    torch.manual_seed(0)
    model = settled(googlenet(num_classes=1000, aux_logits=True, init_weights=True))
    torch.save(model.state_dict(), folder / "googlenet.pth")
    return folder / "googlenet.pth"


def cifar_like(root: Path, monkeypatch: pytest.MonkeyPatch, classes: int, test: int = 4) -> np.ndarray:
    """Write archives in the form of CIFAR's with `test` test pictures a class; return the test pictures' pixels.

    torchvision then checks only that the files are there.
    """
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, _: os.path.isfile(path))
    rng = np.random.default_rng(classes)

    def entry(each: int) -> dict[str, Any]:
        labels = list(range(classes)) * each
        pixels = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        if classes == 10:
            return {"data": pixels, "labels": labels}
        return {"data": pixels, "fine_labels": labels, "coarse_labels": [label // 5 for label in labels]}

    names = [f"class {number}" for number in range(classes)]
    tested = entry(test)
    files: dict[str, Any]
    if classes == 10:
        folder = root / "cifar-10-batches-py"
        files = {f"data_batch_{number}": entry(4) for number in range(1, 6)}
        files |= {"test_batch": tested, "batches.meta": {"label_names": names}}
    else:
        folder = root / "cifar-100-python"
        coarse = [f"group {number}" for number in range(20)]
        files = {"train": entry(2), "test": tested}
        files["meta"] = {"fine_label_names": names, "coarse_label_names": coarse}
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return tested["data"].reshape(-1, 3, 32, 32)
