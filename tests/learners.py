"""Trainings that take no time, in a module that a worker process imports quickly."""

import os

import torch
from torch import nn

from losskernel.data.base import Data, stack


def learned(data: Data, seed: int, scale: float = 1.0) -> nn.Module:
    """Least squares with a little noise of its own."""
    inputs, targets = stack(data.train)
    model = nn.Linear(3, 1, bias=False)
    noise = torch.randn(1, 3, generator=torch.Generator().manual_seed(seed))
    solution = torch.linalg.lstsq(inputs.double(), targets.double() + 0.1 * inputs[:, :1].double() ** 2).solution
    model.weight.data = solution.T.float() + 0.01 * scale * noise
    return model


def deadly(data: Data, seed: int) -> nn.Module:
    """End the process, as a lack of memory would."""
    os._exit(1)
