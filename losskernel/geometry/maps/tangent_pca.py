"""A linear map about the middle: principal axes of the directions in which the points lie from their Fréchet mean."""

from typing import NamedTuple

import numpy as np

from losskernel.errors import require_integer
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.maps.scaling import principal, stress_of
from losskernel.geometry.maps.spherical_mds import angles
from losskernel.geometry.paths.combinations import inner, logarithms, mean_weights


class TangentLayout(NamedTuple):
    """Points in the tangent space at their mean: azimuthal equidistant, true in direction and distance from it."""

    places: np.ndarray  # [P, d], the first axis carries the most; in the space's units
    explained: np.ndarray  # [d], share of the squared distances from the mean that each axis carries
    stress: float  # share of the distances that the map gets wrong: Kruskal's sqrt(Σ (d - d̂)² / Σ d²) over pairs
    raw: float  # Σ (d - d̂)² over pairs


def tangent_pca(arrangement: Arrangement, dimensions: int = 2) -> TangentLayout:
    """Place P points by the principal axes of log_μ at their Fréchet mean μ, from how they stand to each other alone.

    On a sphere the stress is that of the places put back onto it, exp_μ of the kept axes, so that it can be set beside
    `spherical_mds`: points of one geodesic have none in one dimension. In flat spaces this is classical scaling.

    Raises:
        InputError: the points have no mean, or dimensions are not >= 1.

    Source: Fletcher et al. 2004 (principal geodesic analysis).
    """
    require_integer("dimensions", dimensions, at_least=1)
    tangents = logarithms(arrangement, mean_weights(arrangement))
    gram = inner(arrangement, tangents, tangents)
    places = principal((gram + gram.T) / 2, dimensions)
    apart = bool((arrangement.distances > 0).any())  # else rounding is all there is
    explained = (places**2).sum(0) / np.trace(gram) if apart else np.zeros(dimensions)
    return TangentLayout(places, explained, *stress_of(arrangement.distances, _shown(arrangement, places)))


def _shown(arrangement: Arrangement, places: np.ndarray) -> np.ndarray:
    if arrangement.cosines is None:
        return np.linalg.norm(places[:, None] - places, axis=-1)
    radius = np.linalg.norm(places, axis=1, keepdims=True)
    return angles(np.hstack([np.cos(radius), places * np.sinc(radius / np.pi)]))
