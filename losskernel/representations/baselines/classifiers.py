"""What a classifier says of the probes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data
from losskernel.errors import require
from losskernel.representations.baselines.features import Watched


def predictions(model: nn.Module, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits [N, K], float64, and the given classes [N] of the probes.

    Raises:
        InputError: the network is no classifier, or the targets are not its classes.
    """
    logits, given = zip(*_parts(Watched(model, []), data), strict=True)
    return torch.cat(logits).numpy(), torch.cat(given).numpy()


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax [N, K] of logits."""
    return torch.as_tensor(logits).softmax(1).numpy()


def require_logits(outputs: Tensor) -> None:
    """Raise InputError unless a network's outputs are [B, K] with two classes or more."""
    shape = tuple(outputs.shape)
    require(
        len(shape) == 2 and shape[1] >= 2,
        f"the network must return logits [probes, classes >= 2], got shape {shape}; drop this baseline",
    )


def _parts(network: Watched, data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    for inputs, targets in network.blocks(data):
        outputs = network.outputs(inputs)
        require_logits(outputs)
        classes = outputs.shape[1]
        whole = targets.ndim == 1 and not targets.is_floating_point()
        require(
            whole and bool(((targets >= 0) & (targets < classes)).all()),
            f"targets must be whole numbers from 0 to {classes - 1}, one a probe, got {targets.dtype} of shape "
            f"{tuple(targets.shape)}; drop this baseline",
        )
        yield outputs.double().cpu(), targets.long().cpu()
