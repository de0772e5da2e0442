"""State dicts as other tools write them: inside checkpoints, under prefixes, in other formats."""

import argparse
import io
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.errors import InputError
from losskernel.storage.locations import one_line
from losskernel.storage.torch_files import require_unchanged

# Wrappers leave these in the names of weights: DataParallel, torch.compile, SWA's AveragedModel.
_WRAPPERS = re.compile(r"(^|\.)(?:module|_orig_mod)(?=\.)")
_BUFFERS = "num_batches_tracked"  # which BatchNorm lacked before torch 0.4.1, and evaluation never reads
_NAMED = 3  # keys that a message names of each kind
# What training scripts keep beside weights, and what loading may safely build.
_SAFE: list[Any] = [
    argparse.Namespace,
    *(pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
    *(np.dtype, np.ndarray, np.float64(0).__reduce__()[0], np.arange(1).__reduce__()[0]),
    # As numpy 1 calls them.
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.arange(1).__reduce__()[0], "numpy.core.multiarray._reconstruct"),
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)),
]


def read_weights(content: bytes, named: str) -> Any:
    """Return what a file of weights holds: torch's format, old or new, or safetensors.

    Args:
        content: of the file.
        named: name of the file in messages.

    Raises:
        InputError: it holds something else; the message says what, and what to do.
        ValueError: it is damaged.
    """
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return _safetensors(content, named)
    if kind := _archive(content):
        raise InputError(f"{named} is {kind}")
    require_unchanged(content)
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever the damaged part raises
        foreign = re.search(r"(?:Unsupported global: GLOBAL|Can only \w+ .*? for|Unsupported class) (\S+)", str(error))
        if foreign is None:
            raise ValueError(f"it is no state ({one_line(error).split('. ')[0][:200]})") from error
        raise InputError(
            f"{named} holds more than weights ({foreign[1]}), and loading that could run any code; open it where it "
            "was made, and save model.state_dict()"
        ) from error


def find_state(content: Any, model: nn.Module, named: str, without: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint, with its names as the model has them where a prefix hides these.

    Args:
        content: of the file.
        model: whose names are looked for.
        named: name of the file in messages.
        without: beginnings of names that are left out.

    Raises:
        InputError: there is no state dict.
    """
    names, candidates = set(model.state_dict()), list(_candidates(content))
    if not candidates:
        kind = type(content).__name__
        held = f" with the keys {', '.join(map(str, list(content)[:_NAMED]))}" if isinstance(content, Mapping) else ""
        raise InputError(f"{named} holds no state dict but a {kind}{held}; save model.state_dict()")
    for candidate in candidates:
        for renamed in _renamed(candidate, names):
            state = {name: value for name, value in renamed.items() if not name.startswith(tuple(without))}
            if not names.symmetric_difference(state) - {name for name in names if name.endswith(_BUFFERS)}:
                return state
    return candidates[0]


def load_state(model: nn.Module, state: Mapping[str, Any], named: str) -> nn.Module:
    """Put weights into a model, and return the model.

    Raises:
        InputError: they are another network's; counts what is missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith(_BUFFERS)]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if isinstance(value, Tensor) and isinstance(state.get(name), Tensor) and state[name].shape != value.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:_NAMED])}{', ...' * (len(keys) > _NAMED)})"
        for kind, keys in kinds
        if keys
    ]
    if faults:
        raise InputError(
            f"{named} does not fit {type(model).__name__}: {'; '.join(faults)}; give the checkpoint of this network, "
            "or the model's settings of the checkpoint"
        )
    try:
        model.load_state_dict(dict(state), strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = " ".join(str(error).split())[:300]
        raise InputError(f"{named} does not fit {type(model).__name__}: {lines}") from error
    return model


def _candidates(content: Any, depth: int = 2) -> Iterator[dict[str, Any]]:
    """Yield the mappings from names to tensors in a checkpoint, the outermost first."""
    if not isinstance(content, Mapping):
        return
    # A network may keep extra states beside its weights, which are no tensors.
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))
    }
    if tensors and len(tensors) == len(content):
        yield tensors
    elif depth:
        first = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
        for key in sorted(content, key=lambda name: first.index(name) if name in first else len(first)):
            yield from _candidates(content[key], depth - 1)


def _renamed(state: dict[str, Any], names: set[str]) -> Iterator[dict[str, Any]]:
    """Yield a state dict under the names that it may be meant to have."""
    yield state
    plain = {_WRAPPERS.sub("", name).removeprefix("."): value for name, value in state.items()}
    yield plain
    # Other networks and losses of a LightningModule lie beside the one that is looked for, under other prefixes.
    for known in sorted(names)[:1]:
        for prefix in {name.removesuffix(known) for name in plain if name.endswith(f".{known}")}:
            yield {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}


def _safetensors(content: bytes, named: str) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise InputError(f"{named} is in the format of safetensors; pip install safetensors") from error
    try:
        return load(content)
    except Exception as error:  # the library's own kind, which is imported nowhere else
        raise ValueError(f"it is damaged ({one_line(error)[:200]})") from error


def _archive(content: bytes) -> str | None:
    """Return what a zip archive that is no file of weights is, and what to do; None for all others."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile:
        return None
    if any("/code/" in entry or entry.endswith("constants.pkl") for entry in entries):
        return "a TorchScript archive; load it with torch.jit.load and save its state_dict()"
    if all(entry.endswith(".npy") for entry in entries):
        return "an archive of numpy arrays; save the weights with torch.save(model.state_dict(), ...)"
    return None
