"""Chains evaluated one after another by plain PyTorch, for networks that torch.func does not take; and the choice."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from losskernel.errors import InputError, require
from losskernel.sampling.engine.stacked_model import Loss, StackedModel


class PlainModel(StackedModel):
    """C copies of a model as StackedModel holds them, each evaluated and differentiated by itself.

    Without vmap and without recorded operations: recurrent layers, branches on values, weights that hooks compute,
    scripted modules and in-place operations behave as they do outside.
    """

    def __init__(self, model: nn.Module, loss: Loss, chains: int, moving: Sequence[str]) -> None:
        super().__init__(model, loss, chains, moving)
        parameters = dict(self._model.named_parameters())
        self._moving = [parameters[name].requires_grad_(True) for name in self.moving]
        # cuDNN differentiates recurrent layers in training mode only, which would switch dropout on.
        recurrent = any(isinstance(module, nn.RNNBase) for module in self._model.modules())
        self._backend = (lambda: torch.backends.cudnn.flags(enabled=False)) if recurrent else nullcontext

    def gradient(
        self, weights: tuple[Tensor, ...], inputs: Tensor, targets: Tensor, record: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return each chain's own gradient [C, P] of its mean loss [C] on its minibatch [C, B, ...]."""
        gradients, losses = zip(
            *(self._slope(chain, weights, inputs, targets, create_graph=False) for chain in range(self.chains)),
            strict=True,
        )
        return torch.stack(gradients), torch.stack(losses).detach()

    def evaluator(
        self, weights: tuple[Tensor, ...], lowered: torch.dtype | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return (inputs [b, ...], targets [b, ...]) -> losses [C, b] of each sample under each chain."""

        @torch.no_grad()
        def losses(inputs: Tensor, targets: Tensor) -> Tensor:
            rows = [self._losses_of_chain(chain, weights, inputs, targets, lowered) for chain in range(self.chains)]
            return torch.stack(rows)

        return losses

    @torch.enable_grad()
    def hessian_product(
        self, weights: tuple[Tensor, ...], inputs: Tensor, targets: Tensor, direction: Tensor
    ) -> Tensor:
        """Return the Hessian of each chain's mean loss on its minibatch times its own direction, [C, P]."""
        products = []
        for chain in range(self.chains):
            gradient, _ = self._slope(chain, weights, inputs, targets, create_graph=True)
            products.append(
                self._flat(torch.autograd.grad(gradient @ direction[chain], self._moving, allow_unused=True))
            )
        return torch.stack(products)

    def _losses_of_chain(
        self, chain: int, weights: Sequence[Tensor], inputs: Tensor, targets: Tensor, lowered: torch.dtype | None = None
    ) -> Tensor:
        # Into the module itself: torch.func's functional_call would reach neither the weights that scripted modules
        # hold nor those that recurrent layers keep a second list of.
        for parameter, values in zip(self._moving, weights, strict=True):
            parameter.data = values.detach()[chain]
        inputs = inputs.clone()  # which the model may change
        if lowered is None:
            with self._backend():
                return self._loss(self._model(inputs), targets)
        with self._backend(), torch.autocast(inputs.device.type, dtype=lowered, cache_enabled=False):
            outputs = self._model(inputs)
        return self._loss(outputs.to(weights[0].dtype) if isinstance(outputs, Tensor) else outputs, targets)

    @torch.enable_grad()
    def _slope(
        self, chain: int, weights: tuple[Tensor, ...], inputs: Tensor, targets: Tensor, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """Return one chain's gradient [P] and mean loss."""
        loss = self._losses_of_chain(chain, weights, inputs[chain], targets[chain]).mean()
        parts = torch.autograd.grad(loss, self._moving, create_graph=create_graph, allow_unused=True)
        return self._flat(parts), loss

    def _flat(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Return gradients of the weights in one row [P]; zeros for weights that the loss does not reach."""
        rows = []
        for part, parameter in zip(parts, self._moving, strict=True):
            whole = torch.zeros_like(parameter) if part is None else part
            rows.append((whole.to_dense() if whole.is_sparse else whole).reshape(-1))
        return torch.cat(rows)


class Route(NamedTuple):
    """How a network's chains are evaluated."""

    model: type[StackedModel]
    reason: str  # why by plain PyTorch; empty where it is not


FAST, PLAIN = Route(StackedModel, ""), Route(PlainModel, "")


def choose_route(
    build: Callable[[type[StackedModel]], StackedModel], minibatch: tuple[Tensor, Tensor], probes: tuple[Tensor, Tensor]
) -> Route:
    """Take the real step and evaluate probes both ways, these beside the start too; keep the fast way if all agree.

    Args:
        build: returns the chains' model of a class, on the device of the samples.
        minibatch: inputs and targets [C, B, ...] of a step.
        probes: inputs and targets [b, ...].

    Raises:
        InputError: plain PyTorch cannot evaluate or differentiate the network.
    """
    plain = build(PlainModel)
    start = plain.start.to(minibatch[0].device).repeat(plain.chains, 1)
    # Far enough for branches on values to go the other way, in the direction of a fixed noise.
    noise = torch.randn(start.shape[1], generator=torch.Generator().manual_seed(0), dtype=start.dtype).to(start.device)
    beside = start + start.square().mean().sqrt() * noise
    try:
        wanted = _evaluated(plain, start, minibatch, probes)
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"the network cannot be evaluated and differentiated: {_reason(error)}; check its forward and data.loss"
        ) from error
    away, moved = None, beside.clone()
    with suppress(Exception):  # so far away a network may fail, for a scale below zero: chains do not go there
        away = plain.evaluator(plain.views(moved))(*probes)
    _require_unchanged(plain, beside, moved)
    try:
        fast = build(StackedModel)
        given = _evaluated(fast, start, minibatch, probes)
        # A recording keeps the branch that was taken first, which other weights show.
        given_away = away if away is None else fast.evaluator(fast.views(beside))(*probes)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch.func, make_fx and user code under them raise whatever they like
        return Route(PlainModel, _reason(error))
    agree = all(_close(one, other) for one, other in zip(given, wanted, strict=True))
    if agree and away is not None and given_away is not None and not _close(given_away, away):
        # A deep network there amplifies rounding, which differs between the ways, as any change of the last digit.
        last_digit = beside + torch.finfo(beside.dtype).eps * beside.abs() * noise
        rounding = float((plain.evaluator(plain.views(last_digit))(*probes) - away).norm())
        agree = _close(given_away, away, 3 * rounding)
    return FAST if agree else Route(PlainModel, "its recorded operations give other values")


def _evaluated(
    model: StackedModel, weights: Tensor, minibatch: tuple[Tensor, Tensor], probes: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    before, views = weights.clone(), model.views(weights)
    # Of one large network the forward pass alone is recorded: the gradient's recording would contain the same branches.
    gradient, losses = model.gradient(views, *minibatch, record=not model.lone)
    result = gradient, losses, model.evaluator(views)(*probes)
    _require_unchanged(model, before, weights)
    return result


def _require_unchanged(model: StackedModel, before: Tensor, after: Tensor) -> None:
    """Raise InputError that names the first weight that a forward changed."""
    for name, old, new in zip(model.moving, model.views(before), model.views(after), strict=True):
        require(
            torch.equal(old, new) or bool(old.isnan().any()),
            f"the network's forward changes its weight {name}, and would move the chains; make it leave weights alone "
            "(for nn.Embedding: max_norm=None, with the norms set once after training)",
        )


def _close(ours: Tensor, theirs: Tensor, allowed: float = 0.0) -> bool:
    """Whether two results are equal but for rounding; non-finite ones are left to the chains to report.

    allowed: distance of the two that passes whatever their size.
    """
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return True
    tolerance = 1e-2 if ours.dtype == torch.float32 else 1e-6
    return bool((ours - theirs).norm() <= tolerance * (theirs.norm() + tolerance) + allowed)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
