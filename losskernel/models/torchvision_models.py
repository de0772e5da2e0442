"""Networks for images from torchvision, with weights that are pretrained, from a file, or yet to be trained."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from losskernel.errors import InputError, require, require_integer
from losskernel.models.weights import put, read_state
from losskernel.storage.downloads import PREFETCH, impatient, taken

TORCHVISION = "torchvision"


def inception_v1(outputs: int = 1000, weights: str | None = None, transform_input: bool | None = None) -> nn.Module:
    """Inception-v1: torchvision's GoogLeNet with BatchNorm, without its auxiliary heads; [B, 3, h, w] -> [B, outputs].

    Args:
        outputs: classes.
        weights: None, initial weights; "torchvision", pretrained on ImageNet; or the path of a state dict, in which
            auxiliary heads may lie: they are dropped.
        transform_input: undo ImageNet's normalisation and scale inputs to [-1, 1] instead, as the pretrained weights
            were trained; None: for pretrained weights and bare state dicts, as torchvision does, but not for weights
            that this package has trained.

    Raises:
        InputError: a number out of range, or weights that are missing or do not fit.

    Source: Szegedy et al. 2015, "Going deeper with convolutions".
    """
    state, ours = _state("googlenet", weights)
    if transform_input is None:
        transform_input = weights is not None and not ours
    model = _built("googlenet", outputs, aux_logits=False, init_weights=True, transform_input=transform_input)
    main = {name: value for name, value in state.items() if not name.startswith(("aux1.", "aux2."))}
    return put(model, main, "fc", str(weights)) if state else model


def resnet18(outputs: int = 1000, weights: str | None = None) -> nn.Module:
    """torchvision's ResNet-18; arguments and errors as of `inception_v1` (He et al. 2016)."""
    return _network("resnet18", outputs, weights, "fc")


def resnet50(outputs: int = 1000, weights: str | None = None) -> nn.Module:
    """torchvision's ResNet-50; arguments and errors as of `inception_v1` (He et al. 2016)."""
    return _network("resnet50", outputs, weights, "fc")


def vgg16(outputs: int = 1000, weights: str | None = None) -> nn.Module:
    """torchvision's VGG-16; arguments and errors as of `inception_v1` (Simonyan & Zisserman 2015)."""
    return _network("vgg16", outputs, weights, "classifier.6")


def torchvision_weights(name: str, key: str) -> Any:
    """Return torchvision's best pretrained weights of a network: their address, transforms and classes.

    Raises:
        InputError: torchvision has no such network; `key` is named.
    """
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(name)["DEFAULT"]
    except (ValueError, KeyError) as error:
        raise InputError(f"{key}: torchvision has no pretrained {name!r}; e.g. googlenet, resnet50, vgg16") from error


def _network(name: str, outputs: int, weights: str | None, head: str) -> nn.Module:
    state, _ = _state(name, weights)
    model = _built(name, outputs)
    return put(model, state, head, str(weights)) if state else model


def _built(name: str, outputs: int, **options: bool) -> nn.Module:
    from torchvision.models import get_model

    require_integer("model.outputs", outputs, at_least=1)
    return get_model(name, weights=None, num_classes=outputs, **options)


def _state(name: str, weights: str | None) -> tuple[dict[str, Tensor], bool]:
    """Return (state dict, whether this package saved it); empty for initial weights."""
    if weights is None:
        return {}, False
    known = isinstance(weights, (str, Path))
    require(known, f"model.weights must be null, torchvision or the path of a state dict, got {weights!r}")
    return (_pretrained(name), False) if weights == TORCHVISION else read_state(weights)


def _pretrained(name: str) -> dict[str, Tensor]:
    """Read torchvision's weights from torch hub's cache, where they are downloaded to if they are not there."""
    entry = torchvision_weights(name, "model.weights")
    path = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    there = path.is_file()
    if not there:
        try:
            with impatient():
                entry.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"model.weights=torchvision: the weights are not at {path} and cannot be downloaded ({error}); "
                f"{PREFETCH}, or copy {entry.url} there (TORCH_HOME moves the folder; model.weights=<file> takes any)"
            ) from error
    taken(f"weights of {name}, torchvision", path, new=not there)
    return read_state(path)[0]
