"""One loss kernel and its rivals held against a taxonomy: what is read, scored and tested of each."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from losskernel.analyses import rank_tests as agreement
from losskernel.analyses.hierarchy import scores
from losskernel.analyses.hierarchy.classes import Classes
from losskernel.analyses.hierarchy.judge import Judge
from losskernel.analyses.hierarchy.rivals import with_references
from losskernel.analyses.hierarchy.scores import Score
from losskernel.analyses.hierarchy.similarities import Reader, View
from losskernel.analyses.rank_tests import Permuted
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

# Image pairs at most for rank correlations between images.
_PAIRS = 200_000


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that tables and figures of the hierarchy show, computed when first asked for.

    Attributes:
        kernel: the loss kernel.
        traces: what it was built from, with baselines.
        classes: of the probes.
        distance: of every two classes in the taxonomy, [G, G].
        features: baseline for which partial tests control.
        permutations: of the classes.
        neighbours: k of the k-NN precision.
        limit: probes at most behind errors and trees of probes.
        seed: fixes permutations, sampled pairs, choices among equals and the random baseline.
    """

    kernel: LossKernel
    traces: LossTraces
    classes: Classes
    distance: np.ndarray
    features: str
    permutations: int
    neighbours: int
    limit: int
    seed: int

    @cached_property
    def views(self) -> dict[str, View]:
        """Every kernel, the loss kernel's own views first."""
        found = self._reader.of_kernel(self.kernel)
        for name, rows in self._rivals.items():
            found |= self._reader.of_features(name, rows)
        return found

    @property
    def own(self) -> list[str]:
        """Names of the loss kernel's views, the best one first: without noise floor, if there are chains enough."""
        return [name for name in self.views if name not in self._rivals]

    @cached_property
    def judge(self) -> Judge:
        """What compares a view with the taxonomy."""
        return Judge(self.classes, self.distance, self._reader.pairs, self._given)

    @cached_property
    def part(self) -> tuple[LossKernel, Classes]:
        """The kernel of the probes behind errors, and their classes."""
        if self._chosen is None:
            return self.kernel, self.classes
        traces = LossTraces(self.traces.dataset.isel(probe=self._chosen))
        return LossKernel.from_traces(traces), self.classes.at(self._chosen)

    @cached_property
    def scores(self) -> dict[str, Score]:
        """The numbers of every kernel; the loss kernel's with errors over chains."""
        kernel, classes = self.part
        reader = self._reader_of(classes)
        judge = Judge(classes, self.distance, reader.pairs, self._given)
        exact, rough = scores.values(self.judge, self.views), scores.with_errors(kernel, reader, judge)
        if self._chosen is None:
            return exact | rough
        for name, rows in self._rivals.items():
            rough |= scores.values(judge, reader.of_features(name, rows[self._chosen]))
        return {name: scores.centred_on(rough[name], score) for name, score in exact.items()}

    @cached_property
    def tests(self) -> dict[str, dict[str, Permuted]]:
        """Permutation tests of every kernel: spearman_classes, partial and reverse."""
        return {
            name: scores.tests(
                view, self.distance, None if name == self.features else self._given, self.permutations, self.seed
            )
            for name, view in self.views.items()
        }

    @cached_property
    def reach(self) -> dict[str, dict[str, Any]]:
        """Reliability, ceiling and the draws in all that double the correlation over classes, of the kernel's views."""
        draws = self.kernel.chains * self.kernel.draws
        found: dict[str, dict[str, Any]] = {}
        for name, value in scores.reliability(self.kernel, self._reader).items():
            correlation = self.scores[name].get("spearman_classes", 0.0)
            times = agreement.doubling(value) if correlation > 0 else np.inf
            needed = float(np.ceil(times * draws)) if np.isfinite(times) else "never"
            limit = agreement.ceiling(correlation, value)
            found[name] = {"reliability": value, "ceiling": limit, "draws_to_double": needed}
        return found

    @cached_property
    def _rivals(self) -> dict[str, np.ndarray]:
        draws = self.kernel.chains * self.kernel.draws
        # A baseline of one column is a score, such as the margin: probes with the same score are not alike.
        kernels = {name: rows for name, rows in self.traces.baselines.items() if rows.shape[1] > 1}
        return with_references(kernels, self.classes.leaf, draws, self.seed)

    @cached_property
    def _given(self) -> np.ndarray | None:
        return self.views[self.features].means if self.features in self._rivals else None

    @cached_property
    def _chosen(self) -> np.ndarray | None:
        return self.classes.evenly(self.limit) if self.kernel.probes > self.limit else None

    @cached_property
    def _reader(self) -> Reader:
        return self._reader_of(self.classes)

    def _reader_of(self, classes: Classes) -> Reader:
        return Reader(classes, classes.pairs(_PAIRS, self.seed), self.neighbours, self.seed)
