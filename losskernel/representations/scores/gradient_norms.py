"""Exact norms of per-sample gradients."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from losskernel.data.base import Data, Loss
from losskernel.errors import require
from losskernel.representations.baselines.features import Watched
from losskernel.sampling.engine.stacked_model import stackable

_SAMPLES = 64  # whose gradients are held at once, at most
# Beyond as many numbers at once, gradients side by side leave the caches and take longer than one after another.
_NUMBERS = 2**20


def gradient_norms(model: nn.Module, data: Data) -> Tensor:
    """Return the norm of each probe's gradient of its own loss in all weights, [N], float64, in evaluation mode.

    Small networks without convolutions are differentiated many samples at a time, others sample by sample.

    Raises:
        InputError: the network has no weights.
    """
    network = Watched(model, [])
    named = network.model.named_parameters()
    weights: dict[str, Tensor] = {name: weight for name, weight in named if weight.is_floating_point()}
    require(len(weights) > 0, f"{type(model).__name__} has no weights; drop this baseline")
    together = _NUMBERS // sum(weight.numel() for weight in weights.values()) if stackable(model) else 0
    parts: list[Tensor] = []
    for inputs, targets in network.blocks(data):
        if together >= 2:
            size = min(together, _SAMPLES)
            pairs = zip(inputs.split(size), targets.split(size), strict=True)
            parts += [_side_by_side(network.model, data.loss, weights, *pair) for pair in pairs]
        else:
            parts.append(_one_by_one(network.model, data.loss, weights, inputs, targets))
    return torch.cat(parts).double().cpu()


def _side_by_side(model: nn.Module, loss: Loss, weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    def own(weights: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (sample[None],)), target[None]).sum()

    rows = vmap(grad(own), in_dims=(None, 0, 0))(weights, inputs, targets)
    return torch.stack([row.reshape(len(row), -1).norm(dim=1) for row in rows.values()]).norm(dim=0)


def _one_by_one(model: nn.Module, loss: Loss, weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    free = [weight.requires_grad_() for weight in weights.values()]
    norms: list[Tensor] = []
    for sample, target in zip(inputs, targets, strict=True):
        value = loss(model(sample[None]), target[None]).sum()
        rows = torch.autograd.grad(value, free, materialize_grads=True)
        norms.append(torch.stack([row.norm() for row in rows]).norm())
    return torch.stack(norms)
