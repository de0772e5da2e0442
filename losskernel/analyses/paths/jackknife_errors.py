"""Standard errors of paths: layers are deterministic, but the probes are a sample, left out one after another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from losskernel.geometry import AngularCKA, Point
from losskernel.geometry.centring import centred
from losskernel.geometry.point import evenly
from losskernel.geometry.statistics.significance import jackknife_error, products_without

# Probes that are left out at most; errors of more shrink with the square root of their number.
_MOST = 1000
# Fewer leave nothing to centre.
_LEAST = 6


class Errors(NamedTuple):
    """Standard errors over probes of one path; NaN where they are unknown. Distances in radians."""

    to_target: np.ndarray  # [P]
    step: np.ndarray  # [P - 1]
    length: float
    straightness: float
    chord: float
    efficiency: float


def unknown(count: int) -> Errors:
    """Return the errors of a path of so many points where nothing can be said of them."""
    nan = float("nan")
    return Errors(np.full(count, nan), np.full(count - 1, nan), nan, nan, nan, nan)


def errors_of(path: Sequence[Point], target: Point, space: object) -> Errors:
    """Return the jackknife errors of a path's distances, angular CKA alone having a closed form.

    Of more than 1,000 probes as many are left out, evenly spaced, and their errors scaled by the root of the share.

    Args:
        path: P points, in order.
        target: what distances are measured to.
        space: where.

    Source: Efron & Stein 1981.
    """
    inputs = target.inputs
    if not isinstance(space, AngularCKA) or inputs < _LEAST:
        return unknown(len(path))
    probes = evenly(inputs, _MOST)
    walk = _Without(space, probes)
    goal, first = walk.kernel(target), walk.kernel(path[0])
    before, to, steps = None, [], []
    for point in path:
        own = walk.kernel(point)
        to.append(walk.distances(own, goal))
        steps += [] if before is None else [walk.distances(before, own)]
        before = own
    chord = walk.distances(first, before or first)
    to_target, step = np.stack(to), np.stack(steps)  # [P, n], [P - 1, n]
    length = step.sum(axis=0)
    scale = np.sqrt(len(probes) / inputs)
    numbers = (to_target, step, length, chord / length, chord, (to_target[0] - to_target[-1]) / length)
    return Errors(*(scale * jackknife_error(each) for each in numbers))


def median_error(errors: Sequence[Errors]) -> float:
    """Return the median standard error of the distances of some paths; NaN where none is known."""
    every = np.concatenate([part for each in errors for part in (each.to_target, each.step)])
    known = every[np.isfinite(every)]
    return float(np.median(known)) if len(known) else float("nan")


class _Without:
    """Distances between kernels without each of the probes."""

    def __init__(self, space: AngularCKA, probes: np.ndarray) -> None:
        self._centring, self._probes = space.centring, probes

    def kernel(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Return the centred kernel [n, n], and its squared lengths [n] without each probe."""
        # Masking is done again for every set of probes: it begins from the kernels before it.
        before = "double" if self._centring == "masked" else self._centring
        own = centred(point.over(self._probes).gram(), before)
        return own, products_without(own, own, self._centring)

    def distances(self, left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the angles [n] between two kernels, in radians."""
        cosine = products_without(left[0], right[0], self._centring) / np.sqrt(left[1] * right[1])
        return np.arccos(np.clip(cosine, -1.0, 1.0))
