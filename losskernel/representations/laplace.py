"""laplace_kernel(): the loss kernel in closed form, where losses are parabolas and the posterior is a Gaussian.

With u = w - w* the posterior is N(δ, Σ), Σ = (nβ H + γ I)⁻¹, H the Hessian of the mean training loss, and
δ = -Σ nβ ∇L the Newton step to the minimum of the potential's parabola (0 where training has converged).
Each probe's loss is expanded about w*, to first order in u with its gradient b, or to second order with the
Gauss-Newton part A of its Hessian:

    order 1: K_ij = b_iᵀ Σ b_j, the influence-function kernel, which does not depend on δ;
    order 2: K_ij = c_iᵀ Σ c_j + ½ tr(A_i Σ A_j Σ), with c_i = b_i + A_i δ the gradient at the centre.

Where the network interpolates, b is nearly 0 and the second-order term is the kernel. Both are exact for models linear
in their weights under squared error.

Sources: MacKay 1992, "A practical Bayesian framework for backpropagation networks"; the order-1 kernel is the influence
function of Koh and Liang, arXiv 1703.04730, with damping γ / nβ.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

from losskernel.data.base import Data, Loss, size, stack
from losskernel.data.global_state import with_own_state
from losskernel.data.loading import BlockLoader
from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.representations.evaluation import device_of, float_weights
from losskernel.sampling.engine.stacked_model import start_losses
from losskernel.sampling.samplers import resolve_nbeta, select

DENSE = 3000  # moving weights up to which all of H's eigenpairs are found, in about 15 s
DEFAULT_RANK = 100
_ROUNDING = 1e-12  # eigenvalues below this share of the largest are 0
# Training samples per pass, vectors multiplied in it at once, numbers in one block of Jacobians: to bound memory.
_BLOCK, _VECTORS, _BLOCK_NUMBERS = 1024, 32, 2**24


class Derivatives(NamedTuple):
    """Derivatives of b samples' losses, to second order in the c outputs."""

    jacobian: Tensor  # [b, c, P], of the outputs in the weights
    gradient: Tensor  # [b, c], of the loss in the outputs
    hessian: Tensor  # [b, c, c], of the loss in the outputs


class Network:
    """A model in evaluation mode as a function of its moving weights, at the trained ones w* [P]; float64 on the CPU.

    Args:
        model: the trained network; copied, never changed.
        data: whose training loss curves the posterior.
        moving: names of the weights that move, in the order in which they lie in w*.
    """

    def __init__(self, model: nn.Module, data: Data, moving: Sequence[str]) -> None:
        self._model = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
        weights = dict(self._model.named_parameters())
        self._shapes = {name: weights[name].shape for name in moving}
        self._loss: Loss = data.loss
        self._train = BlockLoader(data.train, _BLOCK, data.workers, torch.device("cpu"))
        self.weights = torch.cat([weights[name].detach().flatten() for name in moving])  # [P]

    def outputs(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Return the outputs [b, ...] for inputs [b, ...] at weights [P]."""
        parts = weights.split([shape.numel() for shape in self._shapes.values()])
        named = {name: part.view(shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}
        return functional_call(self._model, named, (inputs.clone(),))  # which the model may change

    def derivatives(self, inputs: Tensor, targets: Tensor) -> Derivatives:
        """Return each sample's derivatives at w*."""
        inputs, targets = _double(inputs), _double(targets)
        outputs = self.outputs(self.weights, inputs)
        one = (1, *outputs.shape[1:])

        def sample_outputs(weights: Tensor, sample: Tensor) -> Tensor:
            return self.outputs(weights, sample[None]).flatten()

        def sample_loss(outputs: Tensor, target: Tensor) -> Tensor:
            return self._loss(outputs.view(one), target[None])[0]

        flat = outputs.reshape(len(outputs), -1)  # [b, c]
        return Derivatives(
            vmap(jacrev(sample_outputs), (None, 0))(self.weights, inputs),
            vmap(grad(sample_loss))(flat, targets),
            vmap(jacrev(grad(sample_loss)))(flat, targets),
        )

    def gradient(self) -> Tensor:
        """Return the gradient [P] of the mean training loss at w*."""
        return self._mean(lambda x, y: grad(lambda w: self._total(w, x, y))(self.weights))

    def hessian_products(self, vectors: Tensor) -> Tensor:
        """Return H v for each row v of vectors [k, P], H the Hessian of the mean training loss at w*."""

        def product(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return jvp(grad(lambda w: self._total(w, x, y)), (self.weights,), (v,))[1]

        return self._mean(lambda x, y: vmap(product, (0, None, None), chunk_size=_VECTORS)(vectors, x, y))

    def ggn_products(self, vectors: Tensor) -> Tensor:
        """Return Jᵀ h J v for each row v of vectors [k, P], averaged over the training samples.

        The generalised Gauss-Newton matrix leaves out of the Hessian what the outputs' own curvature adds.
        """

        def product(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
            outputs, pushed = jvp(lambda w: self.outputs(w, x), (self.weights,), (v,))[:2]  # pushed = J v
            curved = jvp(grad(lambda z: self._loss(z, y).sum()), (outputs,), (pushed,))[1]  # h J v
            return vjp(lambda w: self.outputs(w, x), self.weights)[1](curved)[0]

        return self._mean(lambda x, y: vmap(product, (0, None, None), chunk_size=_VECTORS)(vectors, x, y))

    def _total(self, weights: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss(self.outputs(weights, inputs), targets).sum()

    def _mean(self, of_sum: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the mean over training samples of what `of_sum` (inputs, targets) sums over a block of them."""
        total, count = torch.zeros((), dtype=torch.float64), 0
        with warnings.catch_warnings():
            # torch loads its rules of forward derivatives on first use, and deprecates its own way of doing so.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
            for inputs, targets in self._train:
                total, count = total + of_sum(_double(inputs), _double(targets)), count + len(inputs)
        return total / count


class Curvature(NamedTuple):
    """Eigenpairs of H, the Hessian of the mean training loss or its Gauss-Newton part; elsewhere H counts as 0."""

    values: Tensor  # [k]
    vectors: Tensor  # [P, k], orthonormal


def curvature_of(network: Network, hessian: str = "ggn", rank: int | None = None, seed: int = 0) -> Curvature:
    """Find the eigenpairs of H at the trained weights: all of them, or those largest in magnitude.

    Args:
        network: the network at w*.
        hessian: "ggn" or "exact".
        rank: eigenpairs to find; None: all up to 3,000 weights, 100 beyond.
        seed: of the vector that the Lanczos iteration starts from.

    Raises:
        InputError: an unknown kind of Hessian, or a rank below 1.
    """
    kinds = {"ggn": network.ggn_products, "exact": network.hessian_products}
    require(hessian in kinds, f"hessian must be 'ggn' or 'exact', got {hessian!r}; take hessian='ggn'")
    count = len(network.weights)
    if rank is None:
        rank = count if count <= DENSE else DEFAULT_RANK
    require_integer("rank", rank, at_least=1)
    products = kinds[hessian]
    if rank >= count:
        matrix = products(torch.eye(count, dtype=torch.float64))
        # Symmetric but for rounding, of which eigh would read one half only.
        return Curvature(*torch.linalg.eigh((matrix + matrix.T) / 2))

    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(vector: np.ndarray) -> np.ndarray:
        return products(torch.as_tensor(vector.reshape(1, -1), dtype=torch.float64))[0].numpy()

    operator = LinearOperator((count, count), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    start = np.random.default_rng(seed).normal(size=count)
    # Largest in magnitude: an exact Hessian's sharpest negative directions must not be taken for flat ones.
    values, vectors = eigsh(operator, k=rank, which="LM", v0=start)
    return Curvature(torch.as_tensor(values), torch.as_tensor(vectors))


class Gaussian:
    """N(w* + shift, Σ) with Σ = (nβ H + γ I)⁻¹, the posterior where its potential is a parabola.

    Args:
        curvature: eigenpairs of H. Where they are not all of them, H counts as 0 on the rest, so that Σ is an
            upper bound there (for an H without negative curvature).
        nbeta: nβ >= 0.
        localization: γ >= 0.

    Raises:
        InputError: nβ H + γ I is not positive definite, so that no Gaussian fits.
    """

    def __init__(self, curvature: Curvature, nbeta: float, localization: float) -> None:
        self._vectors = curvature.vectors
        full = self._vectors.shape[0] == self._vectors.shape[1]
        _require_positive(curvature.values, full, nbeta, localization)
        precisions = nbeta * curvature.values + localization  # [k]
        self._nbeta = nbeta
        # Σ^½ = base · I + U (precisions^-½ - base) Uᵀ, where base = γ^-½ holds off the eigenvectors U.
        self._base = 0.0 if full else localization**-0.5
        self._change = precisions.rsqrt() - self._base

    def whiten(self, rows: Tensor) -> Tensor:
        """Return rows Σ^½, [n, P] -> [n, P]: the dot products of whitened rows are those under Σ."""
        return self._base * rows + (rows @ self._vectors * self._change) @ self._vectors.T

    def shift(self, gradient: Tensor) -> Tensor:
        """Return -Σ nβ ∇L [P], the Newton step to the centre, given the gradient of the mean training loss at w*."""
        return self.whiten(self.whiten(-self._nbeta * gradient[None]))[0]


def _require_positive(values: Tensor, full: bool, nbeta: float, localization: float) -> None:
    """Raise InputError where some direction is curved downwards, or flat beside the sharpest one."""
    least, highest = float(values.min()), float(values.abs().max())
    if not full:
        least = min(least, 0.0)  # directions without an eigenpair count as flat
    if abs(least) < _ROUNDING * highest:
        least = 0.0
    if nbeta * least + localization > _ROUNDING * (nbeta * highest + localization):
        return
    raise InputError(
        f"localization={localization:g} does not make nbeta * H + localization * I positive definite: the smallest "
        f"eigenvalue of H is {least:.3g}; raise localization above {-nbeta * least + 0.0:.3g}"
        + (" or take hessian='ggn'" if least < 0 else "")
    )


@with_own_state
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
    """Return the loss kernel of the Laplace approximation of the posterior, without sampling; see the module.

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
        seed: of the iteration that finds them.

    Raises:
        InputError: a setting is out of range, nβ H + γ I is not positive definite, or the loss is not convex.
        DivergenceError: a probe's loss at w* is not finite.
    """
    nbeta = _checked_nbeta(nbeta, data, localization, order, seed)
    network = Network(model, data, select(_movable(model), parameters))
    # Losses that are not finite at w* are reported by probe, before any derivative is taken.
    start_losses(model, data.loss, BlockLoader(data.probes, 1024, data.workers, device_of(model)))
    gaussian = Gaussian(curvature_of(network, hessian, rank, seed), nbeta, localization)
    probes = _Probes(network, gaussian, data, gaussian.shift(network.gradient()) if order == 2 else None)
    covariance = gram_by_blocks(probes.count, probes.block, probes.whitened, probes.covariance)
    return LossKernel.from_features(_factor(covariance), data.labels, data.ids)


def _movable(model: nn.Module) -> list[str]:
    names = list(float_weights(model))
    require(len(names) > 0, f"{type(model).__name__} has no weights to move; give a model with parameters")
    return names


class _Whitened(NamedTuple):
    """Probes' derivatives in coordinates in which the posterior is standard normal."""

    gradients: Tensor  # [b, P]
    roots: Tensor | None  # [b * c, P], A = rootᵀ root for each probe; None to first order


class _Probes:
    """Blocks of whitened probe derivatives, computed on demand."""

    def __init__(self, network: Network, gaussian: Gaussian, data: Data, shift: Tensor | None) -> None:
        self._network, self._gaussian, self._shift = network, gaussian, shift
        self._inputs, self._targets = stack(data.probes, workers=data.workers)
        self.count = size(data.probes)
        self.outputs = network.derivatives(self._inputs[:1], self._targets[:1]).gradient.shape[1]
        # One block's Jacobians [b, c, P] stay within bounded memory.
        self.block = max(1, _BLOCK_NUMBERS // (self.outputs * len(network.weights)))

    def whitened(self, block: slice) -> _Whitened:
        """Return the whitened derivatives of a block of probes."""
        local = self._network.derivatives(self._inputs[block], self._targets[block])
        slopes = local.gradient
        roots = None
        if self._shift is not None:
            # b + A δ in the outputs: the loss gradient after the Newton step.
            slopes = slopes + torch.einsum("bij,bj->bi", local.hessian, local.jacobian @ self._shift)
            roots = self._gaussian.whiten((_square_root(local.hessian) @ local.jacobian).flatten(0, 1))
        return _Whitened(self._gaussian.whiten(torch.einsum("bi,bip->bp", slopes, local.jacobian)), roots)

    def covariance(self, left: _Whitened, right: _Whitened) -> Tensor:
        """Return K between the probes of two blocks, [b, b']."""
        linear = left.gradients @ right.gradients.T
        if left.roots is None or right.roots is None:
            return linear
        # tr(A_i Σ A_j Σ) = |G_i Σ G_jᵀ|², where A = Gᵀ G: c² numbers a pair instead of P²
        products = (left.roots @ right.roots.T).square()  # [b c, b' c]
        return linear + products.view(len(linear), self.outputs, -1, self.outputs).sum((1, 3)) / 2


def gram_by_blocks(
    count: int, block: int, rows: Callable[[slice], Any], products: Callable[[Any, Any], Tensor]
) -> np.ndarray:
    """Return a symmetric matrix [N, N], float64, computed for pairs of blocks on and above the diagonal.

    Args:
        count: N.
        block: rows of a block.
        rows: what products need of a block's rows; that of the left block is held while the right ones pass by.
        products: (left, right) -> the entries of a pair [b, b'].
    """
    blocks = [slice(first, min(first + block, count)) for first in range(0, count, block)]
    result = np.empty((count, count))
    for number, above in enumerate(blocks):
        left = rows(above)
        for columns in blocks[number:]:
            part = products(left, left if columns == above else rows(columns)).double().cpu().numpy()
            result[above, columns] = part
            result[columns, above] = part.T
    return result


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


def _checked_nbeta(nbeta: float | str, data: Data, localization: float, order: int, seed: int) -> float:
    """Return nβ as a number, after a look at the other settings."""
    known = not isinstance(nbeta, str) or nbeta == "train"
    require(known, f"nbeta must be a number or 'train' (n/ln n), got {nbeta!r}; there are no minibatches here")
    number = resolve_nbeta(nbeta, batch_size=1, train_size=size(data.train))
    require_number("nbeta", number, at_least=0)
    require_number("localization", localization, at_least=0)
    require(order in (1, 2), f"order must be 1 or 2, got {order!r}; take order=2")
    require_integer("seed", seed, at_least=0)
    return float(number)


def _double(values: Tensor) -> Tensor:
    """Floating numbers as float64; class numbers and tokens as they are."""
    return values.double() if values.is_floating_point() else values
