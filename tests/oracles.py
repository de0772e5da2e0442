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


def quadratic_problem(
    size: int = 6, probes: int = 12, bend: float = 0.5, seed: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Σ [P, P], b [N, P], A [N, P, P]) of losses l_i = b_i·w + ½ wᵀA_i w of weights w ~ N(0, Σ), in two groups."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    group = np.arange(probes) >= probes // 2
    own = (np.arange(size) >= size // 2) == group[:, None]  # each group leans on its half of the weights
    linear = rng.normal(size=(probes, size)) * own
    linear[~group, 0] += 1.5
    linear[group, size // 2] += 1.5
    quadratic = rng.normal(size=(probes, size, size)) * bend / np.sqrt(size)
    return root @ root.T + 0.2 * np.eye(size), linear, (quadratic + quadratic.transpose(0, 2, 1)) / 2


def quadratic_kernel(sigma: np.ndarray, linear: np.ndarray, quadratic: np.ndarray) -> np.ndarray:
    """The exact K [N, N]: b_iᵀΣb_j + ½ tr(A_iΣA_jΣ)."""
    bent = quadratic @ sigma
    return linear @ sigma @ linear.T + np.einsum("ipq,jqp->ij", bent, bent) / 2


def weights(sigma: np.ndarray, runs: int, chains: int, draws: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) chains of weights [runs, C, D, P] of covariance Σ and memory phi."""
    steps = rng.normal(size=(runs, chains, draws, len(sigma))) @ np.linalg.cholesky(sigma).T
    if phi:
        steps[:, :, 1:] *= np.sqrt(1 - phi**2)
        for draw in range(1, draws):
            steps[:, :, draw] += phi * steps[:, :, draw - 1]
    return steps


def quadratic_losses(drawn: np.ndarray, linear: np.ndarray, quadratic: np.ndarray) -> np.ndarray:
    """Losses [..., N] of weights [..., P]."""
    bent = [np.einsum("...p,...p->...", drawn @ each, drawn) for each in quadratic]
    return drawn @ linear.T + np.stack(bent, axis=-1) / 2
