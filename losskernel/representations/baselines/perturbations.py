"""Perturbation size at which the predictions of the probes flip.

A size is a level times the standard deviation of all numbers of all probes' inputs together, so that a level of 1 is a
perturbation as large as the inputs' own spread. Inputs are not clipped to any range.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data
from losskernel.errors import require, require_integer, require_number
from losskernel.representations.evaluation import Evaluator, require_logits

# Added to the seed, so that the noise differs from the random numbers of the network and of the chains.
_STREAM = 2**20

# Wide ranges: networks differ a hundredfold in the size at which they flip.
_SPREADS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 3.0)
_BOXES = (
    *(0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04),
    *(0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5),
)


@dataclass(frozen=True)
class NoiseFlips:
    """Share of draws of Gaussian noise on the inputs in which the network changes its own prediction.

    A draw is one direction per probe, scaled to every level, so that the levels of a probe differ in size alone.

    Attributes:
        levels: standard deviations of the noise, in units of the inputs' own, increasing.
        draws: per probe.
        seed: of the noise.
    """

    levels: Sequence[float] = _SPREADS
    draws: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        _require_levels("baselines.noise.levels", self.levels)
        require_integer("baselines.noise.draws", self.draws, at_least=1)
        require_integer("baselines.noise.seed", self.seed, at_least=0)

    def __call__(self, model: nn.Module, data: Data) -> dict[str, np.ndarray]:
        """Return `flips` [N, L] between 0 and 1, and `levels` [N, L], the same for every probe.

        Raises:
            InputError: the network is no classifier, or the inputs are not numbers that differ.
        """
        network = Evaluator(model)
        unit = _unit(network, data)
        generator = torch.Generator().manual_seed(self.seed + _STREAM)
        parts: list[Tensor] = []  # blocks of [B, L]
        for inputs, _ in network.blocks(data):
            predicted, flips = _predicted(network, inputs), torch.zeros(len(inputs), len(self.levels))
            for _ in range(self.draws):
                # Drawn on the CPU: the same noise on every device.
                noise = torch.randn(inputs.shape, generator=generator).to(inputs)
                for column, level in enumerate(self.levels):
                    flips[:, column] += (_predicted(network, inputs + level * unit * noise) != predicted).cpu()
            parts.append(flips / self.draws)
        return _rows(parts, self.levels)


@dataclass(frozen=True)
class AdversarialFlips:
    """Whether steps along the gradient's sign, in a box of some size about the input, change the network's prediction.

    The steps ascend the log-odds against the network's unperturbed prediction, whose gradient has the sign of the
    cross-entropy's and does not vanish where the network is certain. A probe that flips at a size counts as flipped at
    every larger one, since the boxes are nested.

    Attributes:
        levels: half the boxes' sides, in units of the inputs' standard deviation, increasing.
        steps: per box; 1 steps to its corner (FGSM), more go 2.5 / steps of its half side each and stay within (PGD
            from the input itself).

    Source: Goodfellow et al. 2015, arXiv 1412.6572; Madry et al. 2018, arXiv 1706.06083.
    """

    levels: Sequence[float] = _BOXES
    steps: int = 5

    def __post_init__(self) -> None:
        _require_levels("baselines.adversarial.levels", self.levels)
        require_integer("baselines.adversarial.steps", self.steps, at_least=1)

    def __call__(self, model: nn.Module, data: Data) -> dict[str, np.ndarray]:
        """Return `flips` [N, L], 0 or 1, and `levels` [N, L], the same for every probe.

        Raises:
            InputError: the network is no classifier, or the inputs are not numbers that differ.
        """
        network = Evaluator(model)
        unit = _unit(network, data)
        parts: list[Tensor] = []
        for inputs, _ in network.blocks(data):
            predicted = _predicted(network, inputs)
            flipped, columns = torch.zeros_like(predicted, dtype=torch.bool), []
            for level in self.levels:
                # Only probes that held out so far are attacked in the larger box.
                held = (~flipped).nonzero().flatten()
                if len(held):
                    flipped[held] = self._flipped(network, inputs[held], predicted[held], level * unit)
                columns.append(flipped.clone())
            parts.append(torch.stack(columns, dim=1).float().cpu())
        return _rows(parts, self.levels)

    def _flipped(self, network: Evaluator, inputs: Tensor, predicted: Tensor, size: float) -> Tensor:
        """Return which predictions [B] change anywhere on the way through the boxes."""
        # 2.5 box sizes in all, so that the walk can reach the boundary and move along it (Madry et al.).
        step = size * min(1.0, 2.5 / self.steps)
        offset, flipped = torch.zeros_like(inputs), torch.zeros_like(predicted, dtype=torch.bool)
        for _ in range(self.steps):
            offset = (offset + step * _ascent(network, inputs + offset, predicted).sign()).clamp(-size, size)
            # Any point on the way is inside the box, so a flip anywhere counts.
            flipped |= _predicted(network, inputs + offset) != predicted
        return flipped


@torch.enable_grad()
def _ascent(network: Evaluator, inputs: Tensor, predicted: Tensor) -> Tensor:
    """Return the gradient of each sample's log-odds against a class in its input, [B, ...]."""
    inputs = inputs.detach().requires_grad_()
    logits = network.model(inputs)
    # Log-odds Σ_other exp(z - z_predicted): the predicted class is masked out of the sum.
    lead = logits - logits.gather(1, predicted[:, None])
    chosen = torch.zeros_like(lead, dtype=torch.bool).scatter(1, predicted[:, None], True)
    odds = torch.logsumexp(lead.masked_fill(chosen, -torch.inf), dim=1)
    return torch.autograd.grad(odds.sum(), inputs)[0]


@torch.no_grad()
def _predicted(network: Evaluator, inputs: Tensor) -> Tensor:
    outputs = network.model(inputs)
    require_logits(outputs)
    return outputs.argmax(1)


def _unit(network: Evaluator, data: Data) -> float:
    """Return the standard deviation of all numbers of all probes' inputs together."""
    count, total, squares = 0, 0.0, 0.0
    for inputs, _ in network.blocks(data):
        require(
            inputs.is_floating_point(),
            f"the inputs must be real numbers to be perturbed, got {inputs.dtype}; drop this baseline",
        )
        wide = inputs.double()
        count, total = count + wide.numel(), total + wide.sum().item()
        squares += wide.square().sum().item()
    # Var = E x² - (E x)²; in float64, and never below 0 by rounding.
    unit = float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0)))
    require(unit > 0, "all inputs of all probes are one number, and levels have no unit; drop this baseline")
    return unit


def _rows(parts: Sequence[Tensor], levels: Sequence[float]) -> dict[str, np.ndarray]:
    flips = torch.cat(list(parts)).numpy()
    return {"flips": flips, "levels": np.tile(np.asarray(levels, dtype=float), (len(flips), 1))}


def _require_levels(key: str, levels: Sequence[float]) -> None:
    listed = isinstance(levels, (list, tuple)) and len(levels) >= 2
    require(listed, f"{key} must be a list of two sizes or more, got {levels!r}; e.g. [0.1,0.2]")
    for level in levels:
        require_number(key, level, above=0)
    require(all(np.diff(levels) > 0), f"{key} must increase, got {list(levels)}; sort them")
