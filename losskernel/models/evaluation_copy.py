"""Copies of networks as users hand them over: wrapped, compiled, with weights that hooks compute."""

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from losskernel.errors import InputError, require

Network = TypeVar("Network", bound=nn.Module)


def unwrapped(model: Network) -> Network:
    """Return the network inside DataParallel, DistributedDataParallel and torch.compile; its weights' names follow.

    Raises:
        InputError: its weights have no values yet.
    """
    inner: nn.Module = model
    while True:
        if isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = inner.module
        elif isinstance(original := getattr(inner, "_orig_mod", None), nn.Module):
            inner = original
        else:
            break
    model = cast(Network, inner)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        empty = isinstance(tensor, (UninitializedParameter, UninitializedBuffer))
        require(
            not empty, f"{name} of {type(model).__name__} is not initialised; pass one batch through the model first"
        )
        require(not tensor.is_meta, f"{name} of {type(model).__name__} is on the meta device; load its weights first")
    return model


def evaluation_copy(model: Network) -> Network:
    """Return a copy of the unwrapped network in evaluation mode; the network itself stays as it is.

    Raises:
        InputError: the network's weights have no values yet, or it cannot be copied.
    """
    model = unwrapped(model)
    # Hooks, such as those of weight_norm, leave results of autograd behind, which deepcopy refuses.
    attributes = (value for module in model.modules() for value in vars(module).values())
    computed = [
        part
        for value in attributes
        for part in (
            value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        )
        if isinstance(part, Tensor) and not part.is_leaf
    ]
    # Tensors of inference mode could not take part in a gradient; copies made outside of it can.
    with torch.inference_mode(False), torch.no_grad():
        try:
            copied = copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{type(model).__name__} cannot be copied: {reason}; keep locks, open files and the like out of it"
            ) from error
    return copied.eval()
