"""Evaluate a trained network on the probes: outputs, module activations, classes and per-sample gradients.

Everything here works on a copy of the network in eval mode, block by block, on the device of its weights. Also how the
network came about: its kept checkpoints, and ways to train or sample again (`History`).
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from losskernel.data.base import Data, Loss
from losskernel.data.loading import BlockLoader
from losskernel.errors import require, require_number
from losskernel.traces.loss_traces import LossTraces

_BLOCK = 64  # probes per forward pass
# Which kept checkpoints to look at: "none", "all", or a list of steps.
Checkpoints = str | Sequence[int]


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

    def last_input(self, inputs: Tensor) -> Tensor:
        """Return the input of the recorded head that is evaluated last, averaged over positions, [B, d].

        A head is a linear layer or a convolution with as many outputs as the network; else any linear layer.

        Raises:
            InputError: none is evaluated.
        """
        self._inputs.clear()
        classes = self.model(inputs).shape[-1]
        modules = {name: self.model.get_submodule(name) for name in self._inputs}
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        heads = [name for name, module in modules.items() if _outputs(module) == classes] or linear
        require(
            len(heads) > 0,
            f"{type(self.model).__name__} evaluates no linear layer, and no convolution to its {classes} outputs; "
            "use losskernel.representations.baselines.Layers",
        )
        values = self._inputs[heads[-1]]
        if heads[-1] in linear:  # units come last, positions before them
            return values.flatten(1, -2).mean(1) if values.ndim > 2 else values
        return values.flatten(2).mean(2)

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


def _outputs(module: Any) -> int:
    """Return how many units or channels a linear layer or a convolution puts out."""
    return module.out_features if isinstance(module, nn.Linear) else module.out_channels


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
        outputs = network.model(inputs)
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


def float_weights(model: nn.Module, remedy: str = "") -> dict[str, nn.Parameter]:
    """Return name -> weight of the real-valued weights, the ones that a loss can be differentiated in.

    Raises:
        InputError: there are none, and a remedy is given.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}
    require(len(weights) > 0 or not remedy, f"{type(model).__name__} has no weights; {remedy}")
    return weights


def gradients_one_by_one(
    model: nn.Module, loss: Loss, weights: Iterable[Tensor], inputs: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Yield each sample's loss gradient in some weights of the model, so that one gradient is in memory at a time."""
    # Switched on here, since `Evaluator` switches gradients off for everything else.
    free = [weight.requires_grad_() for weight in weights]
    for sample in range(len(inputs)):
        value = loss(model(inputs[sample : sample + 1].clone()), targets[sample : sample + 1]).sum()
        # Weights that the loss does not depend on get zeros.
        yield torch.autograd.grad(value, free, materialize_grads=True)


def gradients_side_by_side(
    model: nn.Module, loss: Loss, weights: Mapping[str, Tensor], inputs: Tensor, targets: Tensor
) -> list[Tensor]:
    """Return all samples' loss gradients [B, ...], one tensor per weight, by one vectorised backward pass."""

    def sample_loss(weights: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (sample[None].clone(),)), target[None]).sum()

    return list(vmap(grad(sample_loss), in_dims=(None, 0, 0))(dict(weights), inputs, targets).values())


def _pooled(values: Tensor) -> Tensor:
    """Average over positions: images are [B, units, height, width], sequences [B, positions, units]."""
    return values.mean(1) if values.ndim == 3 else values.flatten(2).mean(2) if values.ndim > 3 else values


@dataclass(frozen=True)
class History:
    """What baselines and sources may ask about a network's past.

    Attributes:
        retrain: (data, seed) -> another network trained the same way on other data, from its own initial weights; it
            can be pickled and sent to another process.
        checkpoints: -> (step, network) of the weights kept along training, in order; empty for a loaded network.
        folder: where a baseline may store expensive intermediate results, in a subfolder of its own.
        sample: (network, name below the folder, changed sampler settings) -> the traces of another loss kernel,
            sampled as the run's; a complete one is opened, an interrupted one resumed.
        step: of training at the trained network's weights; None for a loaded network.
    """

    retrain: Callable[[Data, int], nn.Module]
    checkpoints: Callable[[], Iterator[tuple[int, nn.Module]]]
    folder: Path
    sample: Callable[[nn.Module, str, Mapping[str, float]], LossTraces] | None = None
    step: int | None = None

    def trained_part(self, model: nn.Module, until: float = 1.0) -> Iterator[nn.Module]:
        """Yield the networks kept in the first `until` share of training's steps, on the device of `model`.

        The untrained weights of step 0 are left out; the last network kept marks the end of training.
        """
        device = device_of(model)
        # A first pass over the checkpoints for their steps: the networks are loaded one at a time.
        last = max((step for step, _ in self.checkpoints()), default=0)
        for step, network in self.checkpoints():
            if 0 < step <= until * last:
                yield network.to(device)

    def selected(self, checkpoints: Checkpoints, key: str) -> Iterator[tuple[int, nn.Module]]:
        """Yield (step, network) of the selected checkpoints in the order of training, without the trained network.

        Args:
            checkpoints: "none", "all" or a list of steps.
            key: config key that messages name.

        Raises:
            InputError: no weights were kept of a step.
        """
        if checkpoints == "none" or len(checkpoints) == 0:
            return
        kept = [step for step, _ in self.checkpoints()]
        steps = kept if isinstance(checkpoints, str) else checkpoints
        missing = [step for step in steps if step not in kept]
        known = ", ".join(map(str, kept)) or "none"
        require(not missing, f"{key}={checkpoints}: the run kept {known}; raise training.checkpoints or name others")
        for step, network in self.checkpoints():
            if step in steps and step != self.step:  # the last checkpoint is the trained network itself
                yield step, network


def require_checkpoints(key: str, value: Any) -> None:
    """Raise InputError unless a value is "none", "all" or a list of steps."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    steps = listed and all(isinstance(step, int) and not isinstance(step, bool) and step >= 0 for step in value)
    require(value in ("none", "all") or steps, f"{key} must be all, none or a list of steps, got {value!r}")


def require_share(key: str, until: object) -> None:
    """Raise InputError unless `until` is a share of training's steps."""
    require_number(key, until, above=0)
    require(until <= 1, f"{key} must be <= 1, got {until}; it is a share of training's steps")  # pyright: ignore


def require_kept(count: int, until: float = 1.0) -> None:
    """Raise InputError where training kept no weights early enough."""
    when = "along training" if until == 1 else f"in the first {until:.0%} of training"
    require(
        count > 0,
        f"no weights were kept {when}; set training.checkpoints=8 and train, for a loaded network has no past",
    )
