"""What a CKA owes to chance and to single inputs: relabelled inputs, inputs left out, many tests at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from losskernel.errors import require, require_integer
from losskernel.geometry.centring import centred
from losskernel.geometry.point import Point, require_same_inputs
from losskernel.geometry.spaces.angular_cka import AngularCKA


class Null(NamedTuple):
    """A cosine among those of kernels that have nothing to do with each other."""

    cosine: float
    p_value: float  # share of relabellings that agree at least as well, itself counted
    relabelled: np.ndarray  # [permutations] cosines, ascending

    def quantile(self, share: float) -> float:
        """Return the cosine that a share of the relabellings stays below."""
        return float(np.quantile(self.relabelled, share))


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
    """Compare a cosine with those after the inputs of one kernel have changed places at random.

    Under "u" these are 0 on average. With `within` inputs change places inside their group only, such as a class: the
    null is then that the kernels agree about groups and about nothing else.

    Args:
        p: one kernel.
        q: the other, whose inputs change places.
        space: which centring.
        permutations: how many relabellings; the least p-value is 1 / (permutations + 1).
        seed: of the relabellings.
        within: [N] group of each input; None for one group.

    Raises:
        InputError: the points stand over different inputs, or groups do not match.

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
    """Compare the cosines of many kernels with one by the same relabellings of its inputs; see `permutation_null`.

    Raises:
        InputError: as for `permutation_null`.
    """
    require_same_inputs([reference, *points])
    require_integer("permutations", permutations, at_least=1)
    inputs = reference.inputs
    groups = np.zeros(inputs, dtype=int) if within is None else np.unique(np.asarray(within), return_inverse=True)[1]
    require(len(groups) == inputs, f"within has {len(groups)} entries for {inputs} inputs; give one each")
    draw = np.random.default_rng(seed)
    orders = [_shuffled(groups, draw) for _ in range(permutations)]
    moved, found = _unit(reference, space), np.empty((len(points), permutations))
    observed = np.empty(len(points))
    step = max(1, _NUMBERS // inputs**2)
    for start in range(0, len(points), step):
        chunk = slice(start, start + step)
        own = np.stack([_unit(point, space).ravel() for point in points[chunk]])
        observed[chunk] = own @ moved.ravel()
        for number, order in enumerate(orders):
            found[chunk, number] = own @ np.take(moved[order], order, axis=1).ravel()
    # Relabellings that change nothing, as of labels within classes, differ by rounding.
    share = (1 + (found >= observed[:, None] - _ROUNDING).sum(1)) / (permutations + 1)
    return [Null(float(c), float(p), np.sort(each)) for c, p, each in zip(observed, share, found, strict=True)]


def jackknife(p: Point, q: Point, space: AngularCKA) -> Jackknife:
    """Return a cosine without each of its inputs, centred anew every time, and the standard errors that follow.

    In closed form from row sums of products of the two kernels, which are held whole; no kernel is centred twice.

    Raises:
        InputError: the points stand over different inputs, fewer than two inputs would be left over for the centring,
            or one has been through masking already.

    Source: Efron & Stein 1981.
    """
    require_same_inputs([p, q])
    masked = space.centring == "masked"
    fresh = not (masked and "masked" in (p.centring, q.centring))
    require(fresh, "a point on a geodesic of masked kernels is no kernel to leave inputs out of; use centring='u'")
    require(p.inputs >= 6, f"a jackknife needs >= 6 inputs, got {p.inputs}; add more")
    # Masking is done again for every set of inputs: it begins from the kernels before it.
    kernels = [centred(each.gram(), "double") if masked else space.centred(each) for each in (p, q)]
    cosine = float(space.gram([p, q])[0, 1])
    cross, first, second = (
        products_without(kernels[a], kernels[b], space.centring) for a, b in ((0, 1), (0, 0), (1, 1))
    )
    without = cross / np.sqrt(first * second)
    angle = np.arccos(np.clip(without, -1.0, 1.0))
    return Jackknife(cosine, float(jackknife_error(without)), float(jackknife_error(angle)), without, cosine - without)


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values [n] adjusted so that those below a share hold at most that share of false findings.

    NaN, a test that was not made, stays NaN and counts for nothing.

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


# Numbers of all kernels together that are held beside the one whose inputs change places.
_NUMBERS = 2**24
_ROUNDING = 1e-12


def _unit(point: Point, space: AngularCKA) -> np.ndarray:
    space.arrangement([point])  # says what is wrong with it
    kernel = space.centred(point)
    return kernel / np.linalg.norm(kernel)


def _shuffled(groups: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return an order [N] in which inputs change places within their groups."""
    order = np.empty(len(groups), dtype=int)
    order[np.argsort(groups, kind="stable")] = np.lexsort((draw.random(len(groups)), groups))
    return order


def products_without(left: np.ndarray, right: np.ndarray, centring: str) -> np.ndarray:
    """Return <C(K), C(L)> [N] of the other inputs as each is left out, from centred kernels [N, N].

    Rows of a centred kernel sum to zero: without an input they sum to minus its column.
    """
    own = np.einsum("ij,ij->i", left, right)
    left_diagonal, right_diagonal = left.diagonal(), right.diagonal()
    total, rest = own.sum(), len(left) - 1
    if centring == "u":
        return total - 2 * own * (rest - 1) / (rest - 2)
    both = left_diagonal * right_diagonal
    found = total - 2 * own + both - 2 / rest * (own - both) + both / rest**2
    if centring == "double":
        return found
    # The diagonals that masking takes away, centred without input i: [N, N], row i.
    diagonals = [
        diagonal + 2 / rest * kernel + diagonal[:, None] / rest**2
        for kernel, diagonal in ((left, left_diagonal), (right, right_diagonal))
    ]
    product = diagonals[0] * diagonals[1]
    return found - product.sum(axis=1) + product.diagonal()


def jackknife_error(without: np.ndarray) -> np.ndarray:
    """Return the standard error [...] of numbers, given their values [..., N] without each input."""
    return np.sqrt((without.shape[-1] - 1) * without.var(axis=-1))
