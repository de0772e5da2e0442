"""The networks that training kept along the way."""

from collections.abc import Iterator

import torch
from torch import nn

from losskernel.errors import require, require_number
from losskernel.representations.baselines.collect import History


def kept(history: History, model: nn.Module, until: float = 1.0) -> Iterator[nn.Module]:
    """Yield the networks kept in the first `until` share of training's steps, on the model's device.

    The untrained weights of step 0 are left out; the last network kept stands for the end of training.
    """
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    last = max((step for step, _ in history.checkpoints()), default=0)
    for step, network in history.checkpoints():
        if 0 < step <= until * last:
            yield network.to(device)


def require_share(key: str, until: object) -> None:
    """Raise InputError unless `until` is a share of training's steps."""
    require_number(key, until, above=0)
    require(until <= 1, f"{key} must be <= 1, got {until}; it is a share of training's steps")  # pyright: ignore


def require_kept(count: int, until: float = 1.0) -> None:
    """Raise InputError where training kept no weights in time."""
    when = "along training" if until == 1 else f"in the first {until:.0%} of training"
    require(
        count > 0,
        f"no weights were kept {when}; set training.checkpoints=8 and train, for a loaded network has no past",
    )
