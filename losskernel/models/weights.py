"""Weights from files, ours and other people's, with errors that say what is damaged or does not fit."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from losskernel.errors import InputError, require
from losskernel.storage.torch_files import state_from_bytes


def read_file(path: str | Path, named: str) -> Any:
    """Return what a file of weights holds, on the CPU.

    Args:
        path: of the file, from this package or from any `torch.save`.
        named: name of the file in messages.

    Raises:
        InputError: there is no such file, it has changed since this package wrote it, or it cannot be read.
    """
    path = Path(path)
    require(path.is_file(), f"{named} does not exist; give the path of a saved state dict")
    try:
        return state_from_bytes(path.read_bytes())
    except (OSError, ValueError) as error:
        remedy = "restore it from a copy, save it again, or train again in another folder"
        raise InputError(f"{named} cannot be read: {error}; {remedy}") from error


def fill(model: nn.Module, weights: Any, named: str) -> nn.Module:
    """Put weights into a model, and return the model.

    Raises:
        InputError: they are another network's; `named` is their name in the message.
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = " ".join(str(error).split())[:300]
        raise InputError(f"{named} does not fit {type(model).__name__}: {lines}") from error
    return model


def read_state(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """Return (state dict, whether this package saved it) of the file that `model.weights` names.

    Raises:
        InputError: as of `read_file`, or the file holds no state dict.
    """
    stored = read_file(path, f"model.weights={path}")
    # `save_weights` adds what the weights are about; other people's files hold the state dict itself.
    ours = isinstance(stored, dict) and {"state_dict", "about"} <= stored.keys()
    state = stored["state_dict"] if ours else stored
    held = isinstance(state, dict) and len(state) > 0
    held = held and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    require(held, f"model.weights={path} holds no state dict; save model.state_dict() with torch")
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
    given = state.get(f"{head}.weight")  # [classes, features]
    if given is not None:
        require(
            len(given) == wanted,
            f"model.weights={source} has a head of {len(given)} classes, but model.outputs={wanted}; "
            f"set model.outputs={len(given)}",
        )
    return fill(model, state, f"model.weights={source}")
