"""The affine-invariant metric between kernels with a ridge."""

from dataclasses import dataclass

import numpy as np

from losskernel.errors import InputError, require_number
from losskernel.geometry.centring import centred
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.positive_definite import PositiveDefinite
from losskernel.geometry.spaces.space import Space


@dataclass(frozen=True)
class AffineInvariant(Space):
    """length(p, q) = sqrt(Σ log² eigenvalues of A⁻¹ B), with A and B the doubly centred kernels plus a ridge.

    Kernels of fewer features than inputs have zero eigenvalues, and their distance grows without bound as the ridge
    falls: every value stands for its ridge, which `repr` and `unit` name. Invariant under congruence of the matrices
    A and B and under their inversion; of changes of features only under translation and rotation.

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
