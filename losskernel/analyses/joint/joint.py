"""The points that a joint analysis compares: their distances, their sampling noise, and errors over the probes."""

from dataclasses import dataclass, field, replace

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry import AngularCKA, Arrangement, Point, corrected_cosines, noise_floor, permutation_nulls
from losskernel.geometry.significance import Null, halves, products_without
from losskernel.representations.points import LOSS_KERNEL, TRAINED, NamedPoint, PointSet

SPACE = AngularCKA("u")
# Kinds of points that are kernels of losses, and have a covariance and a correlation form.
KERNELS = ("gradient", "laplace", "loss_kernel")
PLACEBO = f"{LOSS_KERNEL}, probes permuted"
# A 90 % interval of a normal distribution reaches so many standard errors to either side.
NORMAL = 1.6449


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
        """Compare points, and with them a placebo: the run's loss kernel with its probes permuted.

        Args:
            points: with at least one loss kernel and one layer.
            form: "correlation" or "covariance", of the kernels of losses.
            seed: of the placebo's permutation.

        Raises:
            InputError: there is no loss kernel or no layer, or a point cannot be compared in the space.
        """
        sampled_any = len(points.of("loss_kernel")) > 0
        require(sampled_any, "there is no loss kernel; choose a schedule, or points=[loss_kernels]")
        require(len(points.path()) > 0 and len(points.of("layer")) > 0, "there is no layer; choose points=[layers,...]")
        formed = points.mapped(lambda item: _formed(item, form))
        formed = formed.extended([_placebo(formed[_main_kernel(formed)], seed)])
        chains = [len(item.point.chains) for item in formed.points]
        sampled = [number for number, count in enumerate(chains) if count >= 2]
        alone = [number for number, count in enumerate(chains) if count == 1]
        # Both halves of each sampled kernel's chains join the arrangement, so that one call compares everything.
        parts = [
            NamedPoint(f"{formed.names[number]}, half {side}", _compact(half), "loss_kernel")
            for number in sampled
            for side, half in enumerate(halves(formed[number].point))
        ]
        formed = formed.mapped(lambda item: _compact(item.point))
        whole, count = formed.extended(parts).arrangement(SPACE), len(formed)
        cosines = whole.cosines
        if cosines is None:
            raise InputError("the space has no cosines; take AngularCKA")
        reliability = np.ones(count)
        reliability[alone] = np.nan  # one chain cannot tell its noise
        between = _between_halves(cosines, count)  # [S, S]
        half = np.maximum(between.diagonal(), 0.0)
        reliability[sampled] = 2 * half / (1 + half)  # Spearman-Brown: all chains, from one half of them
        corrected = corrected_cosines(cosines[:count, :count], reliability)
        corrected[np.ix_(sampled, sampled)] = corrected_cosines(between, half)
        return cls(formed, whole.of(range(count)), reliability, corrected)

    @property
    def floor(self) -> np.ndarray:
        """[P, P] angle at which noise alone puts two samples of one kernel."""
        return noise_floor(self.reliability)

    @property
    def main(self) -> int:
        """Number of the run's loss kernel; where there is none, of the first other one at the trained weights."""
        return _main_kernel(self.points)

    @property
    def placebo(self) -> int:
        """Number of the loss kernel whose probes are permuted."""
        return len(self.points) - 1

    def kernels(self, network: str | None = None) -> list[int]:
        """Return the numbers of the kernels of losses but for the placebo, of one network if it is named."""
        return [number for number in self.points.of(*KERNELS, network=network) if number != self.placebo]

    def closed_form(self, kind: str) -> int | None:
        """Return the number of the kernel in closed form ("gradient", "laplace") that has the run's settings.

        The first of that kind where none has them; None where there is none of that kind.
        """
        numbers = self.points.of(kind, network=TRAINED)
        settings = self.points[self.main].settings.items()
        same = (number for number in numbers if self.points[number].settings.items() <= settings)
        return next(same, next(iter(numbers), None))

    def angle(self, first: int, second: int) -> float:
        """Return the distance between two points, in radians."""
        return float(self.arrangement.distances[first, second])

    def cosine(self, first: int, second: int) -> float:
        """Return the cosine of the distance between two points."""
        return float(np.cos(self.angle(first, second)))

    def name(self, number: int) -> str:
        """Return a point's name."""
        return self.points.names[number]

    def step(self, number: int) -> int | None:
        """Return the training step of the weights that made a point, where any point of the same network knows it."""
        network = self.points[number].network
        known = [item.step for item in self.points.points if item.network == network and item.step is not None]
        return known[0] if known and network else None


@dataclass(frozen=True, eq=False)
class ProbeErrors:
    """Errors over probes by the jackknife, and nulls by relabelled probes; each kernel is centred once.

    Attributes:
        points: those of a `Joint`, over as many probes as errors can be afforded for.
        permutations: relabellings of the probes.
        seed: of these.

    Source: Efron & Stein 1981 (jackknife).
    """

    points: PointSet
    permutations: int = 199
    seed: int = 0
    _centred: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _products: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)

    def cosines(self, first: int, second: int) -> np.ndarray:
        """Return the cosines [N] between two points, each probe left out in turn."""
        lengths = np.sqrt(self._product(first, first) * self._product(second, second))
        return self._product(first, second) / lengths

    def angles(self, first: int, second: int) -> np.ndarray:
        """Return the angles [N] between two points, each probe left out in turn."""
        return np.arccos(np.clip(self.cosines(first, second), -1.0, 1.0))

    def nulls(self, points: list[Point], kernel: Point, within: np.ndarray | None = None) -> list[Null]:
        """Compare a kernel's cosine with each point to those of relabelled probes; see `permutation_nulls`."""
        return permutation_nulls(points, kernel, SPACE, self.permutations, self.seed, within)

    def _product(self, first: int, second: int) -> np.ndarray:
        pair = (min(first, second), max(first, second))
        if pair not in self._products:
            self._products[pair] = products_without(self._kernel(first), self._kernel(second), SPACE.centring)
        return self._products[pair]

    def _kernel(self, number: int) -> np.ndarray:
        if number not in self._centred:
            kernel = SPACE.centred(self.points[number].point)
            self._centred[number] = kernel / np.linalg.norm(kernel)
        return self._centred[number]


def _formed(item: NamedPoint, form: str) -> Point:
    return item.point.correlation() if form == "correlation" and item.kind in KERNELS else item.point


def _compact(point: Point) -> Point:
    """Return the same kernel [N, N] in place of a factor that holds more numbers than it: it is compared sooner."""
    wide = point.factor is not None and 2 * point.factor.shape[1] > point.inputs
    return Point.from_gram(point.gram(), point.ids) if wide else point


def _main_kernel(points: PointSet) -> int:
    if LOSS_KERNEL in points.names:
        return points.number(LOSS_KERNEL)
    return (points.of("loss_kernel", network=TRAINED) or points.of("loss_kernel"))[0]


def _placebo(kernel: NamedPoint, seed: int) -> NamedPoint:
    order = np.random.default_rng(seed).permutation(kernel.point.inputs)  # [N]
    point = replace(kernel.point.over(order), ids=kernel.point.ids)  # named as if nothing had moved
    return replace(kernel, name=PLACEBO, point=point, traces=None)


def _between_halves(cosines: np.ndarray, count: int) -> np.ndarray:
    """Return the cosines [S, S] of sampled kernels, one half of the chains of each against the other of the other."""
    even = np.arange(count, len(cosines), 2)  # first halves; each second half follows its first
    return (cosines[np.ix_(even, even + 1)] + cosines[np.ix_(even + 1, even)]) / 2
