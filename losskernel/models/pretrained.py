"""Putting trained weights into a network: from a file, with errors that say what does not fit."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from losskernel.errors import InputError, require


def read_state(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """Return (state dict, whether this package saved it) of a file.

    Raises:
        InputError: there is no such file, or it holds no state dict.
    """
    path = Path(path)
    require(path.is_file(), f"model.weights={path}: there is no such file; give the path of a state dict")
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for every way a file can be broken
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"model.weights={path} cannot be read ({reason}); save the state dict again") from error
    ours = isinstance(stored, dict) and {"state_dict", "about"} <= stored.keys()
    state = stored["state_dict"] if ours else stored
    named = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    require(named and len(state) > 0, f"model.weights={path} holds no state dict; save model.state_dict() with torch")
    return dict(state), ours


def put(model: nn.Module, state: dict[str, Tensor], head: str, source: str) -> nn.Module:
    """Load a state dict into a model, and return the model.

    Args:
        model: takes the weights.
        state: name -> weights.
        head: name of the layer that gives the outputs.
        source: where the weights come from, for the message.

    Raises:
        InputError: the head has another number of outputs, or the weights are another network's.
    """
    wanted = len(model.get_parameter(f"{head}.weight"))
    found = state.get(f"{head}.weight")
    if found is not None:
        require(
            len(found) == wanted,
            f"model.weights={source} has a head of {len(found)} classes, but model.outputs={wanted}; "
            f"set model.outputs={len(found)}",
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(str(error).split())[:300]
        raise InputError(f"model.weights={source} holds the weights of another network: {lines}") from error
    return model
