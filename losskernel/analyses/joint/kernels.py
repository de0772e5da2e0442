"""The points of a joint space in the form that is compared, how they stand to each other, and the noise of each."""

from dataclasses import dataclass, replace

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry import AngularCKA, Arrangement, Point, corrected_cosines, noise_floor
from losskernel.geometry.significance import halves, products_without
from losskernel.representations.points import LOSS_KERNEL, TRAINED, NamedPoint, PointSet

SPACE = AngularCKA("u")
# Kinds of points that are kernels of losses, and have a covariance and a correlation form.
KERNELS = ("gradient", "laplace", "loss_kernel")
PLACEBO = f"{LOSS_KERNEL}, probes permuted"


@dataclass(frozen=True, eq=False)
class Joint:
    """Points and their arrangement under U-centred angular CKA.

    Attributes:
        points: kernels of losses in the form that is compared, without their chains; the last is the placebo.
        arrangement: of all of them; raw, with the noise of sampled kernels in it.
        reliability: [P] ρ of each point (`geometry.reliability`): 1 of what was not sampled, NaN of one chain.
        corrected: [P, P] cosines without that noise; of two sampled kernels from chains of one against other chains of
            the other, which have their own minibatches and noise though the kernels share a seed.
    """

    points: PointSet
    arrangement: Arrangement
    reliability: np.ndarray
    corrected: np.ndarray

    @classmethod
    def of(cls, points: PointSet, form: str = "correlation", seed: int = 0) -> "Joint":
        """Compare points, and with them the run's loss kernel after its probes have changed places, the placebo.

        Raises:
            InputError: there is no loss kernel or no layer, or a point has no place in the space.
        """
        require(
            len(points.of("loss_kernel")) > 0, "there is no loss kernel; choose a schedule, or points=[loss_kernels]"
        )
        require(len(points.path()) > 0 and len(points.of("layer")) > 0, "there is no layer; choose points=[layers,...]")
        formed = points.mapped(lambda each: _formed(each, form))
        formed = formed.extended([_placebo(formed[_own(formed)], seed)])
        sampled = [number for number, each in enumerate(formed.points) if len(each.point.chains) >= 2]
        parts = [
            NamedPoint(f"{formed.names[number]}, half {side}", _compact(half), "loss_kernel")
            for number in sampled
            for side, half in enumerate(halves(formed[number].point))
        ]
        alone = [number for number, each in enumerate(formed.points) if len(each.point.chains) == 1]
        formed = formed.mapped(lambda each: _compact(each.point))
        whole, count = formed.extended(parts).arrangement(SPACE), len(formed)
        cosines = whole.cosines
        if cosines is None:
            raise InputError("the space has no cosines; take AngularCKA")
        rho = np.ones(count)
        rho[alone] = np.nan  # one chain cannot tell its noise
        between = _between_halves(cosines, count)
        half = np.maximum(between.diagonal(), 0.0)
        rho[sampled] = 2 * half / (1 + half)
        corrected = corrected_cosines(cosines[:count, :count], rho)
        corrected[np.ix_(sampled, sampled)] = corrected_cosines(between, half)
        return cls(formed, whole.of(range(count)), rho, corrected)

    @property
    def floor(self) -> np.ndarray:
        """[P, P] angle at which noise alone puts samples of one kernel."""
        return noise_floor(self.reliability)

    @property
    def own(self) -> int:
        """Number of the run's own loss kernel; of others at the trained weights the first where there is none."""
        return _own(self.points)

    @property
    def placebo(self) -> int:
        """Number of the loss kernel whose probes have changed places."""
        return len(self.points) - 1

    def kernels(self, network: str | None = None) -> list[int]:
        """Return the numbers of the kernels of losses, of one network if it is named; the placebo is none of them."""
        return [number for number in self.points.of(*KERNELS, network=network) if number != self.placebo]

    def closed(self, kind: str) -> int | None:
        """Return the number of the kernel in closed form, "gradient" or "laplace", with the run's own settings.

        Of several with others the first; None where there is none.
        """
        numbers = self.points.of(kind, network=TRAINED)
        own = self.points[self.own].settings.items()
        return next((each for each in numbers if self.points[each].settings.items() <= own), next(iter(numbers), None))

    def angle(self, a: int, b: int) -> float:
        """Return the distance between two points, in radians."""
        return float(self.arrangement.distances[a, b])

    def name(self, number: int) -> str:
        """Return a point's name."""
        return self.points.names[number]

    def step(self, number: int) -> int | None:
        """Return the training step of the weights that made a point, where any point of the same network knows it."""
        network = self.points[number].network
        known = [each.step for each in self.points.points if each.network == network and each.step is not None]
        return known[0] if known and network else None


def _formed(each: NamedPoint, form: str) -> Point:
    return each.point.correlation() if form == "correlation" and each.kind in KERNELS else each.point


def _compact(point: Point) -> Point:
    """Return the same kernel without more draws than it has entries: it is read, and told from others, sooner."""
    wide = point.factor is not None and 2 * point.factor.shape[1] > point.inputs
    return Point.from_gram(point.gram(), point.ids) if wide else point


def _own(points: PointSet) -> int:
    if LOSS_KERNEL in points.names:
        return points.number(LOSS_KERNEL)
    return (points.of("loss_kernel", network=TRAINED) or points.of("loss_kernel"))[0]


def _placebo(own: NamedPoint, seed: int) -> NamedPoint:
    order = np.random.default_rng(seed).permutation(own.point.inputs)
    point = replace(own.point.over(order), ids=own.point.ids)
    return replace(own, name=PLACEBO, point=point, traces=None)


def _between_halves(cosines: np.ndarray, count: int) -> np.ndarray:
    """Return the cosines [S, S] of sampled kernels, chains of the one against other chains of the other."""
    even = np.arange(count, len(cosines), 2)
    return (cosines[np.ix_(even, even + 1)] + cosines[np.ix_(even + 1, even)]) / 2


# 90 % of a normal law lie within so many standard errors.
NORMAL = 1.6449


class LeftOut:
    """Cosines of some points with each probe left out in turn; every kernel is centred once.

    Source: Efron & Stein 1981 (jackknife).
    """

    def __init__(self, points: PointSet) -> None:
        self._points = points
        self._centred: dict[int, np.ndarray] = {}
        self._products: dict[tuple[int, int], np.ndarray] = {}

    def cosines(self, a: int, b: int) -> np.ndarray:
        """Return the cosines [N] between two points, each probe left out in turn."""
        return self._product(a, b) / np.sqrt(self._product(a, a) * self._product(b, b))

    def angles(self, a: int, b: int) -> np.ndarray:
        """Return the angles [N], as `cosines`."""
        return np.arccos(np.clip(self.cosines(a, b), -1.0, 1.0))

    def _product(self, a: int, b: int) -> np.ndarray:
        pair = (min(a, b), max(a, b))
        if pair not in self._products:
            self._products[pair] = products_without(self._kernel(a), self._kernel(b), SPACE.centring)
        return self._products[pair]

    def _kernel(self, number: int) -> np.ndarray:
        if number not in self._centred:
            kernel = SPACE.centred(self._points[number].point)
            self._centred[number] = kernel / np.linalg.norm(kernel)
        return self._centred[number]
