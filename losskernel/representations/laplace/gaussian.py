"""The Gaussian that stands in for the posterior: curvature of the training loss, inverted with the localisation."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from losskernel.errors import InputError, require, require_integer
from losskernel.representations.laplace.network import Network

DENSE = 3000  # moving weights up to which all of H's eigenpairs are found, in about 15 s
DEFAULT_RANK = 100
_ROUNDING = 1e-12  # eigenvalues below this share of the largest are 0


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
    size = len(network.weights)
    if rank is None:
        rank = size if size <= DENSE else DEFAULT_RANK
    require_integer("rank", rank, at_least=1)
    products = kinds[hessian]
    if rank >= size:
        matrix = products(torch.eye(size, dtype=torch.float64))
        return Curvature(*torch.linalg.eigh((matrix + matrix.T) / 2))

    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(vector: np.ndarray) -> np.ndarray:
        return products(torch.as_tensor(vector.reshape(1, -1), dtype=torch.float64))[0].numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    start = np.random.default_rng(seed).normal(size=size)
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
        # Σ^½ = bare · I + U (precisions^-½ - bare) Uᵀ
        self._bare = 0.0 if full else localization**-0.5
        self._change = precisions.rsqrt() - self._bare

    def whiten(self, rows: Tensor) -> Tensor:
        """Return rows Σ^½, [n, P] -> [n, P]: the dot products of whitened rows are those under Σ."""
        return self._bare * rows + (rows @ self._vectors * self._change) @ self._vectors.T

    def shift(self, gradient: Tensor) -> Tensor:
        """Return -Σ nβ ∇L [P], the Newton step to the centre, given the gradient of the mean training loss at w*."""
        return self.whiten(self.whiten(-self._nbeta * gradient[None]))[0]


def _require_positive(values: Tensor, full: bool, nbeta: float, localization: float) -> None:
    """Raise InputError where some direction is curved downwards, or flat beside the sharpest one."""
    least, highest = float(values.min()), float(values.abs().max())
    if not full:
        least = min(least, 0.0)
    if abs(least) < _ROUNDING * highest:
        least = 0.0
    if nbeta * least + localization > _ROUNDING * (nbeta * highest + localization):
        return
    raise InputError(
        f"localization={localization:g} does not make nbeta * H + localization * I positive definite: the smallest "
        f"eigenvalue of H is {least:.3g}; raise localization above {-nbeta * least + 0.0:.3g}"
        + (" or take hessian='ggn'" if least < 0 else "")
    )
