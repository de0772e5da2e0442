"""Chains evaluated one after another by plain PyTorch, for networks that torch.func does not take."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

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

    def gradient(self, weights: tuple[Tensor, ...], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
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
            each = (self._losses_of_chain(chain, weights, inputs, targets, lowered) for chain in range(self.chains))
            return torch.stack(list(each))

        return losses

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
            parameter.data = values[chain]
        inputs = inputs.clone()  # which the model may change
        if lowered is None:
            return self._loss(self._model(inputs), targets)
        with torch.autocast(inputs.device.type, dtype=lowered, cache_enabled=False):
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
