"""Closed forms and synthetic traces that several tests share."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losskernel import LossKernel, LossTraces


def gaussian(chains: int, draws: int, covariance: Any, seed: int = 0) -> np.ndarray:
    """Independent draws [C, D, N] from N(0, covariance)."""
    root = np.linalg.cholesky(np.asarray(covariance, dtype=np.float64))
    return np.random.default_rng(seed).normal(size=(chains, draws, len(root))) @ root.T


def pairs(chains: int, draws: int, count: int, rho: float, phi: float = 0.0, seed: int = 0) -> np.ndarray:
    """`count` independent pairs of probes, side by side, of unit variance and correlation rho, [C, D, 2 count].

    With phi each is a stationary AR(1) series along the draws. The pairs are replicates of one experiment, so
    that a single kernel holds a whole Monte-Carlo study on its first off-diagonal.
    """
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(chains, draws, count, 2))
    steps[..., 1] = rho * steps[..., 0] + np.sqrt(1 - rho**2) * steps[..., 1]
    series = np.empty_like(steps)
    series[:, 0] = steps[:, 0]
    for draw in range(1, draws):
        series[:, draw] = phi * series[:, draw - 1] + np.sqrt(1 - phi**2) * steps[:, draw]
    return series.reshape(chains, draws, 2 * count)


def of_pairs(matrix: np.ndarray) -> np.ndarray:
    """The entry of each pair of `pairs` in a kernel matrix."""
    first = np.arange(0, len(matrix), 2)
    return matrix[first, first + 1]


def blocks(sizes: Sequence[int], rho: float) -> np.ndarray:
    """A correlation matrix with rho within consecutive blocks of probes and 0 across."""
    member = np.repeat(np.arange(len(sizes)), sizes)
    matrix = rho * (member[:, None] == member)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def kernel_of(losses: Any, **known: Any) -> LossKernel:
    """The kernel of an array of losses [C, D, N]."""
    return LossKernel.from_traces(LossTraces.from_arrays(losses, **known))


def own_gradient(model: nn.Module, weights: dict[str, Tensor], loss: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradient of one chain's mean loss by plain autograd on a copy of the model, over the given weights."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    named = dict(model.named_parameters())
    for name, value in weights.items():
        named[name].data.copy_(value)
        named[name].requires_grad_(True)
    loss(model(inputs), targets).mean().backward()
    return torch.cat([named[name].grad.flatten() for name in weights])
