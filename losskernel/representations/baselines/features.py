"""Feature kernels over the probes: rows [N, d] of a trained network whose Gram matrix is the kernel.

Each class is called with the network and the data. It evaluates a copy in eval mode, block by block, on the device of
the weights, and returns float32.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data
from losskernel.errors import require, require_integer
from losskernel.representations.activations.graph import matches_glob
from losskernel.representations.evaluation import Evaluator, float_weights, gradients_one_by_one


@dataclass(frozen=True)
class Penultimate:
    """Input of the linear layer that is evaluated last, [N, d], uncentred: R is the usual cosine of features."""

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; units that have positions are averaged over them.

        Raises:
            InputError: the network evaluates no linear layer.
        """
        names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        network = Evaluator(model, names)
        return _stacked(network.last_input(inputs) for inputs, _ in network.blocks(data))


@dataclass(frozen=True)
class Logits:
    """The network's outputs, [N, d], without each row's mean, to which a softmax is invariant."""

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; a single output keeps its mean."""
        network = Evaluator(model)
        rows = _stacked(network.outputs(inputs).flatten(1) for inputs, _ in network.blocks(data))
        # A single output has no other to be compared with, and less its mean it would be 0.
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
        """Return the rows; modules that are not evaluated, or do not return one tensor, are skipped.

        Raises:
            InputError: a pattern matches no module, or no module that is evaluated.
        """
        modules = [name for name, _ in model.named_modules() if name]
        for pattern in self.names or ():
            matched = any(matches_glob(name, pattern) for name in modules)
            children = ", ".join(name for name, _ in model.named_children())
            require(matched, f"baselines.layers.names: {pattern!r} matches no module; the outermost are {children}")
        chosen = [name for name in modules if any(matches_glob(name, pattern) for pattern in self.names or ("*",))]
        network = Evaluator(model, chosen)
        # Per block: layer -> [B, d].
        parts = [network.activations(inputs) for inputs, _ in network.blocks(data)]
        require(len(parts[0]) > 0, "baselines.layers.names matches no module that returns a tensor; name others")
        return np.concatenate([_normalised(_stacked(part[name] for part in parts)) for name in parts[0]], axis=1)


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
        network = Evaluator(model)
        weights = list(float_weights(network.model).values())
        require(len(weights) > 0, f"{type(model).__name__} has no weights; drop the baseline gradients")
        generator, device = torch.Generator().manual_seed(self.seed), weights[0].device
        # The hash of the sketch: a column and a sign for every weight, drawn on the CPU for all devices alike.
        columns = [torch.randint(self.size, (weight.numel(),), generator=generator).to(device) for weight in weights]
        signs = [
            torch.randint(2, (weight.numel(),), generator=generator).to(device, torch.int8) * 2 - 1
            for weight in weights
        ]
        rows: list[Tensor] = []
        for inputs, targets in network.blocks(data):
            for gradient in gradients_one_by_one(network.model, data.loss, weights, inputs, targets):
                row = torch.zeros(self.size, device=device)
                # Σ sign · gradient over the weights of each column.
                for part, column, sign in zip(gradient, columns, signs, strict=True):
                    row.scatter_add_(0, column, part.flatten().float() * sign)
                rows.append(row.cpu())
        return torch.stack(rows).numpy()


def _stacked(parts: Iterable[Tensor]) -> np.ndarray:
    return torch.cat([part.float().cpu() for part in parts]).numpy()


def _normalised(rows: np.ndarray) -> np.ndarray:
    """Return centred rows whose mean squared length is 1, so that every layer counts alike."""
    centred = rows - rows.mean(axis=0)
    length = np.sqrt(np.square(centred).sum(1).mean())
    return centred / length if length > 0 else centred
