"""Kernels in closed form as points: of loss gradients, and of the Laplace approximation."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.loading import BlockLoader
from losskernel.errors import require, require_integer, require_number
from losskernel.geometry import Point
from losskernel.representations.evaluation import (
    device_of,
    float_weights,
    gradients_one_by_one,
    gradients_side_by_side,
)
from losskernel.representations.history import Checkpoints, History, require_checkpoints
from losskernel.representations.laplace import laplace_kernel
from losskernel.representations.points.point_set import TRAINED, NamedPoint
from losskernel.sampling.engine.stacked_model import stackable
from losskernel.sampling.samplers import resolve_nbeta, select

# Numbers in one block of gradients, of which two are held at once: 1 GB of single precision.
_NUMBERS = 2**27
# Weights up to which gradients are taken in double precision, on the CPU.
_SMALL = 1_000_000
_TOGETHER = 64  # samples that are differentiated side by side


@dataclass(frozen=True)
class Gradients:
    """The Gram matrix <∇l_i, ∇l_j> of each probe's own loss gradient, at the trained weights and at checkpoints.

    As the localisation γ grows the loss kernel tends to it, times 1 / γ. Gradients are exact, without a sketch; those
    that do not fit into memory together are recomputed for every pair of blocks of probes. Networks up to a million
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

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield "gradients", and "gradients @ step" of each checkpoint.

        Raises:
            InputError: a glob matches no weight, no weights were kept of a step, or a gradient is not finite.
        """
        yield NamedPoint("gradients", self._point(model, data), "gradient", TRAINED, history.step)
        for step, network in history.selected(self.checkpoints, "points.gradients.checkpoints"):
            point = self._point(network.to(device_of(model)), data)
            yield NamedPoint(f"gradients @ {step}", point, "gradient", f"step {step}", step)

    def _point(self, model: nn.Module, data: Data) -> Point:
        names = list(float_weights(model))
        require(len(names) > 0, f"{type(model).__name__} has no weights; drop the source points.gradients")
        return gradient_point(model, data, select(names, self.weights, "points.gradients.weights"))


@dataclass(frozen=True)
class Laplace:
    """The Laplace kernel at the trained weights, of one or several strengths of localisation.

    Attributes:
        localization: γ, one per kernel.
        nbeta: nβ, or "train" for n/ln n.
        hessian: of the training loss: "ggn", its Gauss-Newton part, or "exact".
        order: of the losses' expansion, 1 or 2.
        weights: globs over the names of the weights that move; None takes all.
        rank: leading eigenpairs of the Hessian; None: all up to 3,000 moving weights, 100 beyond.
        seed: of the iteration that finds them.
    """

    localization: Sequence[float]
    nbeta: float | str
    hessian: str = "ggn"
    order: int = 2
    weights: Sequence[str] | None = None
    rank: int | None = None
    seed: int = 0

    gives: ClassVar[frozenset[str]] = frozenset({"laplace"})

    def __post_init__(self) -> None:
        require_distinct("points.laplace.localization", self.localization, above=0)
        require(len(self.localization) > 0, "points.laplace.localization must be a list of numbers, got []; e.g. [100]")
        if self.nbeta != "train":
            number = not isinstance(self.nbeta, str)
            remedy = "there are no minibatches here; set points.laplace.nbeta=100"
            require(number, f"points.laplace.nbeta must be a number or train (n/ln n), got {self.nbeta!r}; {remedy}")
            require_number("points.laplace.nbeta", self.nbeta, at_least=0)
        kinds = ("ggn", "exact")
        require(self.hessian in kinds, f"points.laplace.hessian must be one of {kinds}, got {self.hessian!r}")
        require(self.order in (1, 2), f"points.laplace.order must be 1 or 2, got {self.order!r}; take order=2")
        if self.rank is not None:
            require_integer("points.laplace.rank", self.rank, at_least=1)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield "Laplace kernel", or "Laplace kernel, localization γ" for each of several.

        Raises:
            InputError: nβ H + γ I is not positive definite, or the loss is not convex in the outputs.
        """
        # There are no minibatches: any batch size resolves a number or "train" alike.
        nbeta = float(resolve_nbeta(self.nbeta, batch_size=1, train_size=size(data.train)))
        for localization in map(float, self.localization):
            kernel = laplace_kernel(
                model,
                data,
                nbeta=nbeta,
                localization=localization,
                hessian=self.hessian,
                order=self.order,
                parameters=self.weights,
                rank=self.rank,
                seed=self.seed,
            )
            suffix = "" if len(self.localization) == 1 else f", localization {localization:g}"
            settings = {"localization": localization, "nbeta": nbeta}
            point = Point.from_gram(kernel.covariance(), data.ids)  # [N, N]
            yield NamedPoint(f"Laplace kernel{suffix}", point, "laplace", TRAINED, history.step, settings=settings)


def require_distinct(key: str, values: Any, above: float | None = None, at_least: float | None = None) -> None:
    """Raise InputError unless values are a list of numbers within a bound, without repetitions."""
    listed = not isinstance(values, (str, int, float))
    require(listed, f"{key} must be a list of numbers, got {values!r}; e.g. [100]")
    for value in values:
        require_number(key, value, above=above, at_least=at_least)
    require(len(set(values)) == len(values), f"{key} holds a number twice: {list(values)}; drop one")


def gradient_point(model: nn.Module, data: Data, moving: Sequence[str], numbers: int = _NUMBERS) -> Point:
    """Return the Gram matrix of the probes' loss gradients in some weights, in evaluation mode; nothing is centred.

    Args:
        model: never changed.
        data: whose probes and loss.
        moving: names of the weights.
        numbers: in one block of gradients; two blocks are held at once.

    Raises:
        InputError: a gradient is not finite.
    """
    network = _ProbeGradients(model, data, moving)
    count, block = size(data.probes), max(1, numbers // network.size)
    blocks = [range(first, min(first + block, count)) for first in range(0, count, block)]
    gram = np.empty((count, count))  # [N, N]
    # Pairs of blocks on and above the diagonal; the left block is held while the right ones pass by.
    for number, rows in enumerate(blocks):
        left = network.gradients(rows)
        for columns in blocks[number:]:
            right = left if columns == rows else network.gradients(columns)
            part = (left @ right.T).double().cpu().numpy()
            gram[rows.start : rows.stop, columns.start : columns.stop] = part
            gram[columns.start : columns.stop, rows.start : rows.stop] = part.T
    return Point.from_gram(gram, data.ids)


class _ProbeGradients:
    """Gradients of the probes' losses in `size` moving weights, in a copy of the network in evaluation mode."""

    def __init__(self, model: nn.Module, data: Data, moving: Sequence[str]) -> None:
        self._data, self._model = data, copy.deepcopy(model).eval().requires_grad_(False)
        # Gradients of a converged network nearly cancel: double precision where it costs little.
        if sum(weight.numel() for weight in model.parameters()) <= _SMALL:
            self._model = self._model.cpu().double()
        named = dict(self._model.named_parameters())
        self._weights = {name: named[name] for name in moving}
        self._dtype, self._device = named[moving[0]].dtype, named[moving[0]].device
        self.size = sum(weight.numel() for weight in self._weights.values())
        self._stackable = stackable(model)

    def gradients(self, probes: range) -> Tensor:
        """Return the gradients [n, size] of some probes."""
        rows, done = torch.empty(len(probes), self.size, dtype=self._dtype, device=self._device), 0
        subset = Subset(self._data.probes, list(probes))
        for inputs, targets in BlockLoader(subset, _TOGETHER, self._data.workers, self._device):
            self._fill(rows[done : done + len(inputs)], self._typed(inputs), self._typed(targets))
            done += len(inputs)
        finite = rows.isfinite().all(dim=1)  # [n]
        first = probes[int((~finite).int().argmax())]
        require(bool(finite.all()), f"the loss gradient of probe {first} is not finite; check the weights and the loss")
        return rows

    def _fill(self, rows: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Write the gradients of a block of samples into rows [b, size], without a second copy of the block."""
        model, loss = self._model, self._data.loss
        if self._stackable:  # else convolutions, which are slower side by side
            parts = gradients_side_by_side(model, loss, self._weights, inputs, targets)
            torch.cat([part.flatten(1) for part in parts], dim=1, out=rows)
            return
        gradients = gradients_one_by_one(model, loss, self._weights.values(), inputs, targets)
        for row, parts in zip(rows, gradients, strict=True):
            torch.cat([part.flatten() for part in parts], out=row)

    def _typed(self, values: Tensor) -> Tensor:
        return values.to(self._dtype) if values.is_floating_point() else values
