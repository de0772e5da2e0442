"""Influence functions as rows: dot products under the inverse curvature, or of projected margins (TRAK)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data, Loss, size
from losskernel.data.loading import BlockLoader
from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.representations.baselines.features import Gradients
from losskernel.representations.evaluation import Evaluator, classifies, device_of, float_weights, log_odds
from losskernel.representations.laplace import Network

_BLOCK = 64  # samples whose Jacobians are held at once


@dataclass(frozen=True)
class ProjectedMargins:
    """TRAK of one network: rows `query` and `train` [N, size], whose dot products are influences, positive = helpful.

    The network is linearised in its weights. With φ the gradient of a sample's output, compressed by a count
    sketch, a training sample moves the output of a query by φ_qᵀ (ΦᵀΦ / n + damping)⁻¹ φ_i r_i / n, where Φ [n, size]
    are the probes that are training samples. The output is log p / (1 - p) of the class, with r = 1 - p; of networks
    with one output under squared error it is that output, r is target minus output, and the query's own r makes it
    the influence on the loss.

    Attributes:
        size: columns of the sketch.
        seed: of the sketch.
        damping: added to the mean square of the features; the published method has none, and needs size < n.

    Raises:
        InputError: a number out of range; when called: no probe is a training sample, outputs of another kind, or the
            features are linearly dependent and not damped.

    Source: Park et al. 2023, "TRAK", arXiv 2303.14186.
    """

    size: int = 2048
    seed: int = 0
    damping: float = 0.3

    def __post_init__(self) -> None:
        require_integer("baselines.trak.size", self.size, at_least=2)
        require_integer("baselines.trak.seed", self.seed, at_least=0)
        require_number("baselines.trak.damping", self.damping, at_least=0)

    def __call__(self, model: nn.Module, data: Data) -> dict[str, np.ndarray]:
        """Return the whitened features of all probes as queries, and weighted as training samples."""
        from scipy.linalg import LinAlgError, cholesky, solve_triangular

        train = data.members() >= 0
        count = int(train.sum())
        require(count > 0, "no probe is known to be a training sample; add wrapper=[joint_probes]")
        fits = self.damping > 0 or self.size <= count
        require(fits, f"without damping size must be <= the {count} training samples, got {self.size}; raise damping")
        output, residuals, weights = _output(model, data)
        features = Gradients(self.size, self.seed)(model, replace(data, loss=output)).astype(np.float64)
        square = features[train].T @ features[train] / count
        square[np.diag_indices(self.size)] += self.damping  # ΦᵀΦ / n + damping, [size, size]
        try:
            factor = cholesky(square, lower=True)
        except LinAlgError as error:
            raise InputError(f"projected gradients of the {count} samples are dependent; raise damping") from error
        # Half of the inverse on either side: dot products of whitened features are φ_qᵀ (ΦᵀΦ / n + damping)⁻¹ φ_i.
        white = solve_triangular(factor, features.T, lower=True).T
        rows = {"query": white * weights[:, None], "train": white * residuals[:, None]}
        return {name: values.astype(np.float32) for name, values in rows.items()}


@dataclass(frozen=True)
class Influence:
    """Rows [N, min(N, P)] whose dot products are influences g_qᵀ (H + damping)⁻¹ g_i, positive = helpful.

    g are the gradients of the probes' losses in all P weights, and H is the generalised Gauss-Newton matrix of the
    mean training loss over the whole training set: its Hessian where the model is linear in its weights, as in
    logistic regression, and for cross-entropy the Fisher information. In float64 on the CPU, with H [P, P] in memory.

    Attributes:
        damping: added to H; of a chain with localisation γ at nβ it is γ / nβ.
        largest: weights at most; 10,000 need 0.8 GB and a minute for a thousand training samples of ten classes.

    Raises:
        InputError: a number out of range; when called: more weights, or a loss that is not convex in the outputs.

    Source: Koh & Liang 2017, arXiv 1703.04730; Martens 2020 (Gauss-Newton and Fisher), arXiv 1412.1193.
    """

    damping: float = 0.005
    largest: int = 10_000

    def __post_init__(self) -> None:
        require_number("baselines.influence.damping", self.damping, above=0)
        require_integer("baselines.influence.largest", self.largest, at_least=1)

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows, rotated into as few columns as hold them, which keeps all dot products."""
        weights = float_weights(model)
        count = sum(weight.numel() for weight in weights.values())
        require(count > 0, f"{type(model).__name__} has no weights; drop the baseline")
        require(
            count <= self.largest,
            f"the {count:,} weights' curvature would fill {8e-9 * count**2:.1f} GB, more than largest={self.largest:,} "
            "allows; drop the baseline, or raise largest",
        )
        white = self._whitened(Network(model, data, list(weights)), data)  # [P, N]
        # Fewer probes than weights: the R of QR has the same dot products in N columns instead of P.
        few = white.shape[1] < count
        return np.asarray(np.linalg.qr(white, mode="r") if few else white).T.astype(np.float32)

    def _whitened(self, network: Network, data: Data) -> np.ndarray:
        """Return the probes' gradients, whitened by the Cholesky factor of H + damping, [P, N]."""
        from scipy.linalg import cholesky, solve_triangular

        curvature = _gauss_newton(network, data)
        curvature[np.diag_indices(len(curvature))] += self.damping  # the Cholesky factor reads the lower triangle alone
        factor = cholesky(curvature, lower=True, overwrite_a=True, check_finite=False)
        gradients = _gradients(network, data)
        return solve_triangular(factor, gradients.T, lower=True, overwrite_b=True, check_finite=False)


def _gauss_newton(network: Network, data: Data) -> np.ndarray:
    """The lower triangle of H [P, P], summed over training samples as root-Gram matrices; the rest is 0."""
    from scipy.linalg.blas import dsyrk  # pyright: ignore[reportAttributeAccessIssue]

    count = len(network.weights)
    total = np.zeros((count, count), order="F")
    for inputs, targets in BlockLoader(data.train, _BLOCK, data.workers, torch.device("cpu")):
        local = network.derivatives(inputs, targets)
        values, vectors = torch.linalg.eigh(local.hessian)  # [b, c], [b, c, c]
        lowest, highest = float(values.min()), float(values.abs().max())
        require(
            lowest >= -1e-9 * highest,
            f"data.loss has curvature {lowest:.3g} in the model's outputs, and must be convex there; drop the baseline",
        )
        roots = (values.clamp(min=0).sqrt()[:, :, None] * vectors.mT @ local.jacobian).flatten(0, 1)  # [b c, P]
        # Logits that all move together change no probability: of c directions one is flat, and left out.
        curved = roots[values.flatten() > 1e-12 * highest].numpy()
        dsyrk(1 / size(data.train), curved.T, beta=1.0, c=total, lower=1, overwrite_c=1)
    return total


def _gradients(network: Network, data: Data) -> np.ndarray:
    """The gradients of the probes' losses, [N, P]."""
    parts = []
    for inputs, targets in BlockLoader(data.probes, _BLOCK, data.workers, torch.device("cpu")):
        local = network.derivatives(inputs, targets)
        parts.append(torch.einsum("bi,bip->bp", local.gradient, local.jacobian).numpy())
    return np.concatenate(parts)


@torch.no_grad()
def _output(model: nn.Module, data: Data) -> tuple[Loss, np.ndarray, np.ndarray]:
    """Return the output that TRAK linearises, and each probe's residual [N] and weight as a query [N].

    Raises:
        InputError: outputs are neither logits of classes nor single numbers.
    """
    network = Evaluator(model)
    blocks = BlockLoader(data.probes, 1024, data.workers, device_of(network.model))
    pairs = [(network.outputs(inputs), targets) for inputs, targets in blocks]
    outputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if classifies(outputs, targets):
        residuals = torch.sigmoid(-log_odds(outputs, targets)).double().cpu().numpy()
        return log_odds, residuals, np.ones(len(residuals))
    single = outputs[0].numel() == targets[0].numel() == 1 and targets.is_floating_point()
    require(
        single, "projected margins need logits of classes, or one output and one number as target; drop the baseline"
    )
    residuals = (targets.flatten() - outputs.flatten()).double().cpu().numpy()
    return _flat_output, residuals, residuals


def _flat_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.flatten()
