"""Several arithmetic tasks for one network (arXiv 2509.26537, first experiment), and a negative control."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import TensorDataset

from losskernel.data.base import Data, Loss
from losskernel.errors import require, require_integer
from losskernel.losses import cross_entropy, squared_error

TASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: a * b,
    "subtract": lambda a, b: a - b,
    "max": torch.maximum,
    "min": torch.minimum,
    "average_square": lambda a, b: (a**2 + b**2) / 2,
    "difference_square": lambda a, b: (a - b) ** 2 / 2,
    "first": lambda a, b: a,
}


def arithmetic(
    tasks: Sequence[str] = ("add", "multiply"), samples_per_task: int = 500, probes_per_task: int = 150, seed: int = 0
) -> Data:
    """Real arithmetic on a, b ~ U(-1, 1): inputs (a, b, one-hot task), squared error.

    The probes are the first training samples of each task, and numbered first; labels: task, a, b, target.

    Raises:
        InputError: an unknown task, or sizes that do not fit.
    """
    _check(tasks, samples_per_task, probes_per_task, TASKS)
    rng = torch.Generator().manual_seed(seed)
    operands = 2 * torch.rand(len(tasks), samples_per_task, 2, generator=rng) - 1  # [tasks, n, 2]
    targets = torch.stack([TASKS[name](*pair.unbind(-1)) for name, pair in zip(tasks, operands, strict=True)])
    return _data(tasks, operands, operands, targets, probes_per_task, squared_error)


def modular_arithmetic(
    tasks: Sequence[str] = ("add", "multiply"), modulus: int = 23, probes_per_task: int = 150, seed: int = 0
) -> Data:
    """Arithmetic modulo a number as classification: inputs (one-hot a, one-hot b, one-hot task).

    The negative control: an MLP memorises these tables, and memorised inputs share no mechanism, so no task
    structure should appear. Training set: all pairs. Labels: task, a, b, target.

    Raises:
        InputError: an unknown task, or sizes that do not fit.
    """
    require_integer("dataset.modulus", modulus, at_least=2)
    whole = {name: TASKS[name] for name in ("add", "multiply", "subtract", "max", "min", "first")}
    _check(tasks, modulus**2, probes_per_task, whole)
    pairs = torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))
    rng = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(pairs), generator=rng) for _ in tasks]
    operands = torch.stack([pairs[order] for order in orders])  # [tasks, p², 2]
    results = [whole[name](*pair.unbind(-1)) for name, pair in zip(tasks, operands, strict=True)]
    targets = torch.stack(results) % modulus  # [tasks, p²]
    numbers = one_hot(operands, modulus).flatten(-2).float()
    data = _data(tasks, operands, numbers, targets, probes_per_task, cross_entropy)
    return replace(data, classes=[str(number) for number in range(modulus)])


def _data(tasks: Sequence[str], operands: Tensor, numbers: Tensor, targets: Tensor, probes: int, loss: Loss) -> Data:
    """Join tasks into one dataset: operands [T, n, 2], their encoding [T, n, d], targets [T, n]."""
    count, samples = targets.shape
    columns = torch.eye(count)[:, None].expand(count, samples, count)  # the one-hot task, [T, n, T]
    inputs = torch.cat([numbers, columns], dim=-1)  # [T, n, d + T]
    kept = slice(0, probes)
    # Probes are 0, 1, 2 ..., as ids are by default; the other training samples follow.
    names = np.empty((count, samples), dtype=int)
    names[:, kept] = np.arange(count * probes).reshape(count, probes)
    names[:, probes:] = np.arange(count * probes, names.size).reshape(count, -1)
    return Data(
        train=TensorDataset(inputs.flatten(0, 1), targets.flatten()),
        probes=TensorDataset(inputs[:, kept].flatten(0, 1), targets[:, kept].flatten()),
        loss=loss,
        labels={
            "task": np.repeat(np.asarray(tasks), probes),
            "a": operands[:, kept, 0].flatten().numpy(),
            "b": operands[:, kept, 1].flatten().numpy(),
            "target": targets[:, kept].flatten().numpy(),
        },
        train_ids=names.flatten().tolist(),
    )


def _check(
    tasks: Sequence[str], samples: int, probes: int, known: dict[str, Callable[[Tensor, Tensor], Tensor]]
) -> None:
    given = not isinstance(tasks, str) and len(tasks) > 0
    require(given, f"dataset.tasks must be a list of tasks, got {tasks!r}; e.g. dataset.tasks=[add,multiply]")
    for task in tasks:
        require(task in known, f"dataset.tasks: unknown task {task!r}; choose from {', '.join(known)}")
    require(len(set(tasks)) == len(tasks), f"dataset.tasks names a task twice: {list(tasks)}; name each once")
    require_integer("dataset.samples_per_task", samples, at_least=1)
    require_integer("dataset.probes_per_task", probes, at_least=1)
    require(
        probes <= samples,
        f"dataset.probes_per_task must be <= the {samples} samples of a task, got {probes}; lower it",
    )
