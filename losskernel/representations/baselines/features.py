"""Other kernels over the same probes: rows [N, d] of a trained network whose Gram matrix is the kernel.

Each is called with the network and the data. It evaluates a copy in eval mode, block by block, on the device of the
weights, and returns float32.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data
from losskernel.data.loading import BlockLoader
from losskernel.errors import require, require_integer

_BLOCK = 64


@dataclass(frozen=True)
class Penultimate:
    """What enters the linear layer that is evaluated last, [N, d], as it is: R is the usual cosine of features."""

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; units that have positions are averaged over them.

        Raises:
            InputError: the network evaluates no linear layer.
        """
        names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        network = Watched(model, names)
        return _stacked(network.last_input(inputs) for inputs, _ in network.blocks(data))


@dataclass(frozen=True)
class Logits:
    """What the network returns, [N, d], without each row's mean, which a softmax does not see."""

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; a single output keeps its mean."""
        network = Watched(model, [])
        rows = _stacked(network.outputs(inputs).flatten(1) for inputs, _ in network.blocks(data))
        return rows - rows.mean(axis=1, keepdims=True) if rows.shape[1] > 1 else rows


@dataclass(frozen=True)
class Layers:
    """Activations of several layers side by side, averaged over positions, [N, d]: their kernel is the layers' mean.

    Columns are centred over the probes, as for linear CKA, and every layer has the same mean squared length of a row.

    Attributes:
        names: patterns of modules such as "inception*" or "features.*", in which * does not match a dot; None takes
            the network's direct children.

    Source: Kornblith et al. 2019 (CKA).
    """

    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        listed = self.names is None or (not isinstance(self.names, str) and len(self.names) > 0)
        require(listed, f"baselines.layers.names must be a list of patterns or null, got {self.names!r}; write ['*']")

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; modules that are not evaluated, or do not return one tensor, have no part in them.

        Raises:
            InputError: a pattern matches no module, or no module that is evaluated.
        """
        known = [name for name, _ in model.named_modules() if name]
        for pattern in self.names or ():
            found = any(_matches(name, pattern) for name in known)
            children = ", ".join(name for name, _ in model.named_children())
            require(found, f"baselines.layers.names: {pattern!r} matches no module; the outermost are {children}")
        chosen = [name for name in known if any(_matches(name, pattern) for pattern in self.names or ("*",))]
        network = Watched(model, chosen)
        parts = [network.activations(inputs) for inputs, _ in network.blocks(data)]
        require(len(parts[0]) > 0, "baselines.layers.names matches no module that returns a tensor; name others")
        return np.concatenate([_unit(_stacked(part[name] for part in parts)) for name in parts[0]], axis=1)


@dataclass(frozen=True)
class Gradients:
    """Gradients of each probe's own loss with respect to all weights, compressed by a count sketch, [N, size].

    Inner products of the rows are those of the gradients, without bias over seeds; not centred.

    Attributes:
        size: columns; the error of an inner product is about 1/√size of the product of the lengths.
        seed: fixes into which column each weight goes, and with which sign.

    Source: Weinberger et al. 2009 (feature hashing).
    """

    size: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("baselines.gradients.size", self.size, at_least=2)
        require_integer("baselines.gradients.seed", self.seed, at_least=0)

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows, one probe at a time, so that one gradient is in memory.

        Raises:
            InputError: the network has no weights.
        """
        network = Watched(model, [])
        weights = [weight.requires_grad_() for weight in network.model.parameters() if weight.is_floating_point()]
        require(len(weights) > 0, f"{type(model).__name__} has no weights; drop the baseline gradients")
        generator, device = torch.Generator().manual_seed(self.seed), weights[0].device
        columns = [torch.randint(self.size, (each.numel(),), generator=generator).to(device) for each in weights]
        signs = [
            torch.randint(2, (each.numel(),), generator=generator).to(device, torch.int8) * 2 - 1 for each in weights
        ]
        rows: list[Tensor] = []
        for inputs, targets in network.blocks(data):
            for sample in range(len(inputs)):
                loss = data.loss(network.model(inputs[sample : sample + 1]), targets[sample : sample + 1]).sum()
                parts = torch.autograd.grad(loss, weights, materialize_grads=True)
                row = torch.zeros(self.size, device=device)
                for part, column, sign in zip(parts, columns, signs, strict=True):
                    row.scatter_add_(0, column, part.flatten().float() * sign)
                rows.append(row.cpu())
        return torch.stack(rows).numpy()


class Watched:
    """A copy of a network in eval mode that keeps what enters and leaves some of its modules."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        first = next((tensor for tensor in self.model.parameters()), torch.empty(0))
        self._device = first.device
        self._entering: dict[str, Tensor] = {}
        self._leaving: dict[str, Tensor] = {}
        modules = dict(self.model.named_modules())
        for name in names:
            modules[name].register_forward_hook(self._keep(name))

    def blocks(self, data: Data) -> BlockLoader:
        """Return (inputs, targets) of the probes, block by block."""
        return BlockLoader(data.probes, _BLOCK, data.workers, self._device)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return what the network makes of some inputs."""
        return self.model(inputs)

    def last_input(self, inputs: Tensor) -> Tensor:
        """Return what enters the watched module that is evaluated last, [B, d]."""
        self._entering.clear()
        self.model(inputs)
        kind = type(self.model).__name__
        require(
            len(self._entering) > 0,
            f"{kind} evaluates no torch.nn.Linear; use losskernel.representations.baselines.features.Layers",
        )
        found = list(self._entering.values())[-1]
        return found.flatten(1, -2).mean(1) if found.ndim > 2 else found

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return what leaves every watched module, averaged over positions, [B, d], in the order of evaluation."""
        self._leaving.clear()
        self.model(inputs)
        return {name: _pooled(values) for name, values in self._leaving.items()}

    def _keep(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, entering: tuple[Any, ...], leaving: Any) -> None:
            # Of a module that is evaluated twice the last evaluation counts, in its place.
            first = entering[0] if entering else None
            for store, value in ((self._entering, first), (self._leaving, leaving)):
                store.pop(name, None)
                if isinstance(value, Tensor):
                    store[name] = value.detach()

        return keep


def _matches(name: str, pattern: str) -> bool:
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _pooled(values: Tensor) -> Tensor:
    """Average over positions: images are [B, units, height, width], sequences [B, positions, units]."""
    return values.mean(1) if values.ndim == 3 else values.flatten(2).mean(2) if values.ndim > 3 else values


def _stacked(parts: Iterable[Tensor]) -> np.ndarray:
    return torch.cat([part.float().cpu() for part in parts]).numpy()


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=0)
    length = np.sqrt(np.square(centred).sum(1).mean())
    return centred / length if length > 0 else centred
