"""Multilayer perceptrons with ReLU: a plain one, and one that does several arithmetic tasks."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losskernel.errors import require, require_integer


class MLP(nn.Module):
    """inputs → hidden ReLU layers → outputs; inputs of any shape are flattened.

    Args:
        inputs: numbers per sample.
        outputs: numbers per prediction.
        hidden: width of each hidden layer.

    Raises:
        InputError: a width is not a whole number of at least 1.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        listed = not isinstance(hidden, (str, int))
        require(listed, f"model.hidden must be a list of widths, got {hidden!r}; e.g. [64,64]")
        widths = [inputs, *hidden, outputs]
        for key, width in zip(["inputs", *["hidden"] * len(hidden), "outputs"], widths, strict=True):
            require_integer(f"model.{key}", width, at_least=1)
        layers: list[nn.Module] = []  # the last ReLU is left out below
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, ...] -> [B, outputs]."""
        return self.layers(inputs.flatten(1))


class MultitaskMLP(nn.Module):
    """An MLP on (operands, one-hot task), or one disjoint tower per task.

    With towers, the weights split into blocks that do not share a task, so the posterior factorises and the
    covariance of losses across tasks is zero (the paper's Proposition 2).

    Args:
        tasks: number of tasks; the last `tasks` inputs are the one-hot task.
        operands: numbers before the one-hot task.
        outputs: numbers per prediction.
        width: units per hidden layer.
        depth: hidden layers.
        towers: one subnetwork per task in place of a shared trunk.

    Raises:
        InputError: a size is not a whole number of at least 1.
    """

    def __init__(
        self, tasks: int, operands: int = 2, outputs: int = 1, width: int = 32, depth: int = 1, towers: bool = False
    ) -> None:
        super().__init__()
        sizes = {"tasks": tasks, "operands": operands, "outputs": outputs, "width": width, "depth": depth}
        for key, value in sizes.items():
            require_integer(f"model.{key}", value, at_least=1)
        self.tasks, self.operands = tasks, operands
        hidden = [width] * depth
        if towers:
            self.towers = nn.ModuleList(MLP(operands, outputs, hidden) for _ in range(tasks))
        else:
            self.towers = None
            self.trunk = MLP(operands + tasks, width, hidden[:-1]) if depth > 1 else nn.Linear(operands + tasks, width)
            self.head = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, operands + tasks] -> [B, outputs]."""
        if self.towers is None:
            return self.head(torch.relu(self.trunk(inputs)))
        numbers, task = inputs[:, : self.operands], inputs[:, self.operands :]  # [B, operands], [B, tasks]
        # Every tower runs and the one-hot task selects one: vmap allows no control flow that depends on data.
        answers = torch.stack([tower(numbers) for tower in self.towers], dim=1)  # [B, tasks, outputs]
        return (answers * task[:, :, None]).sum(1)
