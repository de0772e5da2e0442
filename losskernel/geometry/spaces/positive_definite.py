"""Positive definite matrices with the affine-invariant metric."""

import numpy as np

from losskernel.errors import InputError
from losskernel.geometry.spaces.manifold import Manifold


class PositiveDefinite(Manifold):
    """Matrices [N, N] with d(A, B) = sqrt(Σ log² λ), λ the eigenvalues of A⁻¹ B.

    d(M A Mᵀ, M B Mᵀ) = d(A, B) for every invertible M, and d(A⁻¹, B⁻¹) = d(A, B). Tangents are symmetric matrices.
    All follows from A V Λ Vᵀ A = B with Vᵀ A V = I.

    Source: Pennec et al. 2006; Shahbazi et al. 2021.
    """

    def length(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return sqrt(Σ log² λ)."""
        return float(np.linalg.norm(_logs(_between(x, y)[0])))

    def log(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return A V log Λ Vᵀ A."""
        values, axes = _between(x, y)
        return _assembled(x @ axes, _logs(values))

    def exp(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return A V exp(M) Vᵀ A, with A V M Vᵀ A the tangent."""
        values, axes = _between(x, tangent)
        return _assembled(x @ axes, np.exp(values))

    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return tr(A⁻¹ v A⁻¹ w)."""
        return float(np.einsum("ij,ji->", np.linalg.solve(x, first), np.linalg.solve(x, second)))

    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return E v Eᵀ with E = (B A⁻¹)^½ = A V Λ^½ Vᵀ."""
        values, axes = _between(x, y)
        moved = (x @ axes * np.exp(_logs(values) / 2)) @ axes.T
        result = moved @ tangent @ moved.T
        return (result + result.T) / 2

    def along(self, x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
        """Return A V Λ^t Vᵀ A."""
        values, axes = _between(x, y)
        return _assembled(x @ axes, np.exp(fraction * _logs(values)))


def _between(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return λ [N] and V [N, N] of other V = A V Λ with Vᵀ A V = I."""
    from scipy.linalg import LinAlgError, eigh

    try:
        return eigh(other, x)
    except LinAlgError as error:
        raise InputError("a matrix is not positive definite; raise the ridge") from error


def _logs(values: np.ndarray) -> np.ndarray:
    if values[0] <= 0:
        raise InputError(f"a matrix is not positive definite, its least eigenvalue is {values[0]:.3g}; raise the ridge")
    return np.log(values)


def _assembled(axes: np.ndarray, values: np.ndarray) -> np.ndarray:
    result = (axes * values) @ axes.T
    return (result + result.T) / 2
