"""Evaluate a trained network on the probes: outputs, module activations, classes and per-sample gradients.

Everything here works on a copy of the network in eval mode, block by block, on the device of its weights.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from losskernel.data.base import Data, Loss
from losskernel.data.loading import BlockLoader
from losskernel.errors import require

_BLOCK = 64  # probes per forward pass


class Evaluator:
    """A copy of a network in eval mode that records the inputs and outputs of some of its modules.

    Args:
        model: the network; copied, never changed.
        names: modules to record, as `named_modules` calls them.
    """

    def __init__(self, model: nn.Module, names: Iterable[str] = ()) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._device = device_of(self.model)
        self._inputs: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}
        modules = dict(self.model.named_modules())
        for name in names:
            modules[name].register_forward_hook(self._recorder(name))

    def blocks(self, data: Data) -> BlockLoader:
        """Return (inputs, targets) of the probes, block by block."""
        return BlockLoader(data.probes, _BLOCK, data.workers, self._device)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return the network's outputs [B, ...]."""
        return self.model(inputs)

    def last_input(self, inputs: Tensor) -> Tensor:
        """Return the input of the recorded module that is evaluated last, averaged over positions, [B, d].

        Raises:
            InputError: no recorded module is evaluated.
        """
        self._inputs.clear()
        self.model(inputs)
        require(
            len(self._inputs) > 0,
            f"{type(self.model).__name__} evaluates no torch.nn.Linear; "
            "use losskernel.representations.baselines.Layers",
        )
        values = list(self._inputs.values())[-1]
        return values.flatten(1, -2).mean(1) if values.ndim > 2 else values

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs of all recorded modules, averaged over positions, [B, d], in the order of evaluation."""
        self._outputs.clear()
        self.model(inputs)
        return {name: _pooled(values) for name, values in self._outputs.items()}

    def _recorder(self, name: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            first = inputs[0] if inputs else None
            for store, value in ((self._inputs, first), (self._outputs, output)):
                # A module that is evaluated twice counts once, at its last evaluation: the old entry goes first, so
                # that the dictionary's order is the order of evaluation.
                store.pop(name, None)
                if isinstance(value, Tensor):
                    store[name] = value.detach()

        return record


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's weights; the CPU where it has none."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def predictions(model: nn.Module, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits [N, K], float64, and the given classes [N] of the probes.

    Raises:
        InputError: the network is no classifier, or the targets are not its classes.
    """
    network = Evaluator(model)
    logits, given = [], []  # blocks of [B, K] and [B]
    for inputs, targets in network.blocks(data):
        outputs = network.outputs(inputs)
        require_logits(outputs)
        classes = outputs.shape[1]
        whole = targets.ndim == 1 and not targets.is_floating_point()
        require(
            whole and bool(((targets >= 0) & (targets < classes)).all()),
            f"targets must be whole numbers from 0 to {classes - 1}, one per probe, got {targets.dtype} of shape "
            f"{tuple(targets.shape)}; drop this baseline",
        )
        # Double precision from here on: differences of logits are margins, and softmax of them probabilities.
        logits.append(outputs.double().cpu())
        given.append(targets.long().cpu())
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


def classifies(outputs: Tensor, targets: Tensor) -> bool:
    """Whether outputs [B, K] are logits of the classes that targets [B] number."""
    return outputs.ndim == 2 and outputs.shape[1] >= 2 and not targets.is_floating_point()


def log_odds(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the margin log p / (1 - p) of the target's probability p, [B], exact where p rounds to 1.

    Source: Park et al. 2023, arXiv 2303.14186, whose datamodels predict it.
    """
    targets = targets.long()[:, None]
    given = targets == torch.arange(outputs.shape[1], device=outputs.device)  # [B, K]
    # log p / (1 - p) = z_y - logsumexp of the other logits: no difference 1 - p is taken.
    return outputs.gather(1, targets)[:, 0] - torch.logsumexp(outputs.masked_fill(given, -torch.inf), dim=1)


def float_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return name -> weight of the real-valued weights, the ones that a loss can be differentiated in."""
    return {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}


def gradients_one_by_one(
    model: nn.Module, loss: Loss, weights: Iterable[Tensor], inputs: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Yield each sample's loss gradient in some weights of the model, so that one gradient is in memory at a time."""
    # Switched on here, since `Evaluator` switches gradients off for everything else.
    free = [weight.requires_grad_() for weight in weights]
    for sample in range(len(inputs)):
        value = loss(model(inputs[sample : sample + 1]), targets[sample : sample + 1]).sum()
        # Weights that the loss does not depend on get zeros.
        yield torch.autograd.grad(value, free, materialize_grads=True)


def gradients_side_by_side(
    model: nn.Module, loss: Loss, weights: Mapping[str, Tensor], inputs: Tensor, targets: Tensor
) -> list[Tensor]:
    """Return all samples' loss gradients [B, ...], one tensor per weight, by one vectorised backward pass."""

    def sample_loss(weights: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (sample[None],)), target[None]).sum()

    return list(vmap(grad(sample_loss), in_dims=(None, 0, 0))(dict(weights), inputs, targets).values())


def _pooled(values: Tensor) -> Tensor:
    """Average over positions: images are [B, units, height, width], sequences [B, positions, units]."""
    return values.mean(1) if values.ndim == 3 else values.flatten(2).mean(2) if values.ndim > 3 else values
