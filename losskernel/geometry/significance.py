"""Statistics of points: noise of sampled kernels, and what a CKA owes to chance and to single inputs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from losskernel.errors import InputError, require, require_integer
from losskernel.geometry.centring import centred
from losskernel.geometry.point import Point, require_same_inputs
from losskernel.geometry.spaces.angular_cka import AngularCKA
from losskernel.geometry.spaces.space import Space

# Numbers of all kernels together that are held beside the permuted one.
_NUMBERS = 2**24
# Permutations that change nothing, as of labels within classes, give cosines that differ by rounding.
_ROUNDING = 1e-12


def reliability(point: Point, space: Space) -> float:
    """Return ρ, 0 to 1: the cosine that another sample as long as this one would have with it.

    2 r / (1 + r), with r the cosine between the kernels of the even and the odd chains, which are independent; draws
    of one chain are not. 1 for a kernel that was not sampled, NaN for one chain, whose noise is unknown, and 0 where
    the halves agree no more than by chance.

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
    except InputError:  # a half without structure: nothing but noise
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
    chain_of = np.repeat(np.arange(chains), point.chains)  # of each column
    norms = np.linalg.norm(factor, axis=1, keepdims=True)
    # Rows of unit length are those of a correlation: standardised again over the draws of a half.
    standardised = bool(np.allclose(norms[norms > 0], 1.0, rtol=0, atol=1e-9))
    parts: list[Point] = []
    for start in (0, 1):
        part, kept = factor[:, chain_of % 2 == start], point.chains[start::2]
        if standardised:
            length = np.linalg.norm(part, axis=1, keepdims=True)
            part = np.divide(part, length, out=np.zeros_like(part), where=length > 0)
        else:
            # From the degrees of freedom of all draws, C T - C, to those of the half.
            part = part * np.sqrt((sum(point.chains) - chains) / (sum(kept) - len(kept)))
        parts.append(replace(point, factor=part, chains=kept))
    return parts


def noise_floor(reliabilities: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return arccos sqrt(ρ_a ρ_b) [P, P]: the angle in radians that noise alone puts between samples of one kernel.

    The diagonal is that of a repeated sample. NaN where a ρ is.
    """
    rho = np.asarray(reliabilities, dtype=np.float64)
    return np.arccos(np.clip(np.sqrt(rho[:, None] * rho), 0.0, 1.0))


def corrected_cosines(cosines: np.ndarray, reliabilities: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return cosines / sqrt(ρ_a ρ_b) [P, P]: estimates without noise, if that of different points is independent.

    Above 1 by chance, and no cosines of a metric: keep the raw angles for maps. 1 on the diagonal, NaN where a ρ is 0
    or unknown.

    Raises:
        InputError: there is not one reliability per point.

    Source: Spearman 1904 (correction for attenuation).
    """
    rho = np.asarray(reliabilities, dtype=np.float64)
    fits = cosines.shape == (len(rho), len(rho))
    require(fits, f"cosines must be [P, P] for {len(rho)} reliabilities, got shape {cosines.shape}; pass one per point")
    scale = np.sqrt(np.where(rho > 0, rho, np.nan))
    corrected = cosines / scale[:, None] / scale
    np.fill_diagonal(corrected, 1.0)
    return corrected


class Null(NamedTuple):
    """A cosine in its permutation null distribution, of kernels that are unrelated."""

    cosine: float
    p_value: float  # share of permutations that agree at least as well, the identity included
    permuted: np.ndarray  # [permutations] cosines, ascending

    def quantile(self, share: float) -> float:
        """Return the cosine that a share of the permutations stays below."""
        return float(np.quantile(self.permuted, share))


class Jackknife(NamedTuple):
    """A cosine without each of its inputs."""

    cosine: float
    error: float  # standard error of the cosine, over inputs
    distance_error: float  # of the angle, in radians
    without: np.ndarray  # [N] cosines, each input left out in turn
    leverage: np.ndarray  # [N], cosine - without: above 0 for inputs that make the kernels alike


def permutation_null(
    p: Point,
    q: Point,
    space: AngularCKA,
    permutations: int = 999,
    seed: int = 0,
    within: Sequence[int] | np.ndarray | None = None,
) -> Null:
    """Compare a cosine with those after random permutations of the inputs of one kernel.

    Under "u" these are 0 on average. With `within` inputs are permuted inside their group only, such as a class: the
    null hypothesis is then that the kernels agree about groups and about nothing else.

    Args:
        p: one kernel.
        q: the other, whose inputs are permuted.
        space: which centring.
        permutations: their number; the least p-value is 1 / (permutations + 1).
        seed: of the permutations.
        within: [N] group of each input; None for one group.

    Raises:
        InputError: the points are over different inputs, or groups do not match.

    Source: Phipson & Smyth 2010 (p-values that are never 0).
    """
    return permutation_nulls([p], q, space, permutations, seed, within)[0]


def permutation_nulls(
    points: Sequence[Point],
    reference: Point,
    space: AngularCKA,
    permutations: int = 999,
    seed: int = 0,
    within: Sequence[int] | np.ndarray | None = None,
) -> list[Null]:
    """Compare the cosines of many kernels with one by the same permutations of its inputs; see `permutation_null`.

    Raises:
        InputError: as for `permutation_null`.
    """
    require_same_inputs([reference, *points])
    require_integer("permutations", permutations, at_least=1)
    inputs = reference.inputs
    groups = np.zeros(inputs, dtype=int) if within is None else np.unique(np.asarray(within), return_inverse=True)[1]
    require(len(groups) == inputs, f"within has {len(groups)} entries for {inputs} inputs; give one per input")
    draw = np.random.default_rng(seed)
    orders = [_shuffled(groups, draw) for _ in range(permutations)]
    moved, permuted = _unit(reference, space), np.empty((len(points), permutations))
    observed = np.empty(len(points))
    step = max(1, _NUMBERS // inputs**2)  # kernels that are held whole at once
    for start in range(0, len(points), step):
        chunk = slice(start, start + step)
        kernels = np.stack([_unit(point, space).ravel() for point in points[chunk]])  # [step, N²]
        observed[chunk] = kernels @ moved.ravel()
        for number, order in enumerate(orders):
            permuted[chunk, number] = kernels @ np.take(moved[order], order, axis=1).ravel()
    share = (1 + (permuted >= observed[:, None] - _ROUNDING).sum(1)) / (permutations + 1)
    return [Null(float(c), float(p), np.sort(null)) for c, p, null in zip(observed, share, permuted, strict=True)]


def jackknife(p: Point, q: Point, space: AngularCKA) -> Jackknife:
    """Return a cosine without each of its inputs, centred again every time, and the standard errors that follow.

    In closed form from row sums of products of the two kernels, which are held whole; no kernel is centred twice.

    Raises:
        InputError: the points are over different inputs, too few inputs would be left for the centring, or a point is
            masked already.

    Source: Efron & Stein 1981.
    """
    require_same_inputs([p, q])
    masked = space.centring == "masked"
    fresh = not (masked and "masked" in (p.centring, q.centring))
    require(fresh, "a point on a geodesic of masked kernels is no kernel to leave inputs out of; use centring='u'")
    require(p.inputs >= 6, f"a jackknife needs >= 6 inputs, got {p.inputs}; add more")
    # Masking is applied again to every set of inputs: it starts from the doubly centred kernels.
    kernels = [centred(point.gram(), "double") if masked else space.centred(point) for point in (p, q)]
    cosine = float(space.gram([p, q])[0, 1])
    cross, first, second = (
        products_without(kernels[a], kernels[b], space.centring) for a, b in ((0, 1), (0, 0), (1, 1))
    )
    without = cross / np.sqrt(first * second)
    angle = np.arccos(np.clip(without, -1.0, 1.0))
    return Jackknife(cosine, float(jackknife_error(without)), float(jackknife_error(angle)), without, cosine - without)


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values [n] adjusted so that those below a share have at most that false discovery rate.

    NaN, for a test that was not made, stays NaN and does not count.

    Raises:
        InputError: a p-value does not lie in 0 to 1.

    Source: Benjamini & Hochberg 1995.
    """
    from scipy.stats import false_discovery_control

    values = np.asarray(p_values, dtype=np.float64)
    made = ~np.isnan(values)
    proper = bool(((values[made] >= 0) & (values[made] <= 1)).all())
    require(proper, "p-values must lie between 0 and 1; pass those of permutation_null")
    adjusted = np.full(values.shape, np.nan)
    if made.any():
        adjusted[made] = false_discovery_control(values[made], method="bh")
    return adjusted


def _unit(point: Point, space: AngularCKA) -> np.ndarray:
    space.arrangement([point])  # raises InputError for a kernel without direction
    kernel = space.centred(point)
    return kernel / np.linalg.norm(kernel)


def _shuffled(groups: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return a random order [N] of the inputs that permutes them within their groups."""
    order = np.empty(len(groups), dtype=int)
    order[np.argsort(groups, kind="stable")] = np.lexsort((draw.random(len(groups)), groups))
    return order


def products_without(left: np.ndarray, right: np.ndarray, centring: str) -> np.ndarray:
    """Return <C(K), C(L)> [N] with each input left out in turn, from centred kernels [N, N].

    Rows of a centred kernel sum to zero: without an input they sum to minus its column.
    """
    row = np.einsum("ij,ij->i", left, right)  # [N], contribution of each input's row
    left_diagonal, right_diagonal = left.diagonal(), right.diagonal()
    total, rest = row.sum(), len(left) - 1
    if centring == "u":
        return total - 2 * row * (rest - 1) / (rest - 2)
    both = left_diagonal * right_diagonal
    # Less the input's row and column, and the means that the others are centred by once it is gone.
    without = total - 2 * row + both - 2 / rest * (row - both) + both / rest**2
    if centring == "double":
        return without
    # The diagonals that masking removes, centred without input i: [N, N], row i.
    diagonals = [
        diagonal + 2 / rest * kernel + diagonal[:, None] / rest**2
        for kernel, diagonal in ((left, left_diagonal), (right, right_diagonal))
    ]
    product = diagonals[0] * diagonals[1]
    return without - product.sum(axis=1) + product.diagonal()


def jackknife_error(without: np.ndarray) -> np.ndarray:
    """Return the standard error [...] of numbers, given their values [..., N] without each input."""
    return np.sqrt((without.shape[-1] - 1) * without.var(axis=-1))
