"""The kernel of per-sample loss gradients, exact: where loss kernels end as the localisation grows."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.loading import BlockLoader
from losskernel.errors import require
from losskernel.geometry import Point
from losskernel.representations.baselines.collect import History
from losskernel.representations.points import TRAINED, Placed
from losskernel.representations.sources.checkpoints import Checkpoints, chosen_checkpoints, require_checkpoints
from losskernel.sampling.engine.stacked_model import stackable
from losskernel.sampling.samplers import select

# Numbers of gradients held at once, twice: 1 GB of single precision.
_NUMBERS = 2**27
# Weights up to which gradients are taken in double precision, on the CPU.
_SMALL = 1_000_000
_TOGETHER = 64  # samples that are differentiated side by side


@dataclass(frozen=True)
class Gradients:
    """The Gram matrix <∇l_i, ∇l_j> of each probe's own loss gradient, at the trained weights and others kept.

    As the localisation γ grows the loss kernel tends to it, times 1 / γ. Gradients are exact, without a sketch; those
    that do not fit into memory together are taken anew for every pair of blocks of probes. Networks up to a million
    weights are differentiated in double precision.

    Attributes:
        weights: globs over the names of the weights, as of those that the sampler moves; None takes all.
        checkpoints: all, none or steps: weights kept along training that have a point too.
    """

    weights: Sequence[str] | None = None
    checkpoints: Checkpoints = "none"

    gives: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def __post_init__(self) -> None:
        listed = self.weights is None or (not isinstance(self.weights, str) and len(self.weights) > 0)
        require(listed, f"points.gradients.weights must be a list of globs or null, got {self.weights!r}")
        require_checkpoints("points.gradients.checkpoints", self.checkpoints)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[Placed]:
        """Yield "gradients", and "gradients @ step" of other weights.

        Raises:
            InputError: a glob matches no weight, no weights were kept of a step, or a gradient is not finite.
        """
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        yield Placed("gradients", self._point(model, data), "gradient", TRAINED, history.step)
        for step, network in chosen_checkpoints(history, self.checkpoints, "points.gradients.checkpoints"):
            point = self._point(network.to(device), data)
            yield Placed(f"gradients @ {step}", point, "gradient", f"step {step}", step)

    def _point(self, model: nn.Module, data: Data) -> Point:
        names = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
        require(len(names) > 0, f"{type(model).__name__} has no weights; drop the source points.gradients")
        return gradient_point(model, data, select(names, self.weights, "points.gradients.weights"))


def gradient_point(model: nn.Module, data: Data, moving: Sequence[str], numbers: int = _NUMBERS) -> Point:
    """Return the Gram matrix of the probes' loss gradients in some weights, in evaluation mode; nothing is centred.

    Args:
        model: never changed.
        data: whose probes and loss.
        moving: names of the weights.
        numbers: of gradients held at once, twice.

    Raises:
        InputError: a gradient is not finite.
    """
    network = _Losses(model, data, moving)
    count, block = size(data.probes), max(1, numbers // network.size)
    blocks = [range(first, min(first + block, count)) for first in range(0, count, block)]
    gram = np.empty((count, count))
    for number, own in enumerate(blocks):
        left = network.gradients(own)
        for others in blocks[number:]:
            right = left if others == own else network.gradients(others)
            part = (left @ right.T).double().cpu().numpy()
            gram[own.start : own.stop, others.start : others.stop] = part
            gram[others.start : others.stop, own.start : own.stop] = part.T
    return Point.from_gram(gram, data.ids)


class _Losses:
    """The probes' losses as functions of `size` moving weights, in a copy of the network in evaluation mode."""

    def __init__(self, model: nn.Module, data: Data, moving: Sequence[str]) -> None:
        self._data, self._model = data, copy.deepcopy(model).eval().requires_grad_(False)
        if sum(weight.numel() for weight in model.parameters()) <= _SMALL:
            self._model = self._model.cpu().double()
        named = dict(self._model.named_parameters())
        self._weights: dict[str, Tensor] = {name: named[name] for name in moving}
        self._kind, self._device = named[moving[0]].dtype, named[moving[0]].device
        self.size = sum(weight.numel() for weight in self._weights.values())
        self._gradients = self._side_by_side if stackable(model) else self._one_by_one

    def gradients(self, probes: range) -> Tensor:
        """Return the gradients [n, size] of some probes."""
        rows, done = torch.empty(len(probes), self.size, dtype=self._kind, device=self._device), 0
        own = Subset(self._data.probes, list(probes))
        for inputs, targets in BlockLoader(own, _TOGETHER, self._data.workers, self._device):
            self._gradients(self._typed(inputs), self._typed(targets), rows[done : done + len(inputs)])
            done += len(inputs)
        finite = rows.isfinite().all(dim=1)
        first = probes[int((~finite).int().argmax())]
        require(bool(finite.all()), f"the loss gradient of probe {first} is not finite; check the weights and the loss")
        return rows

    def _side_by_side(self, inputs: Tensor, targets: Tensor, rows: Tensor) -> None:
        def own(weights: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
            return self._data.loss(functional_call(self._model, weights, (sample[None],)), target[None]).sum()

        found = vmap(grad(own), in_dims=(None, 0, 0))(self._weights, inputs, targets)
        torch.cat([part.flatten(1) for part in found.values()], dim=1, out=rows)

    def _one_by_one(self, inputs: Tensor, targets: Tensor, rows: Tensor) -> None:
        free = [weight.requires_grad_() for weight in self._weights.values()]
        for sample, target, row in zip(inputs, targets, rows, strict=True):
            loss = self._data.loss(self._model(sample[None]), target[None]).sum()
            parts = torch.autograd.grad(loss, free, materialize_grads=True)
            torch.cat([part.flatten() for part in parts], out=row)

    def _typed(self, values: Tensor) -> Tensor:
        return values.to(self._kind) if values.is_floating_point() else values
