"""The affine-invariant metric between positive definite matrices, and between kernels with a ridge."""

from dataclasses import dataclass

import numpy as np

from losskernel.errors import InputError, require, require_number
from losskernel.geometry.centring import centred
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.manifold import Manifold
from losskernel.geometry.spaces.space import Space


class PositiveDefinite(Manifold):
    """Matrices [N, N] with d(A, B) = sqrt(Σ log² λ), λ the eigenvalues of A⁻¹ B.

    d(M A Mᵀ, M B Mᵀ) = d(A, B) for every invertible M, and d(A⁻¹, B⁻¹) = d(A, B). Tangents are symmetric matrices.
    All follows from A V Λ Vᵀ A = B with Vᵀ A V = I.

    Source: Pennec et al. 2006; Shahbazi et al. 2021.
    """

    def length(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return sqrt(Σ log² λ)."""
        return float(np.linalg.norm(_logs(_generalised_eigh(x, y)[0])))

    def log(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return A V log Λ Vᵀ A."""
        values, axes = _generalised_eigh(x, y)
        return _symmetric(x @ axes, _logs(values))

    def exp(self, x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return A V exp(M) Vᵀ A, with A V M Vᵀ A the tangent."""
        values, axes = _generalised_eigh(x, tangent)
        return _symmetric(x @ axes, np.exp(values))

    def inner(self, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Return tr(A⁻¹ v A⁻¹ w)."""
        return float(np.einsum("ij,ji->", np.linalg.solve(x, first), np.linalg.solve(x, second)))

    def transport(self, x: np.ndarray, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """Return E v Eᵀ with E = (B A⁻¹)^½ = A V Λ^½ Vᵀ."""
        values, axes = _generalised_eigh(x, y)
        moved = (x @ axes * np.exp(_logs(values) / 2)) @ axes.T
        result = moved @ tangent @ moved.T
        return (result + result.T) / 2

    def along(self, x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
        """Return A V Λ^t Vᵀ A."""
        values, axes = _generalised_eigh(x, y)
        return _symmetric(x @ axes, np.exp(fraction * _logs(values)))


def _generalised_eigh(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return λ [N] and V [N, N] of other V = A V Λ with Vᵀ A V = I."""
    from scipy.linalg import LinAlgError, eigh

    try:
        return eigh(other, x)
    except LinAlgError as error:
        raise InputError("a matrix is not positive definite; raise the ridge") from error


def _logs(values: np.ndarray) -> np.ndarray:
    """Return log λ of ascending eigenvalues."""
    least = float(values[0])
    require(least > 0, f"a matrix is not positive definite, its least eigenvalue is {least:.3g}; raise the ridge")
    return np.log(values)


def _symmetric(axes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return V Λ Vᵀ, symmetric to the last bit."""
    result = (axes * values) @ axes.T
    return (result + result.T) / 2


@dataclass(frozen=True)
class AffineInvariant(Space):
    """length(p, q) = sqrt(Σ log² eigenvalues of A⁻¹ B), with A and B the doubly centred kernels plus a ridge.

    Kernels of fewer features than inputs have zero eigenvalues, and their distance grows without bound as the ridge
    falls: a value is meaningful with its ridge only, which `repr` and `unit` name. Invariant under congruence of the
    matrices A and B and under their inversion; of changes of features only under translation and rotation.

    Source: Shahbazi et al. 2021, doi 10.1016/j.neuroimage.2021.118271.

    Attributes:
        ridge: added to every eigenvalue, in the kernels' own units; kernels are not scaled first.
    """

    ridge: float

    manifold = PositiveDefinite()
    curvature = "negative"
    invariances = frozenset({"translation", "rotation"})

    def __post_init__(self) -> None:
        require_number("ridge", self.ridge, above=0)
        object.__setattr__(self, "unit", f"ridge {self.ridge:g}")

    def _read(self, point: Point, name: str) -> np.ndarray:
        matrix = centred(point.gram(), "double") + self.ridge * np.eye(point.inputs)
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError as error:
            raise InputError(f"{name} has an eigenvalue that is negative beyond the ridge; raise ridge") from error
        return matrix

    def _point(self, values: np.ndarray, ids: np.ndarray) -> Point:
        return Point.from_gram(values - self.ridge * np.eye(len(ids)), ids)
