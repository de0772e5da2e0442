"""A trained network as a function of its moving weights, in float64: derivatives of its outputs and losses."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

from losskernel.data.base import Data, Loss
from losskernel.data.loading import BlockLoader

# Training samples per pass, and vectors multiplied in it at once: they bound memory only.
_BLOCK, _VECTORS = 1024, 32


class Derivatives(NamedTuple):
    """What the losses of b samples with c outputs each do to second order in the outputs."""

    jacobian: Tensor  # [b, c, P], of the outputs in the weights
    gradient: Tensor  # [b, c], of the loss in the outputs
    hessian: Tensor  # [b, c, c], of the loss in the outputs


class Network:
    """A model in evaluation mode at its trained weights w* [P]; a float64 copy on the CPU.

    Args:
        model: the trained network; copied, never changed.
        data: whose training loss curves the posterior.
        moving: names of the weights that move, in the order in which they lie in w*.
    """

    def __init__(self, model: nn.Module, data: Data, moving: Sequence[str]) -> None:
        self._model = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
        weights = dict(self._model.named_parameters())
        self._shapes = {name: weights[name].shape for name in moving}
        self._loss: Loss = data.loss
        self._train = BlockLoader(data.train, _BLOCK, data.workers, torch.device("cpu"))
        self.weights = torch.cat([weights[name].detach().flatten() for name in moving])  # [P]

    def outputs(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Return the outputs [b, ...] for inputs [b, ...] at weights [P]."""
        parts = weights.split([shape.numel() for shape in self._shapes.values()])
        named = {name: part.view(shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}
        return functional_call(self._model, named, (inputs,))

    def derivatives(self, inputs: Tensor, targets: Tensor) -> Derivatives:
        """Return each sample's own derivatives at w*."""
        inputs, targets = _double(inputs), _double(targets)
        found = self.outputs(self.weights, inputs)
        one = (1, *found.shape[1:])

        def own_outputs(weights: Tensor, sample: Tensor) -> Tensor:
            return self.outputs(weights, sample[None]).flatten()

        def own_loss(outputs: Tensor, target: Tensor) -> Tensor:
            return self._loss(outputs.view(one), target[None])[0]

        flat = found.reshape(len(found), -1)
        return Derivatives(
            vmap(jacrev(own_outputs), (None, 0))(self.weights, inputs),
            vmap(grad(own_loss))(flat, targets),
            vmap(jacrev(grad(own_loss)))(flat, targets),
        )

    def gradient(self) -> Tensor:
        """Return the gradient [P] of the mean training loss at w*."""
        return self._mean(lambda x, y: grad(lambda w: self._total(w, x, y))(self.weights))

    def hessian_products(self, vectors: Tensor) -> Tensor:
        """Return H v for each row v of vectors [k, P], H the Hessian of the mean training loss at w*."""

        def product(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return jvp(grad(lambda w: self._total(w, x, y)), (self.weights,), (v,))[1]

        return self._mean(lambda x, y: vmap(product, (0, None, None), chunk_size=_VECTORS)(vectors, x, y))

    def ggn_products(self, vectors: Tensor) -> Tensor:
        """Return Jᵀ h J v for each row v of vectors [k, P], averaged over the training samples.

        The generalised Gauss-Newton matrix leaves out of the Hessian what the outputs' own curvature adds.
        """

        def product(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
            pushed = jvp(lambda w: self.outputs(w, x), (self.weights,), (v,))
            bent = jvp(grad(lambda z: self._loss(z, y).sum()), pushed[:1], pushed[1:])[1]
            return vjp(lambda w: self.outputs(w, x), self.weights)[1](bent)[0]

        return self._mean(lambda x, y: vmap(product, (0, None, None), chunk_size=_VECTORS)(vectors, x, y))

    def _total(self, weights: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss(self.outputs(weights, inputs), targets).sum()

    def _mean(self, of_sum: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the mean over training samples of what `of_sum` (inputs, targets) sums over a block of them."""
        total, count = torch.zeros((), dtype=torch.float64), 0
        with warnings.catch_warnings():
            # torch loads its rules of forward derivatives when they are first used, and deprecates how it does.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
            for inputs, targets in self._train:
                total, count = total + of_sum(_double(inputs), _double(targets)), count + len(inputs)
        return total / count


def _double(values: Tensor) -> Tensor:
    """Floating numbers as float64; class numbers and tokens as they are."""
    return values.double() if values.is_floating_point() else values
