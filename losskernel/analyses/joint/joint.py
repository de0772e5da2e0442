"""The points that a joint analysis compares: their distances, their sampling noise, and errors over the probes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from losskernel import geometry
from losskernel.errors import InputError, require
from losskernel.geometry import AngularCKA, Arrangement, Point
from losskernel.geometry.significance import Null, halves, jackknife_error, products_without
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
        kinds = KERNELS if form == "correlation" else ()
        formed = points.mapped(lambda item: item.point.correlation() if item.kind in kinds else item.point)
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
        corrected = geometry.corrected_cosines(cosines[:count, :count], reliability)
        corrected[np.ix_(sampled, sampled)] = geometry.corrected_cosines(between, half)
        return cls(formed, whole.of(range(count)), reliability, corrected)

    @property
    def floor(self) -> np.ndarray:
        """[P, P] angle at which noise alone puts two samples of one kernel."""
        return geometry.noise_floor(self.reliability)

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
        """Compare a kernel's cosine with each point to those of relabelled probes; see `geometry.permutation_nulls`."""
        return geometry.permutation_nulls(points, kernel, SPACE, self.permutations, self.seed, within)

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


# Cosine to the labels above which nothing is left beside them.
_SAME = 1 - 1e-9


def nearest_layers(joint: Joint, errors: ProbeErrors) -> pd.DataFrame:
    """Return a row a kernel, the placebo last: the point of its own network's path that it is nearest to.

    Columns: kernel, network, nearest, angle (raw, radians) with se, low, high (90 %, jackknife over probes), cosine
    (raw) and cosine_corrected (without sampling noise), floor (the angle that noise alone gives), second and lead
    (by how much farther the next is) with lead_se, p (relabelled probes) and p_adjusted (Benjamini and Hochberg,
    over the path), fraction and off (where the kernel's foot on the geodesic from the inputs to the first target
    lies, and how far away it is; NaN without a target).
    """
    kernels = [*joint.kernels(), joint.placebo]
    paths = ((kernel, joint.points.path(joint.points[kernel].network)) for kernel in kernels)
    return pd.DataFrame([_nearest_row(joint, errors, kernel, path) for kernel, path in paths if len(path) >= 2])


def beyond_labels(joint: Joint, errors: ProbeErrors, network: str | None = None) -> pd.DataFrame:
    """Return a row for every target, kernel and point of its network's path: their partial agreement.

    With the target's kernel taken out of both, the cosine of what is left is that of the angle at the target's point.

    Columns: target, kernel, layer, cosine (raw, of the whole kernels), beyond (of what is left) with se, low, high
    (90 %, jackknife over probes), beyond_corrected (without the kernel's sampling noise), null_low and null_high (90 %
    of relabelled probes; 0 on average), p and p_adjusted (Benjamini and Hochberg, over the path), p_within (probes
    relabelled within groups of the target alone: agreement about single probes). p-values are two-sided.

    Args:
        joint: the points.
        errors: the same points over the probes behind errors and p-values.
        network: whose kernels; None takes all.

    Source: partial Mantel tests, with residuals relabelled: Legendre 2000.
    """
    rows: list[dict[str, Any]] = []
    for target in joint.points.of("target"):
        for kernel in joint.kernels(network):
            path = joint.points.path(joint.points[kernel].network)
            # What is the labels' kernel itself has no residual.
            layers = [number for number in path if abs(joint.cosine(number, target)) < _SAME]
            if layers and abs(joint.cosine(kernel, target)) < _SAME:
                agreements = [_beyond_row(joint, errors, kernel, layer, target) for layer in layers]
                nulls = _beyond_nulls(joint, errors, kernel, layers, target)
                rows += [row | null for row, null in zip(agreements, nulls, strict=True)]
    return pd.DataFrame(rows)


def partial_cosine(c_ab: Any, c_ay: Any, c_by: Any) -> Any:
    """Return the cosine of the angle at y between a and b, NaN where one of them is y."""
    left = np.maximum((1 - np.square(c_ay)) * (1 - np.square(c_by)), 0.0)
    gap = np.asarray(c_ab) - np.asarray(c_ay) * c_by
    return np.divide(gap, np.sqrt(left), out=np.full(np.shape(gap), np.nan), where=left > 0)


def _nearest_row(joint: Joint, errors: ProbeErrors, kernel: int, path: Sequence[int]) -> dict[str, Any]:
    angles = joint.arrangement.distances[kernel, list(path)]  # [path]
    order = np.argsort(angles, kind="stable")
    first, second = path[order[0]], path[order[1]]
    few = errors.points
    nulls = errors.nulls([few[number].point for number in path], few[kernel].point)
    p_values = np.array([null.p_value for null in nulls])  # [path]
    without = errors.angles(kernel, first)  # [N]
    angle, se = float(angles[order[0]]), float(jackknife_error(without))
    fraction, off = _foot(joint, kernel)
    return {
        "kernel": joint.name(kernel),
        "network": joint.points[kernel].network,
        "nearest": joint.name(first),
        "angle": angle,
        "se": se,
        "low": max(angle - NORMAL * se, 0.0),
        "high": angle + NORMAL * se,
        "cosine": float(np.cos(angle)),
        "cosine_corrected": float(joint.corrected[kernel, first]),
        "floor": float(joint.floor[kernel, first]),
        "second": joint.name(second),
        "lead": float(angles[order[1]] - angle),
        "lead_se": float(jackknife_error(errors.angles(kernel, second) - without)),
        "p": float(p_values[order[0]]),
        "p_adjusted": float(geometry.benjamini_hochberg(p_values)[order[0]]),
        "fraction": fraction,
        "off": off,
    }


def _foot(joint: Joint, kernel: int) -> tuple[float, float]:
    """Return where on the geodesic from the inputs to the first target a kernel is nearest, and how far from it."""
    inputs, targets = joint.points.of("input"), joint.points.of("target")
    if not inputs or not targets:
        return float("nan"), float("nan")
    foot = geometry.project(joint.arrangement, kernel, inputs[0], targets[0])
    return float(foot.fraction), float(foot.distance)


def _beyond_row(joint: Joint, errors: ProbeErrors, kernel: int, layer: int, target: int) -> dict[str, Any]:
    pairs = ((kernel, layer), (layer, target), (kernel, target))
    cosine, layer_cosine, kernel_cosine = (joint.cosine(*pair) for pair in pairs)
    beyond = float(partial_cosine(cosine, layer_cosine, kernel_cosine))
    se = float(jackknife_error(partial_cosine(*(errors.cosines(*pair) for pair in pairs))))
    corrected = partial_cosine(joint.corrected[kernel, layer], layer_cosine, joint.corrected[kernel, target])
    return {
        "target": joint.name(target),
        "kernel": joint.name(kernel),
        "layer": joint.name(layer),
        "cosine": cosine,
        "beyond": beyond,
        "se": se,
        "low": beyond - NORMAL * se,
        "high": beyond + NORMAL * se,
        "beyond_corrected": float(corrected),
    }


def _beyond_nulls(
    joint: Joint, errors: ProbeErrors, kernel: int, layers: Sequence[int], target: int
) -> list[dict[str, float]]:
    """Return the null and the p-values of one kernel's partial agreement with each layer."""
    rests = [_residual(errors, layer, target) for layer in layers]
    rest = _residual(errors, kernel, target)
    groups = errors.points.labels.get(joint.name(target))
    nulls = errors.nulls(rests, rest)  # one per layer
    within = None if groups is None else errors.nulls(rests, rest, groups)
    p_values = [_two_sided(null) for null in nulls]
    adjusted = geometry.benjamini_hochberg(p_values)
    return [
        {
            "null_low": null.quantile(0.05),
            "null_high": null.quantile(0.95),
            "p": p_values[row],
            "p_adjusted": float(adjusted[row]),
            "p_within": float("nan") if within is None else _two_sided(within[row]),
        }
        for row, null in enumerate(nulls)
    ]


def _two_sided(null: Null) -> float:
    """Return the share of relabellings as far from their mean as the observed cosine, itself counted."""
    middle = null.permuted.mean()
    as_far = np.abs(null.permuted - middle) >= abs(null.cosine - middle) - 1e-12
    return float((1 + as_far.sum()) / (1 + len(as_far)))


def _residual(errors: ProbeErrors, number: int, target: int) -> Point:
    """Return what is left of a centred kernel without its part along the target's."""
    few = errors.points
    kernel, labels = (SPACE.centred(few[item].point) for item in (number, target))
    labels = labels / np.linalg.norm(labels)  # [N, N], of length 1
    rest = kernel - (kernel * labels).sum() * labels
    # Rounding may leave it asymmetric. It is centred already, which `from_gram` cannot know.
    point = Point.from_gram((rest + rest.T) / 2, few.ids)
    return Point(point.ids, triangle=point.triangle, centring=SPACE.centring)
