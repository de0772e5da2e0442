"""Noise of sampled kernels: how far another sample as long would stand off, and cosines corrected for it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.space import Space


def reliability(point: Point, space: Space) -> float:
    """Return ρ, 0 to 1: the cosine that another sample as long as this one would have with it.

    2 r / (1 + r), with r the cosine between the kernels of the even and the odd chains, which are independent; draws
    of one chain are not. 1 for a kernel that was not sampled, NaN for one chain, which cannot tell its noise, and 0
    where the halves have no more in common than chance.

    Raises:
        InputError: the space has no cosines.

    Source: Spearman 1910, Brown 1910.
    """
    if not point.chains:
        return 1.0
    if len(point.chains) < 2:
        return float("nan")
    try:
        cosines = space.arrangement(halves(point)).cosines
    except InputError:  # a half without structure tells that there is nothing but noise
        return 0.0
    if cosines is None:
        raise InputError(f"reliability is a ratio of cosines, which {space!r} has none of; use AngularCKA")
    half = float(cosines[0, 1])
    return 2 * half / (1 + half) if half > 0 else 0.0


def halves(point: Point) -> list[Point]:
    """Return the kernels of a sampled point's even and odd chains.

    Raises:
        InputError: there are fewer than two chains.
    """
    factor, chains = point.factor, len(point.chains)
    if factor is None or chains < 2:
        raise InputError(f"halves need >= 2 chains, got {chains}; raise schedule.chains")
    owner = np.repeat(np.arange(chains), point.chains)
    norms = np.linalg.norm(factor, axis=1, keepdims=True)
    # Rows of unit length were standardised, and are again with the draws of a half.
    standardised = bool(np.allclose(norms[norms > 0], 1.0, rtol=0, atol=1e-9))
    found: list[Point] = []
    for start in (0, 1):
        part = factor[:, owner % 2 == start]
        if standardised:
            own = np.linalg.norm(part, axis=1, keepdims=True)
            part = np.divide(part, own, out=np.zeros_like(part), where=own > 0)
        else:
            kept = point.chains[start::2]
            part = part * np.sqrt((sum(point.chains) - chains) / (sum(kept) - len(kept)))
        found.append(replace(point, factor=part, chains=point.chains[start::2]))
    return found


def noise_floor(reliabilities: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return arccos sqrt(ρ_a ρ_b) [P, P]: the angle in radians at which noise alone puts samples of one kernel.

    On the diagonal that of a repeated sample. NaN where a ρ is.
    """
    rho = np.asarray(reliabilities, dtype=np.float64)
    return np.arccos(np.clip(np.sqrt(rho[:, None] * rho), 0.0, 1.0))


def corrected_cosines(cosines: np.ndarray, reliabilities: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return cosines / sqrt(ρ_a ρ_b) [P, P]: what they would be without noise, if that of different points is unlike.

    An estimate, above 1 by chance, and no cosine of a metric: keep the raw angles for maps. 1 on the diagonal, NaN
    where a ρ is 0 or unknown.

    Raises:
        InputError: there is not one reliability a point.

    Source: Spearman 1904 (correction for attenuation).
    """
    rho = np.asarray(reliabilities, dtype=np.float64)
    fits = cosines.shape == (len(rho), len(rho))
    require(fits, f"cosines must be [P, P] for {len(rho)} reliabilities, got shape {cosines.shape}; pass one a point")
    scale = np.sqrt(np.where(rho > 0, rho, np.nan))
    found = cosines / scale[:, None] / scale
    np.fill_diagonal(found, 1.0)
    return found
