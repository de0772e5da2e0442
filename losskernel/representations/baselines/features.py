"""Feature kernels over the probes: rows [N, d] of a trained network whose Gram matrix is the kernel.

The last are influence functions: dot products under the inverse curvature, or of projected margins (TRAK).

Each class is called with the network and the data. It evaluates a copy in eval mode, block by block, on the device of
the weights, and returns float32.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data, Loss, size
from losskernel.data.loading import BlockLoader
from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.representations.activations.graph import matches_glob
from losskernel.representations.evaluation import (
    Evaluator,
    classifies,
    device_of,
    float_weights,
    gradients_one_by_one,
    log_odds,
)
from losskernel.representations.laplace import Network

_BLOCK = 64  # samples whose Jacobians are held at once
_HEADS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Penultimate:
    """Input of the head, [N, d], uncentred: R is the usual cosine of features.

    The head is the last linear layer or convolution with as many outputs as the network, else the last linear layer.
    """

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; units that have positions are averaged over them.

        Raises:
            InputError: the network evaluates no such layer.
        """
        names = [name for name, module in model.named_modules() if isinstance(module, _HEADS)]
        network = Evaluator(model, names)
        return _stacked(network.last_input(inputs) for inputs, _ in network.blocks(data))


@dataclass(frozen=True)
class Logits:
    """The network's outputs, [N, d], without each row's mean, to which a softmax is invariant."""

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; a single output keeps its mean."""
        network = Evaluator(model)
        rows = _stacked(network.model(inputs).flatten(1) for inputs, _ in network.blocks(data))
        # A single output has no other to be compared with, and less its mean it would be 0.
        return rows - rows.mean(axis=1, keepdims=True) if rows.shape[1] > 1 else rows


@dataclass(frozen=True)
class Layers:
    """Activations of several layers side by side, averaged over positions, [N, d]: their kernel is the layers' mean.

    Columns are centred over the probes, as for linear CKA, and every layer has the same mean squared length of a row.

    Attributes:
        names: patterns of modules such as "inception*" or "features.*", in which * does not match a dot; None takes
            the network's direct children.

    Source: Kornblith et al. 2019 (CKA).
    """

    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        listed = self.names is None or (not isinstance(self.names, str) and len(self.names) > 0)
        require(listed, f"baselines.layers.names must be a list of patterns or null, got {self.names!r}; write ['*']")

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows; modules that are not evaluated, or do not return one tensor, are skipped.

        Raises:
            InputError: a pattern matches no module, or no module that is evaluated.
        """
        modules = [name for name, _ in model.named_modules() if name]
        for pattern in self.names or ():
            matched = any(matches_glob(name, pattern) for name in modules)
            children = ", ".join(name for name, _ in model.named_children())
            require(matched, f"baselines.layers.names: {pattern!r} matches no module; the outermost are {children}")
        chosen = [name for name in modules if any(matches_glob(name, pattern) for pattern in self.names or ("*",))]
        network = Evaluator(model, chosen)
        # Per block: layer -> [B, d].
        parts = [network.activations(inputs) for inputs, _ in network.blocks(data)]
        require(len(parts[0]) > 0, "baselines.layers.names matches no module that returns a tensor; name others")
        return np.concatenate([_normalised(_stacked(part[name] for part in parts)) for name in parts[0]], axis=1)


@dataclass(frozen=True)
class Gradients:
    """Gradients of each probe's own loss with respect to all weights, compressed by a count sketch, [N, size].

    Inner products of the rows are those of the gradients, without bias over seeds; not centred.

    Attributes:
        size: columns; the error of an inner product is about 1/√size of the product of the lengths.
        seed: fixes into which column each weight goes, and with which sign.

    Source: Weinberger et al. 2009 (feature hashing).
    """

    size: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("baselines.gradients.size", self.size, at_least=2)
        require_integer("baselines.gradients.seed", self.seed, at_least=0)

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the rows, one probe at a time, so that one gradient is in memory.

        Raises:
            InputError: the network has no weights.
        """
        network = Evaluator(model)
        weights = list(float_weights(network.model, "drop the baseline gradients").values())
        generator, device = torch.Generator().manual_seed(self.seed), weights[0].device
        # The hash of the sketch: a column and a sign for every weight, drawn on the CPU for all devices alike.
        columns = [torch.randint(self.size, (weight.numel(),), generator=generator).to(device) for weight in weights]
        signs = [
            torch.randint(2, (weight.numel(),), generator=generator).to(device, torch.int8) * 2 - 1
            for weight in weights
        ]
        rows: list[Tensor] = []
        for inputs, targets in network.blocks(data):
            for gradient in gradients_one_by_one(network.model, data.loss, weights, inputs, targets):
                row = torch.zeros(self.size, device=device)
                # Σ sign · gradient over the weights of each column.
                for part, column, sign in zip(gradient, columns, signs, strict=True):
                    row.scatter_add_(0, column, part.flatten().float() * sign)
                rows.append(row.cpu())
        return torch.stack(rows).numpy()


def _stacked(parts: Iterable[Tensor]) -> np.ndarray:
    return torch.cat([part.float().cpu() for part in parts]).numpy()


def _normalised(rows: np.ndarray) -> np.ndarray:
    """Return centred rows whose mean squared length is 1, so that every layer counts alike."""
    centred = rows - rows.mean(axis=0)
    length = np.sqrt(np.square(centred).sum(1).mean())
    return centred / length if length > 0 else centred


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
        from scipy.linalg import cholesky, solve_triangular

        weights = float_weights(model, "drop the baseline")
        count = sum(weight.numel() for weight in weights.values())
        require(
            count <= self.largest,
            f"the {count:,} weights' curvature would fill {8e-9 * count**2:.1f} GB, more than largest={self.largest:,} "
            "allows; drop the baseline, or raise largest",
        )
        network, slopes = Network(model, data, list(weights)), []
        curvature = _gauss_newton(network, data)
        curvature[np.diag_indices(count)] += self.damping  # the Cholesky factor reads the lower triangle alone
        factor = cholesky(curvature, lower=True, overwrite_a=True, check_finite=False)
        for inputs, targets in BlockLoader(data.probes, _BLOCK, data.workers, torch.device("cpu")):
            local = network.derivatives(inputs, targets)
            slopes.append(torch.einsum("bi,bip->bp", local.gradient, local.jacobian).numpy())  # of the losses
        gradients = np.concatenate(slopes)  # [N, P]
        # Whitened by the Cholesky factor of H + damping, [P, N].
        white = solve_triangular(factor, gradients.T, lower=True, overwrite_b=True, check_finite=False)
        # Fewer probes than weights: the R of QR has the same dot products in N columns instead of P.
        few = white.shape[1] < count
        return np.asarray(np.linalg.qr(white, mode="r") if few else white).T.astype(np.float32)


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


@torch.no_grad()
def _output(model: nn.Module, data: Data) -> tuple[Loss, np.ndarray, np.ndarray]:
    """Return the output that TRAK linearises, and each probe's residual [N] and weight as a query [N].

    Raises:
        InputError: outputs are neither logits of classes nor single numbers.
    """
    network = Evaluator(model)
    blocks = BlockLoader(data.probes, 1024, data.workers, device_of(network.model))
    pairs = [(network.model(inputs), targets) for inputs, targets in blocks]
    outputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if classifies(outputs, targets):
        residuals = torch.sigmoid(-log_odds(outputs, targets)).double().cpu().numpy()
        return log_odds, residuals, np.ones(len(residuals))
    single = outputs[0].numel() == targets[0].numel() == 1 and targets.is_floating_point()
    require(
        single, "projected margins need logits of classes, or one output and one number as target; drop the baseline"
    )
    residuals = (targets.flatten() - outputs.flatten()).double().cpu().numpy()
    return (lambda outputs, targets: outputs.flatten()), residuals, residuals
