"""Networks for images from torchvision and timm: untrained, pretrained, or with weights from a file.

Errors say what is damaged or does not fit.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from losskernel.errors import InputError, require, require_integer
from losskernel.models.packaged_weights import PACKAGE, packaged_state
from losskernel.models.state_dicts import find_state, load_state, read_weights
from losskernel.storage.downloads import PREFETCH, network_timeout, report_download

TORCHVISION, TIMM = "torchvision", "timm"


def inception_v1(outputs: int = 1000, weights: str | None = None, transform_input: bool | None = None) -> nn.Module:
    """Inception-v1: torchvision's GoogLeNet with BatchNorm, without its auxiliary heads; [B, 3, h, w] -> [B, outputs].

    Args:
        outputs: classes.
        weights: None, initial weights; "torchvision", pretrained on ImageNet; or the path of a state dict, whose
            auxiliary heads, if it has any, are dropped.
        transform_input: undo ImageNet's normalisation and scale inputs to [-1, 1] instead, as the pretrained weights
            were trained; None: for pretrained weights and bare state dicts, as torchvision does, but not for weights
            that this package has trained.

    Raises:
        InputError: a number out of range, or weights that are missing or do not fit.

    Source: Szegedy et al. 2015, "Going deeper with convolutions".
    """
    state, ours = _state("googlenet", weights)
    # Weights trained here saw inputs as the data set normalises them, torchvision's saw [-1, 1].
    if transform_input is None:
        transform_input = weights is not None and not ours
    model = _untrained("googlenet", outputs, aux_logits=False, init_weights=True, transform_input=transform_input)
    # Auxiliary heads serve training alone.
    return put(model, state, "fc", str(weights), without=("aux1.", "aux2.")) if weights is not None else model


def resnet18(outputs: int = 1000, weights: str | None = None) -> nn.Module:
    """torchvision's ResNet-18; arguments and errors as of `inception_v1` (He et al. 2016)."""
    return _torchvision_model("resnet18", outputs, weights, "fc")


def resnet50(outputs: int = 1000, weights: str | None = None) -> nn.Module:
    """torchvision's ResNet-50; arguments and errors as of `inception_v1` (He et al. 2016)."""
    return _torchvision_model("resnet50", outputs, weights, "fc")


def vgg16(outputs: int = 1000, weights: str | None = None) -> nn.Module:
    """torchvision's VGG-16; arguments and errors as of `inception_v1` (Simonyan & Zisserman 2015)."""
    return _torchvision_model("vgg16", outputs, weights, "classifier.6")


def squeezenet1_1(outputs: int = 1000, weights: str | None = None) -> nn.Module:
    """torchvision's SqueezeNet 1.1, without BatchNorm; arguments and errors as of `inception_v1` (Iandola et al. 2016).

    weights="package" takes those that the package ndf carries: Caffe's, for inputs normalised as torchvision does.
    """
    if weights == PACKAGE:
        model = _untrained("squeezenet1_1", outputs)
        return put(model, packaged_state("squeezenet1_1", model), "classifier.1", PACKAGE)
    return _torchvision_model("squeezenet1_1", outputs, weights, "classifier.1")


def timm_model(name: str, outputs: int = 1000, weights: str | None = None, input_size: int | None = None) -> nn.Module:
    """A network of timm by name, such as resnet50.a1_in1k or vit_small_patch16_224; [B, 3, h, w] -> [B, outputs].

    Args:
        name: as timm lists it, with or without the tag of its weights.
        outputs: classes.
        weights: None, initial weights; "timm", pretrained; "package", pretrained, from a Python package that carries
            them (tf_efficientnet_lite0); or the path of a state dict.
        input_size: pixels a side, where the network must know it (transformers); None is what it was trained at.

    Raises:
        InputError: timm or the network is missing, a number out of range, or weights that are missing or do not fit.

    Source: Wightman, PyTorch Image Models.
    """
    config = _timm_config(name, "model.name")
    require_integer("model.outputs", outputs, at_least=1)
    options = {}
    if input_size is not None:
        require_integer("model.input_size", input_size, at_least=1)
        # Networks that take any size have no argument for it.
        options = {"img_size": input_size} if config["fixed_input_size"] else {}
    known = weights is None or isinstance(weights, str)
    require(known, f"model.weights must be null, timm, package or the path of a state dict, got {weights!r}")
    if weights == TIMM:
        return _timm_pretrained(name, outputs, config, options)
    model = _timm("model.name").create_model(name, pretrained=False, num_classes=outputs, **options)
    if weights is None:
        return model
    state = packaged_state(name, model) if weights == PACKAGE else read_state(weights)[0]
    return put(model, state, config["classifier"], weights)


def input_settings(network: str, key: str) -> dict[str, Any]:
    """Return how a network's pretrained weights want images: size, resize, mean, std, interpolation.

    Args:
        network: "torchvision/NAME" or "timm/NAME".
        key: of the configuration, for messages.

    Raises:
        InputError: an unknown network, or timm is missing.
    """
    library, _, name = network.partition("/")
    require(
        library in (TORCHVISION, TIMM) and bool(name),
        f"{key} must be {TORCHVISION}/NAME or {TIMM}/NAME, got {network!r}",
    )
    if library == TIMM:
        config = _timm_config(name, key)
        size, mean, std = config["input_size"][-1], config["mean"], config["std"]
        resize, interpolation = math.floor(size / config["crop_pct"]), config["interpolation"]
    else:
        transforms = _torchvision_weights(name, key).transforms()
        size, mean, std = transforms.crop_size[0], transforms.mean, transforms.std
        resize, interpolation = transforms.resize_size[0], transforms.interpolation.value
    return {"size": size, "resize": resize, "mean": [*mean], "std": [*std], "interpolation": interpolation}


def _torchvision_model(name: str, outputs: int, weights: str | None, head: str) -> nn.Module:
    state, _ = _state(name, weights)
    model = _untrained(name, outputs)
    return put(model, state, head, str(weights)) if weights is not None else model


def _untrained(name: str, outputs: int, **options: bool) -> nn.Module:
    from torchvision.models import get_model  # here, since importing torchvision takes a second

    require_integer("model.outputs", outputs, at_least=1)
    return get_model(name, weights=None, num_classes=outputs, **options)


def _state(name: str, weights: str | None) -> tuple[Any, bool]:
    """Return (content of the weights' file, whether this package saved it); None for initial weights."""
    if weights is None:
        return None, False
    known = isinstance(weights, (str, Path))
    require(known, f"model.weights must be null, torchvision or the path of a state dict, got {weights!r}")
    return (_torchvision_pretrained(name), False) if weights == TORCHVISION else read_state(weights)


def _torchvision_weights(name: str, key: str) -> Any:
    """Return torchvision's entry of a network's best pretrained weights: their address, transforms and classes."""
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(name)["DEFAULT"]
    except (ValueError, KeyError) as error:
        raise InputError(f"{key}: torchvision has no pretrained {name!r}; e.g. googlenet, resnet50, vgg16") from error


def _torchvision_pretrained(name: str) -> Any:
    """Read torchvision's weights from torch hub's cache; download them first if they are not in it."""
    entry = _torchvision_weights(name, "model.weights")
    path = _hub_file(entry.url)
    there = path.is_file()
    if not there:
        try:
            with network_timeout():
                entry.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"model.weights=torchvision: the weights are not at {path} and cannot be downloaded ({error}); "
                f"{PREFETCH}, or copy {entry.url} there (TORCH_HOME moves the folder; model.weights=<file> takes any)"
            ) from error
    report_download(f"weights of {name}, torchvision", path, new=not there)
    return read_state(path)[0]


def _hub_file(url: str) -> Path:
    """Return where torch hub keeps a downloaded file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _timm_config(name: str, key: str) -> dict[str, Any]:
    """Return timm's description of a network's weights: input size, mean, std, interpolation, classes.

    Raises:
        InputError: timm or the network is missing; `key` is named.
    """
    timm = _timm(key)
    known = isinstance(name, str) and timm.is_model(name)
    if not known:
        like = ", ".join(timm.list_models(f"*{name}*")[:5])
        require(known, f"{key}: timm has no network {name!r}; {'e.g. ' + like if like else 'see timm.list_models()'}")
    try:
        return timm.get_pretrained_cfg(name).to_dict()
    except RuntimeError as error:
        raise InputError(f"{key}: timm has no weights of {name!r}; drop the tag after the dot") from error


def _timm_pretrained(name: str, outputs: int, config: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    classes = config["num_classes"]
    # timm would silently replace the head by an untrained one.
    require(
        outputs == classes,
        f"model.weights=timm: {name} has a head of {classes} classes, but model.outputs={outputs}; "
        f"set model.outputs={classes}",
    )
    path = _timm_cache(config)
    there = path.is_file() or any(path.glob("snapshots/*/*"))
    try:
        with network_timeout():
            model = _timm("model.name").create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises a different type for every way a download can fail
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model.weights=timm: the weights of {name} are not at {path} and cannot be downloaded from "
            f"{config.get('hf_hub_id') or config.get('url')} ({reason}); {PREFETCH}, or copy the same folder "
            "from there (HF_HOME and TORCH_HOME move it; model.weights=<file> takes any)"
        ) from error
    report_download(f"weights of {name}, timm", path, new=not there)
    return model


def _timm_cache(config: dict[str, Any]) -> Path:
    """Return where the hub's client, or torch's, keeps the weights of a network."""
    if config.get("hf_hub_id") is None:
        return _hub_file(str(config.get("url")))
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{config['hf_hub_id'].replace('/', '--')}"


def _timm(key: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"{key}: the package timm is missing; pip install 'losskernel[timm]'") from error
    return timm


def read_file(path: str | Path, named: str) -> Any:
    """Return what a file of weights holds, on the CPU.

    Args:
        path: of the file, from this package or from any `torch.save`.
        named: name of the file in messages.

    Raises:
        InputError: there is no such file, it has changed since this package wrote it, or it cannot be read.
    """
    path = Path(path).expanduser()
    require(path.is_file(), f"{named} does not exist; give the path of a saved state dict")
    try:
        return read_weights(path.read_bytes(), named)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        remedy = "restore it from a copy, save it again, or train again in another folder"
        raise InputError(f"{named} cannot be read: {error}; {remedy}") from error


def read_state(path: str | Path) -> tuple[Any, bool]:
    """Return (content, whether this package saved it) of the file that `model.weights` names.

    Raises:
        InputError: as of `read_file`.
    """
    stored = read_file(path, f"model.weights={path}")
    # `save_weights` adds what the weights are about.
    return stored, isinstance(stored, dict) and {"state_dict", "about"} <= stored.keys()


def put(model: nn.Module, content: Any, head: str, source: str, without: Sequence[str] = ()) -> nn.Module:
    """Load the state dict in a file's content into a model, and return the model.

    Args:
        model: takes the weights.
        content: of the file.
        head: name of the layer that gives the outputs.
        source: where the weights come from, for the message.
        without: beginnings of names that are left out.

    Raises:
        InputError: the head has another number of outputs, or the weights are another network's.
    """
    state = find_state(content, model, f"model.weights={source}", without)
    wanted = len(model.get_parameter(f"{head}.weight"))
    given = state.get(f"{head}.weight")  # [classes, features]
    if given is not None:
        require(
            len(given) == wanted,
            f"model.weights={source} has a head of {len(given)} classes, but model.outputs={wanted}; "
            f"set model.outputs={len(given)}",
        )
    return load_state(model, state, f"model.weights={source}")
