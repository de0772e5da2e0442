"""laplace_kernel(): the loss kernel in closed form, where losses are parabolas and the posterior is a Gaussian."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data, size, stack
from losskernel.data.loading import BlockLoader
from losskernel.errors import require, require_integer, require_number
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.representations.laplace.gaussian import Gaussian, curvature_of
from losskernel.representations.laplace.network import Network
from losskernel.sampling.engine.stacked_model import start_losses
from losskernel.sampling.samplers import resolve_nbeta, select

_BLOCK_NUMBERS = 2**24  # numbers in one block of probe Jacobians; bounds memory only


def laplace_kernel(
    model: nn.Module,
    data: Data,
    *,
    nbeta: float | str,
    localization: float,
    hessian: str = "ggn",
    order: int = 2,
    parameters: Sequence[str] | None = None,
    rank: int | None = None,
    seed: int = 0,
) -> LossKernel:
    """Return the loss kernel of the Laplace approximation of the posterior, without sampling.

    With u = w - w* the posterior is N(δ, Σ), Σ = (nβ H + γ I)⁻¹, H the Hessian of the mean training loss, and
    δ = -Σ nβ ∇L the Newton step to the minimum of the potential's parabola (0 where training has converged).
    Each probe's loss is expanded about w*, to first order in u with its gradient b, or to second order with the
    Gauss-Newton part A of its Hessian:

        order 1: K_ij = b_iᵀ Σ b_j, the influence-function kernel, which does not depend on δ;
        order 2: K_ij = c_iᵀ Σ c_j + ½ tr(A_i Σ A_j Σ), with c_i = b_i + A_i δ the gradient at the centre.

    Where the network interpolates, b is nearly 0 and the second-order term is the kernel. Both are exact for
    models linear in their weights under squared error.

    Args:
        model: the trained network; evaluated in eval mode, in float64 on the CPU, and never changed.
        data: training set, probes, loss.
        nbeta: nβ, or "train" for n/ln n.
        localization: γ.
        hessian: of the training loss: "ggn", its Gauss-Newton part, never negative; or "exact".
        order: of the losses' expansion, 1 or 2.
        parameters: globs over parameter names; only matching weights move. None: all.
        rank: leading eigenpairs of H to use; None: all up to 3,000 moving weights, 100 beyond. H counts as 0 on
            the rest, so that Σ is too wide where nβ times the next eigenvalue is not small beside γ.
        seed: of the iteration that finds the leading eigenpairs.

    Raises:
        InputError: a setting is out of range, nβ H + γ I is not positive definite, or the loss is not convex
            in the outputs.
        DivergenceError: a probe's loss at w* is not finite.

    Source: MacKay 1992, "A practical Bayesian framework for backpropagation networks"; the order-1 kernel is the
    influence function of Koh and Liang, arXiv 1703.04730, with damping γ / nβ.
    """
    nbeta = _number(nbeta, data)
    require_number("localization", localization, at_least=0)
    require(order in (1, 2), f"order must be 1 or 2, got {order!r}; take order=2")
    require_integer("seed", seed, at_least=0)
    names = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
    require(len(names) > 0, f"{type(model).__name__} has no weights to move; give a model with parameters")
    network = Network(model, data, select(names, parameters))
    start_losses(model, data.loss, BlockLoader(data.probes, 1024, data.workers, next(model.parameters()).device))
    gaussian = Gaussian(curvature_of(network, hessian, rank, seed), nbeta, localization)
    shift = gaussian.shift(network.gradient()) if order == 2 else None
    covariance = _covariance(_Probes(network, gaussian, data, shift))
    return LossKernel.from_features(_factor(covariance), data.labels, data.ids)


class _Whitened(NamedTuple):
    """Probes' derivatives in coordinates in which the posterior is standard normal."""

    gradients: Tensor  # [b, P]
    roots: Tensor | None  # [b * c, P], A = rootᵀ root for each probe; None to first order


class _Probes:
    """Blocks of whitened probe derivatives, computed when asked for."""

    def __init__(self, network: Network, gaussian: Gaussian, data: Data, shift: Tensor | None) -> None:
        self._network, self._gaussian, self._shift = network, gaussian, shift
        self._inputs, self._targets = stack(data.probes, workers=data.workers)
        self.count = size(data.probes)
        self.outputs = network.derivatives(self._inputs[:1], self._targets[:1]).gradient.shape[1]
        self.step = max(1, _BLOCK_NUMBERS // (self.outputs * len(network.weights)))

    def blocks(self) -> list[slice]:
        """Cut the probes so that one block's Jacobians stay within bounded memory."""
        return [slice(first, min(first + self.step, self.count)) for first in range(0, self.count, self.step)]

    def whitened(self, block: slice) -> _Whitened:
        """Return the whitened derivatives of a block of probes."""
        found = self._network.derivatives(self._inputs[block], self._targets[block])
        slopes = found.gradient
        roots = None
        if self._shift is not None:
            slopes = slopes + torch.einsum("bij,bj->bi", found.hessian, found.jacobian @ self._shift)
            roots = self._gaussian.whiten((_square_root(found.hessian) @ found.jacobian).flatten(0, 1))
        gradients = torch.einsum("bi,bip->bp", slopes, found.jacobian)
        return _Whitened(self._gaussian.whiten(gradients), roots)


def _covariance(probes: _Probes) -> np.ndarray:
    """K [N, N], a pair of blocks at a time."""
    result = np.empty((probes.count, probes.count))
    for number, rows in enumerate(probes.blocks()):
        left = probes.whitened(rows)
        for columns in probes.blocks()[number:]:
            right = left if columns == rows else probes.whitened(columns)
            part = _pairs(left, right, probes.outputs).numpy()
            result[rows, columns] = part
            result[columns, rows] = part.T
    return result


def _pairs(left: _Whitened, right: _Whitened, outputs: int) -> Tensor:
    """K between the probes of two blocks, [b, b']."""
    linear = left.gradients @ right.gradients.T
    if left.roots is None or right.roots is None:
        return linear
    # tr(A_i Σ A_j Σ) = |G_i Σ G_jᵀ|², where A = Gᵀ G: c² numbers a pair instead of P²
    products = (left.roots @ right.roots.T).square()  # [b c, b' c]
    return linear + products.view(len(linear), outputs, -1, outputs).sum((1, 3)) / 2


def _square_root(hessians: Tensor) -> Tensor:
    """The symmetric square root of each loss's Hessian in the outputs, [b, c, c]."""
    values, vectors = torch.linalg.eigh(hessians)
    lowest, highest = float(values.min()), float(values.abs().max())
    require(
        lowest >= -1e-9 * highest,
        f"order=2 needs a loss that is convex in the model's outputs, but data.loss has curvature {lowest:.3g} there; "
        "take order=1",
    )
    return vectors * values.clamp(min=0).sqrt()[:, None] @ vectors.mT


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Features [N, N] whose Gram matrix is K."""
    # Eigenvectors of R, not of K: rounding is relative to the largest probe, and probes with tiny losses, whose
    # variance may be 1e-20 of it, would lose their correlations.
    scale = np.sqrt(np.diag(covariance))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    values, vectors = np.linalg.eigh(covariance * inverse[:, None] * inverse)
    return scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))


def _number(nbeta: float | str, data: Data) -> float:
    """Return nβ as a number."""
    known = not isinstance(nbeta, str) or nbeta == "train"
    require(known, f"nbeta must be a number or 'train' (n/ln n), got {nbeta!r}; there are no minibatches here")
    number = resolve_nbeta(nbeta, batch_size=1, train_size=size(data.train))
    require_number("nbeta", number, at_least=0)
    return float(number)
