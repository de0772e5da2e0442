"""Wrong labels with known truth that depend on what a sample looks like."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from losskernel.data.base import Data
from losskernel.data.loading import BlockLoader
from losskernel.data.wrappers.label_noise import check_noise
from losskernel.data.wrappers.planting import chance
from losskernel.data.wrappers.relabelling import class_targets, relabelled
from losskernel.errors import require_number

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
