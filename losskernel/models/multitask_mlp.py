"""The toy of arXiv 2509.26537: one network that does several arithmetic tasks."""

import torch
from torch import Tensor, nn

from losskernel.errors import require_integer
from losskernel.models.mlp import MLP


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
        numbers, task = inputs[:, : self.operands], inputs[:, self.operands :]
        # Every tower runs and the one-hot task picks its own: no data-dependent control flow under vmap.
        answers = torch.stack([tower(numbers) for tower in self.towers], dim=1)  # [B, tasks, outputs]
        return (answers * task[:, :, None]).sum(1)
