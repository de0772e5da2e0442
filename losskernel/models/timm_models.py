"""Any network of timm, the collection of image models (optional package)."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from losskernel.errors import InputError, require, require_integer
from losskernel.models.weights import put, read_state
from losskernel.storage.downloads import PREFETCH, impatient, taken

TIMM = "timm"


def timm_model(name: str, outputs: int = 1000, weights: str | None = None, input_size: int | None = None) -> nn.Module:
    """A network of timm by name, such as resnet50.a1_in1k or vit_small_patch16_224; [B, 3, h, w] -> [B, outputs].

    Args:
        name: as timm lists it, with or without the tag of its weights.
        outputs: classes.
        weights: None, initial weights; "timm", pretrained; or the path of a state dict.
        input_size: pixels a side, where the network must know it (transformers); None is what it was trained at.

    Raises:
        InputError: timm or the network is missing, a number out of range, or weights that are missing or do not fit.

    Source: Wightman, PyTorch Image Models.
    """
    config = timm_config(name, "model.name")
    require_integer("model.outputs", outputs, at_least=1)
    options = {}
    if input_size is not None:
        require_integer("model.input_size", input_size, at_least=1)
        # Others take any size, and no argument for it.
        options = {"img_size": input_size} if config["fixed_input_size"] else {}
    known = weights is None or isinstance(weights, str)
    require(known, f"model.weights must be null, timm or the path of a state dict, got {weights!r}")
    if weights == TIMM:
        return _pretrained(name, outputs, config, options)
    model = _timm("model.name").create_model(name, pretrained=False, num_classes=outputs, **options)
    return model if weights is None else put(model, read_state(weights)[0], config["classifier"], weights)


def timm_config(name: str, key: str) -> dict[str, Any]:
    """Return what timm says of a network's weights: input size, mean, std, interpolation, classes.

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


def _pretrained(name: str, outputs: int, config: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    classes = config["num_classes"]
    # timm would put an untrained head in its place without a word.
    require(
        outputs == classes,
        f"model.weights=timm: {name} has a head of {classes} classes, but model.outputs={outputs}; "
        f"set model.outputs={classes}",
    )
    path = _kept(config)
    there = path.is_file() or any(path.glob("snapshots/*/*"))
    try:
        with impatient():
            model = _timm("model.name").create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises a different type for every way a download can fail
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model.weights=timm: the weights of {name} are not at {path} and cannot be had from "
            f"{config.get('hf_hub_id') or config.get('url')} ({reason}); {PREFETCH}, or copy the same folder "
            "from there (HF_HOME and TORCH_HOME move it; model.weights=<file> takes any)"
        ) from error
    taken(f"weights of {name}, timm", path, new=not there)
    return model


def _kept(config: dict[str, Any]) -> Path:
    """Return where the hub's client, or torch's, keeps the weights of a network."""
    if config.get("hf_hub_id") is None:
        return Path(torch.hub.get_dir()) / "checkpoints" / str(config.get("url")).rsplit("/", 1)[-1]
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{config['hf_hub_id'].replace('/', '--')}"


def _timm(key: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"{key}: the package timm is missing; pip install 'losskernel[timm]'") from error
    return timm
