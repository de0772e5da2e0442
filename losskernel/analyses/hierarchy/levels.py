"""Which levels of a hierarchy does the kernel tell apart? Coupling within the groups of a level against across them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.errors import require, require_integer
from losskernel.kernel import LossKernel, Matrices, bootstrap
from losskernel.traces.loss_traces import LossTraces

PREFIX = "level_"


@dataclass(frozen=True)
class Levels:
    """Contrast of each level of a hierarchy of labels, from the kernel alone.

    Of the pairs of probes that share a group of the level above, some share a group of this level too and some do
    not. With W and A the mean coupling R² of the former and the latter, (W - A) / (W + A) is 0 where the kernel does
    not know the level, and 1 where nothing couples across it. Pairs of one class are left out: their losses are those
    of one output, and move together in any network. The pairs of two levels' contrasts are not the same, so that none
    follows from another.

    Attributes:
        levels: labels from the coarsest to the finest, each within the one before; None takes all that are called
            level_1, level_2, ...
        label: the classes, below the last level.
        limit: probes used at most, evenly spaced; the matrices are N × N.
    """

    levels: Sequence[str] | None = None
    label: str = "class"
    limit: int = 1000

    controlled: ClassVar[bool] = True
    meanings: ClassVar[dict[str, str]] = {
        "contrast_{level}": "(W - A) / (W + A) of the coupling within and across {level}; 0 unknown, 1 wholly apart",
        "coupling_{depth}": "mean coupling of pairs of probes that share {depth} levels, not the class; about 0 to 1",
    }

    def __post_init__(self) -> None:
        listed = self.levels is None or (not isinstance(self.levels, str) and len(self.levels) > 0)
        require(listed, f"analysis.levels.levels must be a list of labels or null, got {self.levels!r}; e.g. [level_1]")
        require(isinstance(self.label, str), f"analysis.levels.label must be a label's name, got {self.label!r}")
        require_integer("analysis.levels.limit", self.limit, at_least=10)

    def check(self, labels: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where the labels are no hierarchy."""
        self._lowest(labels)

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the contrast of each level with its error, and coupling by the lowest level that is shared."""
        require(kernel.chains >= 2, "analysis.levels needs >= 2 chains, got 1; raise schedule.chains")
        kernel = kernel.evenly(self.limit)
        names, lowest = self._lowest(kernel.labels)
        upper = np.triu(np.ones_like(lowest, dtype=bool), 1)  # each pair once
        pairs = [np.nonzero((lowest == depth) & upper) for depth in range(len(names) + 1)]  # by what is shared
        counts = np.array([len(first) for first, _ in pairs])  # [L + 1]
        for depth, name in enumerate(["the root", *names]):
            require(counts[depth] > 0, f"no two probes have {name} in common and nothing below it")

        def numbers(part: Matrices) -> dict[str, float]:
            linked = part.coupling()  # [N, N]
            means = np.array([linked[at_depth].mean() for at_depth in pairs])  # [L + 1]
            contrasts = zip(names, _contrasts(means, counts), strict=True)
            coupled = {f"coupling_{depth}": float(mean) for depth, mean in enumerate(means)}
            return {f"contrast_{name}": value for name, value in contrasts} | coupled

        metrics = bootstrap(kernel, numbers)
        table = pd.DataFrame({"shared": ["none", *names], "pairs": counts})
        for column, ending in (("coupling", ""), ("se", "_se"), ("low", "_low"), ("high", "_high")):
            table[column] = [metrics[f"coupling_{depth}{ending}"] for depth in range(len(names) + 1)]
        return Result(metrics, {"levels": table}, {"levels": figures.shared_levels(table)})

    def _lowest(self, labels: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
        """Return the levels' names, and the number of the finest that two probes share [N, N]; -1 for one class."""
        numbered = [name for name in labels if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdigit()]
        names = list(self.levels or sorted(numbered, key=lambda name: int(name.removeprefix(PREFIX))))
        known = ", ".join(labels) or "none"
        require(len(names) > 0, f"no label is called level_1; name the levels, of {known}")
        unknown = [name for name in [*names, self.label] if name not in labels]
        require(not unknown, f"there is no probe label {unknown[:1]}; choose from {known}")
        same = [np.asarray(labels[name])[:, None] == np.asarray(labels[name]) for name in [*names, self.label]]
        for (above, below), name in zip(pairwise(same), [*names[1:], self.label], strict=True):
            fits = not (below & ~above).any()
            require(fits, f"a group of {name} lies in two groups of the level above; order them")
        return names, np.where(same[-1], -1, np.sum(same[:-1], axis=0))


def _contrasts(means: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return each level's contrast from mean couplings by lowest shared level, [L + 1], and their numbers of pairs."""
    contrasts = []
    for level in range(1, len(means)):
        # Estimated without noise floor, means scatter about zero; a coupling itself is never negative.
        within = max(float(np.average(means[level:], weights=counts[level:])), 0.0)
        across = max(float(means[level - 1]), 0.0)
        contrasts.append((within - across) / (within + across) if within + across > 0 else 0.0)
    return contrasts
