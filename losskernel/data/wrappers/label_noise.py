"""Wrong labels with known truth: by chance alone, by class, or by what a sample looks like."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from losskernel.data.base import Data
from losskernel.data.loading import BlockLoader
from losskernel.data.wrappers.relabelling import chance, class_count, class_number, class_targets, relabelled
from losskernel.errors import require, require_integer, require_number


@dataclass(frozen=True)
class SymmetricNoise:
    """Gives a share of the training samples another class, any of the others with equal chance.

    Probes that are training samples have the same label and know the truth: labels class (as given), true_class,
    mislabelled. Other probes stay clean; labels of what a probe shows, such as its wnid, stay true.

    Attributes:
        rate: share of the training samples that get a wrong label, exactly, to the nearest sample; in [0, 1).
        seed: of the choice.

    Raises:
        InputError: a number out of range; when called: targets that are no classes.
    """

    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_noise("symmetric_noise", self.rate, self.seed)

    def __call__(self, data: Data) -> Data:
        """Return the data with wrong labels."""
        targets = class_targets(data, "symmetric_noise")
        present, numbers = np.unique(targets.numpy(), return_inverse=True)
        rng = chance("symmetric_noise", self.seed)
        wrong = rng.choice(len(targets), round(self.rate * len(targets)), replace=False)
        numbers[wrong] += rng.integers(1, len(present), len(wrong))
        return relabelled(data, torch.as_tensor(present[numbers % len(present)]))


@dataclass(frozen=True)
class ClassDependentNoise:
    """Gives a share of each class's training samples one and the same other class, or classes by a matrix.

    Probes and labels as with symmetric noise.

    Attributes:
        rate: share of each class that gets a wrong label, exactly, to the nearest sample; in [0, 1). None with a
            matrix, which states it.
        pairs: class -> the class that its samples are mistaken for, by names or numbers; others stay. Or a transition
            matrix as a list of rows: [true, given], each row of sum 1. None: each class -> the next, the last -> the
            first.
        seed: of the choice.

    Raises:
        InputError: a number out of range; when called: targets that are no classes, or classes that there are not.
    """

    rate: float | None
    pairs: Mapping[Any, Any] | Sequence[Sequence[float]] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        key = "wrapper.class_dependent_noise"
        if not isinstance(self.pairs, (Mapping, type(None))):
            require(
                self.rate is None,
                f"{key}.rate must be null beside a matrix, which states it, got {self.rate}; set null",
            )
            require_integer(f"{key}.seed", self.seed, at_least=0)
            _matrix(self.pairs, f"{key}.pairs")
        else:
            check_noise("class_dependent_noise", self.rate, self.seed)

    def __call__(self, data: Data) -> Data:
        """Return the data with wrong labels."""
        targets = class_targets(data, "class_dependent_noise")
        chances = self._chances(data, targets)
        rng = chance("class_dependent_noise", self.seed)
        after = targets.numpy().copy()
        for own in np.unique(after).tolist():
            rows = rng.permutation(np.flatnonzero(targets.numpy() == own))
            after[rows] = np.repeat(np.arange(len(chances)), _whole(chances[own] * len(rows), own))
        return relabelled(data, torch.as_tensor(after))

    def _chances(self, data: Data, targets: torch.Tensor) -> np.ndarray:
        """Return the transition matrix [true, given]."""
        key, count = "wrapper.class_dependent_noise.pairs", class_count(data, targets)
        if not isinstance(self.pairs, (Mapping, type(None))):
            chances = _matrix(self.pairs, key)
            fits = len(chances) == count
            require(fits, f"{key} must have a row for each of the {count} classes, got {len(chances)}")
            return chances
        present = np.unique(targets.numpy()).tolist()
        following = dict(zip(present, present[1:] + present[:1], strict=True))
        pairs: Mapping[Any, Any] = following if self.pairs is None else self.pairs
        chances, rate = np.eye(count), float(self.rate or 0.0)
        for source, goal in pairs.items():
            own, other = (class_number(data, each, count, key) for each in (source, goal))
            require(own != other, f"{key} sends {source!r} to itself; name another class")
            require(chances[own, own] == 1, f"{key} names {source!r} twice; once by name, once by number")
            chances[own, [own, other]] = 1 - rate, rate
        return chances


def check_noise(wrapper: str, rate: Any, seed: Any) -> None:
    """Raise InputError unless the rate is in [0, 1) and the seed a whole number."""
    require_number(f"wrapper.{wrapper}.rate", rate, at_least=0)
    require(rate < 1, f"wrapper.{wrapper}.rate must be < 1, got {rate}; 0.1 makes a tenth of the labels wrong")
    require_integer(f"wrapper.{wrapper}.seed", seed, at_least=0)


def _matrix(rows: Any, key: str) -> np.ndarray:
    """Return a transition matrix.

    Raises:
        InputError: it is not square, or its rows are no probabilities.
    """
    form = f"{key} must be class: class, or a square matrix whose rows are probabilities"
    try:
        matrix = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    require(matrix.ndim == 2 and len(set(matrix.shape)) == 1, f"{form}, got {rows!r}")
    proper = (matrix >= 0).all() and np.allclose(matrix.sum(1), 1)
    require(bool(proper), f"{form}, got row sums {matrix.sum(1).round(4).tolist()}")
    return matrix


def _whole(shares: np.ndarray, own: int) -> np.ndarray:
    """Return whole numbers of the same sum, each within 1 of its share; the largest remainders are rounded up."""
    counts = np.floor(shares + 1e-9).astype(int)
    remainder = shares - counts
    remainder[own] -= 1e-9  # of a tie the wrong label
    counts[np.argsort(-remainder, kind="stable")[: round(shares.sum()) - counts.sum()]] += 1
    return counts


_NAME = "instance_dependent_noise"
_BLOCK = 256


@dataclass(frozen=True)
class InstanceDependentNoise:
    """Gives training samples wrong labels that depend on what they look like.

    Sample i is mislabelled with probability q_i ~ N(m, scatter²) cut to [0, 1], m such that the mean is `rate` (the
    paper sets m = rate, whose mean is larger for small rates). It then becomes class k != y with probability
    softmax_k(x_i · W_y), W_y standard normal [inputs, classes]: alike samples of a class are mistaken for the same
    class. Inputs are read as the network sees them. Probes and labels as with symmetric noise.

    Attributes:
        rate: mean share of the training samples that get a wrong label, in [0, 1).
        scatter: standard deviation of the samples' own rates, before they are cut.
        seed: of rates, projections and draws.

    Raises:
        InputError: a number out of range; when called: targets that are no classes.

    Source: Xia et al. 2020, "Part-dependent label noise: towards instance-dependent label noise", Algorithm 2.
    """

    rate: float
    scatter: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_noise(_NAME, self.rate, self.seed)
        require_number(f"wrapper.{_NAME}.scatter", self.scatter, at_least=0)

    def __call__(self, data: Data) -> Data:
        """Return the data with wrong labels."""
        targets = class_targets(data, _NAME)
        present, numbers = np.unique(targets.numpy(), return_inverse=True)
        rng = chance(_NAME, self.seed)
        rates, draws = self.rates(len(numbers), rng), rng.random(len(numbers))
        after = numbers.copy()
        for own in range(len(present)):
            rows = np.flatnonzero(numbers == own)
            loader = BlockLoader(Subset(data.train, rows.tolist()), _BLOCK, data.workers, torch.device("cpu"))
            inputs = (block.flatten(1).double().numpy() for block, _ in loader)
            likely = self.mistaken(inputs, own, len(present))
            wrong = draws[rows] < rates[rows]
            # What is left of the draw, made uniform again, chooses the class.
            left = draws[rows] / np.maximum(rates[rows], np.finfo(float).tiny)
            sums = likely.cumsum(1)
            after[rows[wrong]] = (sums <= left[:, None] * sums[:, -1:]).sum(1)[wrong]
        return relabelled(data, torch.as_tensor(present[after]))

    def rates(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return the probabilities q [n] of a wrong label."""
        if self.rate == 0 or self.scatter == 0:
            return np.full(count, float(self.rate))
        from scipy.optimize import brentq
        from scipy.stats import truncnorm

        def cut(centre: float) -> dict[str, float]:
            return {"a": -centre / self.scatter, "b": (1 - centre) / self.scatter, "loc": centre, "scale": self.scatter}

        def mean(centre: float) -> float:
            found: Any = truncnorm.stats(**cut(centre), moments="m")
            return float(found)

        # A normal far outside is cut to an exponential of mean scatter² / distance: the centre lies within these.
        low, high = (self.scatter + 2 * self.scatter**2 / share for share in (self.rate, 1 - self.rate))
        centre: Any = brentq(lambda place: mean(place) - self.rate, -low, 1 + high)
        return truncnorm.ppf(rng.random(count), **cut(centre))

    def mistaken(self, blocks: Iterable[np.ndarray], own: int, classes: int) -> np.ndarray:
        """Return the probabilities [n, classes] of what a class's samples, in blocks [b, d], become if mislabelled."""
        projection, found = None, []
        for inputs in blocks:
            if projection is None:
                projection = chance(_NAME, self.seed, own).standard_normal((inputs.shape[1], classes))
            scores = inputs @ projection
            scores[:, own] = -np.inf
            weights = np.exp(scores - scores.max(1, keepdims=True))
            found.append(weights / weights.sum(1, keepdims=True))
        return np.concatenate(found)
