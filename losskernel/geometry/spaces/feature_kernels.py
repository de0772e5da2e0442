"""Kernels of features: linear, and two of distance whose length scale may follow the data."""

import math
import re
from dataclasses import dataclass

import numpy as np

from losskernel.errors import InputError, require, require_number
from losskernel.geometry.point import pairwise_distances

_NUMBER = r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)"
# "median", "2*median", "mean/3".
_FORMULA = re.compile(rf"(?:{_NUMBER}\s*\*\s*)?(median|mean|auto)(?:\s*([*/])\s*{_NUMBER})?")


@dataclass(frozen=True)
class Linear:
    """k(x, y) = x · y."""

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the kernel [N, N] of features [N, d]."""
        values = np.asarray(features, dtype=np.float64)
        return values @ values.T


@dataclass(frozen=True)
class _Radial:
    """A kernel of |x - y| / l; with an adaptive l it does not change when features are scaled.

    Attributes:
        length: l as a number in the units of the features, or a formula on the distances between different inputs:
            "median", "mean", or either times or over a number, such as "2*median" or "median/2"; "auto" is "median".
    """

    length: float | str = "median"

    def __post_init__(self) -> None:
        if isinstance(self.length, str):
            factor, _ = _parsed(self.length)
            require(0 < factor < math.inf, f"length must be > 0, got {self.length!r}; take 'median'")
        else:
            require_number("length", self.length, above=0)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        """Return |x - y| / l, [N, N]."""
        values = np.asarray(features, dtype=np.float64)
        values = values - values.mean(axis=0)  # a common offset would cost digits
        apart = pairwise_distances(values @ values.T)
        if not isinstance(self.length, str):
            return apart / float(self.length)
        pairs = apart[np.triu_indices(len(apart), 1)]
        require(len(pairs) > 0, f"length {self.length!r} needs >= 2 inputs, got {len(apart)}; give a number")
        factor, statistic = _parsed(self.length)
        typical = float(np.median(pairs) if statistic == "median" else np.mean(pairs))
        require(typical > 0, f"length {self.length!r} is 0: inputs are equal in these features; give a number")
        return apart / (factor * typical)


@dataclass(frozen=True)
class SquaredExponential(_Radial):
    """k(x, y) = exp(-|x - y|² / l²), without a half."""

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the kernel [N, N] of features [N, d]."""
        return np.exp(-(self._scaled(features) ** 2))


@dataclass(frozen=True)
class Laplacian(_Radial):
    """k(x, y) = exp(-|x - y| / l)."""

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the kernel [N, N] of features [N, d]."""
        return np.exp(-self._scaled(features))


def _parsed(length: str) -> tuple[float, str]:
    """Return the number and the statistic of a formula."""
    match = _FORMULA.fullmatch(length.strip())
    if match is None:
        raise InputError(f"length must be a number or a formula such as 'median/2' or '2*mean', got {length!r}")
    before, statistic, sign, after = match.groups()
    factor = float(before or 1.0)
    if sign:
        factor *= float(after) if sign == "*" else 1 / float(after) if float(after) else math.inf
    return factor, "mean" if statistic == "mean" else "median"
