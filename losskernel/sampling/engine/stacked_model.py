"""Many copies of one model in one flat buffer [C, P], evaluated together through torch.func.

And how many probes they evaluate in one forward pass: as many as fit into memory, and on a CPU into its caches.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from losskernel.errors import DivergenceError, InputError, require
from losskernel.models.evaluation_copy import evaluation_copy
from losskernel.models.memory_format import arranged, choose_layout
from losskernel.sampling.engine.probe_losses import Evaluation, Recorded

Loss = Callable[[Tensor, Tensor], Tensor]
_REGISTER = 64  # a multiple of the numbers that any CPU's vector instructions take at once
LARGEST = 1024
_SMALLEST = 16
# Of the largest activation of a block. Measured on one CPU with 32 MiB of last-level cache: Inception-v1 at 64
# pixels and smaller networks are fastest from 8 to 16 MiB and lose a quarter or more at four times as much;
# at 224 pixels 16 images are best, of 51 MiB.
_CACHE = 2**24
_SHARE = 0.5  # of an accelerator's free memory; gradients and other programs need the rest


class StackedModel:
    """C copies of a model in evaluation mode, their moving weights in the rows of one buffer [C, P].

    Args:
        model: the trained network; copied, never changed.
        loss: (outputs, targets) -> [B].
        chains: C.
        moving: names of the weights that move; all others, and all buffers, are shared and frozen.

    Attributes:
        lone: whether this is a single chain of a model that is not stacked. Its cost is arithmetic, not calls, and
            memory layouts are chosen for that.
    """

    def __init__(self, model: nn.Module, loss: Loss, chains: int, moving: Sequence[str]) -> None:
        # Evaluation mode throughout: with batch statistics or dropout a per-sample loss would depend on its
        # batch mates or on chance (arXiv 2509.26537 defines it for the deterministic network).
        self._model = evaluation_copy(model)
        for weight in self._model.parameters():  # one by one: scripted modules have no requires_grad_
            weight.requires_grad_(False)
        self._loss, self.chains, self.moving = loss, chains, list(moving)
        self._stackable = stackable(model)
        self.lone = chains == 1 and not self._stackable
        weights = dict(self._model.named_parameters())
        self._shapes = [weights[name].shape for name in self.moving]
        self.size = sum(shape.numel() for shape in self._shapes)
        self.start = torch.cat([weights[name].detach().flatten() for name in self.moving])
        self._gradient = Recorded(self._gradient_of)
        self._hessian_product = Recorded(self._hessian_product_of)
        self._losses: dict[torch.dtype | None, Recorded] = {}
        self._evaluations: dict[torch.dtype | None, Evaluation] = {}
        self._layout = None if self.lone else torch.contiguous_format

    def to(self, device: torch.device) -> "StackedModel":
        """Move what is frozen to the device."""
        self._model.to(device)
        return self

    def views(self, buffer: Tensor) -> tuple[Tensor, ...]:
        """Return the weights [C, *shape] as views of the buffer [C, P]; they follow its changes."""
        parts = buffer.split([shape.numel() for shape in self._shapes], dim=1)
        return tuple(part.view(self.chains, *shape) for part, shape in zip(parts, self._shapes, strict=True))

    def gradient(
        self, weights: tuple[Tensor, ...], inputs: Tensor, targets: Tensor, record: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return each chain's own gradient [C, P] of its mean loss [C] on its minibatch [C, B, ...].

        record: whether by recorded operations, which for a large network take seconds to record for each shape.
        """
        self._settle(inputs[0], targets[0])
        return (self._gradient if record else self._gradient_of)(inputs, targets, *weights)

    def evaluator(
        self, weights: tuple[Tensor, ...], lowered: torch.dtype | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return (inputs [b, ...], targets [b, ...]) -> losses [C, b] of each sample under each chain.

        For the weights as they are now: what follows from them alone is computed once.

        Args:
            weights: as `views` gives them.
            lowered: the type that autocast multiplies in, None for the model's own.
        """
        if not self.lone:
            recorded = self._losses.setdefault(lowered, Recorded(partial(self._losses_of, lowered)))
            return lambda inputs, targets: recorded(inputs, targets, *weights)
        evaluation = self._evaluations.setdefault(lowered, Evaluation(partial(self._lone_losses, lowered)))
        evaluate = evaluation.at(tuple(w[0] for w in weights))

        def losses(inputs: Tensor, targets: Tensor) -> Tensor:
            self._settle(inputs, targets)
            return evaluate(inputs, targets)[None]

        return losses

    def hessian_product(
        self, weights: tuple[Tensor, ...], inputs: Tensor, targets: Tensor, direction: Tensor
    ) -> Tensor:
        """Return the Hessian of each chain's mean loss on its minibatch times its own direction, [C, P]."""
        self._settle(inputs[0], targets[0])
        return self._hessian_product(inputs, targets, direction, *weights)

    def _settle(self, inputs: Tensor, targets: Tensor) -> None:
        """Choose the memory layout of images, once."""
        if self._layout is None:
            self._layout = choose_layout(self._model, self._loss, inputs, targets)

    def _per_sample(
        self, lowered: torch.dtype | None, weights: Sequence[Tensor], inputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Return the losses [b]; with a lower type, the forward pass is in that, and the loss in the weights'."""
        kind = inputs.device.type
        with nullcontext() if lowered is None else torch.autocast(kind, dtype=lowered, cache_enabled=False):
            outputs = functional_call(self._model, dict(zip(self.moving, weights, strict=True)), (inputs,))
        if lowered is not None and isinstance(outputs, Tensor):
            outputs = outputs.to(weights[0].dtype)
        return self._loss(outputs, targets)

    def _gradient_of(self, inputs: Tensor, targets: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        def total(weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            # Chains share no weights, so the gradient of the SUM of their mean losses holds each chain's own.
            losses = self._over_chains(partial(self._per_sample, None), weights, inputs, targets).mean(1)
            return losses.sum(), losses

        gradients, (_, losses) = grad_and_value(total, has_aux=True)(weights)
        return torch.cat([part.reshape(self.chains, -1) for part in gradients], dim=1), losses

    def _hessian_product_of(self, inputs: Tensor, targets: Tensor, direction: Tensor, *weights: Tensor) -> Tensor:
        # Twice backwards: every operation with a second derivative has that, few users' losses a forward one.
        def slope(weights: tuple[Tensor, ...]) -> Tensor:
            return (self._gradient_of(inputs, targets, *weights)[0] * direction).sum()

        return torch.cat([part.reshape(self.chains, -1) for part in grad(slope)(weights)], dim=1)

    def _losses_of(self, lowered: torch.dtype | None, inputs: Tensor, targets: Tensor, *weights: Tensor) -> Tensor:
        # Two measures keep a chain's losses bit-identical however many chains are stacked. Each chain gets its own
        # copy of the probes: shared, they would turn the first layer into one wide product whose rounding depends
        # on its width. And rows are padded to whole vector registers: the ragged end of an array is computed by
        # scalar instructions, which round differently.
        count = len(inputs)
        missing = -count % _REGISTER if self._stackable else 0
        padded = []
        for part in (inputs, targets):
            padding = part[-1:].expand(missing, *part.shape[1:])
            padded.append(torch.cat([part, padding]).expand(self.chains, -1, *part.shape[1:]))
        return self._over_chains(partial(self._per_sample, lowered), weights, *padded)[:, :count]

    def _lone_losses(self, lowered: torch.dtype | None, inputs: Tensor, targets: Tensor, *weights: Tensor) -> Tensor:
        return self._per_sample(lowered, weights, arranged(inputs, self._layout), targets)

    def _over_chains(self, function: Callable[..., Tensor], weights: tuple[Tensor, ...], *batched: Tensor) -> Tensor:
        if self.chains > 1:
            return vmap(function)(weights, *batched)
        if self.lone:
            inputs, targets = (part[0] for part in batched)
            return function([w[0] for w in weights], arranged(inputs, self._layout), targets)[None]
        # A batched product of one matrix takes another route through the libraries than one of several, and rounds
        # differently. Run beside a copy of itself, a single chain is bit-identical to the same chain among others.
        pairs = [torch.cat([part, part]) for part in (*weights, *batched)]
        return vmap(function)(tuple(pairs[: len(weights)]), *pairs[len(weights) :])[:1]


def stackable(model: nn.Module) -> bool:
    """Whether stacking chains pays: not for convolutions, which batch badly over weights, nor for large models."""
    convolves = any(isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for module in model.modules())
    return not convolves and sum(weight.numel() for weight in model.parameters()) <= 1_000_000


def start_losses(model: nn.Module, loss: Loss, blocks: Any) -> Tensor:
    """Return the per-sample losses [N] of the model itself in evaluation mode, without changing the model.

    Raises:
        InputError: the loss does not return one number per sample.
        DivergenceError: a loss at the trained weights is not finite.
    """
    model = evaluation_copy(model)
    parts: list[Tensor] = []
    layout = None
    with torch.no_grad():
        for inputs, targets in blocks:
            parts.append(check_losses(model.to(inputs.device), loss, arranged(inputs, layout), targets))
            layout = layout or choose_layout(model, loss, inputs, targets)
    losses = torch.cat(parts)
    bad = (~losses.isfinite()).nonzero().flatten()
    if len(bad):
        raise DivergenceError(
            f"the loss of sample {int(bad[0])} at the trained weights is {losses[bad[0]].item()} "
            f"({len(bad)} of {len(losses)} not finite); check the checkpoint, the loss and the inputs"
        )
    return losses


def check_losses(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of one batch after checking that they are one per sample."""
    try:
        values = loss(model(inputs), targets)
    except InputError:
        raise
    except (RuntimeError, TypeError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the model and the loss fail on a batch of inputs {tuple(inputs.shape)} and targets "
            f"{tuple(targets.shape)}: {reason}; check model, dataset and loss against each other"
        ) from error
    wanted = (inputs.shape[0],)
    returned = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    require(
        returned == wanted,
        f"data.loss must return one loss per sample, shape {wanted}, but returned {returned}; "
        "drop the mean or sum over samples (reduction='none')",
    )
    return values


def choose_block(model: nn.Module, sample: Tensor, device: torch.device) -> int:
    """Return how many probes to evaluate at once, a power of two.

    On CUDA as many as measured memory allows, elsewhere as many as keep activations in a CPU's cache.

    Args:
        model: the network; copied.
        sample: one input [1, ...].
        device: where the probes are evaluated.
    """
    network = evaluation_copy(model).to(device)
    one = sample[:1].to(device)
    if device.type != "cuda":
        return cached(largest_activation(network, one))
    room = _SHARE * torch.cuda.mem_get_info(device)[0]
    return fitting(lambda block: _peak(network, one.expand(block, *one.shape[1:]), device), room)


def cached(activation: int) -> int:
    """Return the block whose largest activation, of so many bytes a probe, stays in the cache."""
    block = LARGEST
    while block > _SMALLEST and block * activation > _CACHE:
        block //= 2
    return block


def fitting(peak: Callable[[int], float], room: float) -> int:
    """Return the largest power of two whose peak of memory in bytes fits, measured while blocks double."""
    block = 1
    while block < LARGEST and peak(2 * block) <= room:
        block *= 2
    return block


@torch.no_grad()
def largest_activation(model: nn.Module, sample: Tensor) -> int:
    """Return the bytes of the largest output of any submodule for one input [1, ...]."""
    sizes = [0]

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.nbytes)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


@torch.no_grad()
def _peak(model: nn.Module, inputs: Tensor, device: torch.device) -> float:
    """Return the peak of memory in bytes of one forward pass; infinite if it does not fit."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        model(inputs.contiguous())
    except torch.OutOfMemoryError:
        return float("inf")
    return torch.cuda.max_memory_allocated(device) - before
