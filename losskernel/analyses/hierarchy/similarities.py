"""What is read of a similarity over probes, block by block: its means over classes, some pairs, nearest probes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from losskernel.analyses.taxonomy_classes import Classes, Pairs
from losskernel.analyses.tree_comparison import average_linkage
from losskernel.kernel.error_bars import Matrices
from losskernel.kernel.loss_kernel import LossKernel

# Rows [n, N] of every similarity, and which.
Block = tuple[slice, Mapping[str, np.ndarray]]


class Similarity(NamedTuple):
    """One similarity over probes, as far as the hierarchy needs it.

    Attributes:
        means: over pairs of different probes of every two classes, [G, G]; NaN for a class of one probe with itself.
        pairs: the similarities of the chosen pairs of probes, [P].
        nearest: the most similar other probes of each, in no order; ties are broken at random, [N, k].
        linkage: average-linkage tree of the probes, [N - 1, 4], where all rows were read in one block.
    """

    means: np.ndarray
    pairs: np.ndarray
    nearest: np.ndarray
    linkage: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads similarities over the same probes.

    Attributes:
        classes: of the probes.
        pairs: of probes to read.
        neighbours: k.
        seed: breaks ties.
    """

    classes: Classes
    pairs: Pairs
    neighbours: int
    seed: int = 0

    def of_kernel(self, kernel: LossKernel) -> dict[str, Similarity]:
        """Read a loss kernel: "coupling" (of two chains or more), "abs_r" and "r"."""
        return self._read(_blocks(kernel))

    def means_of_kernel(self, kernel: LossKernel) -> dict[str, np.ndarray]:
        """Return only the means over classes [G, G] of a loss kernel's similarities."""
        return self._means(_blocks(kernel))

    def of_matrices(self, matrices: Matrices) -> dict[str, Similarity]:
        """Read a kernel or a resample of it through its whole matrices [N, N]."""
        return self._read([_whole(matrices)])

    def means_of_matrices(self, matrices: Matrices) -> dict[str, np.ndarray]:
        """Return only the means over classes [G, G] of a kernel or a resample of it."""
        return self._means([_whole(matrices)])

    def of_features(self, name: str, features: np.ndarray) -> dict[str, Similarity]:
        """Read the cosines of rows [N, d]."""
        kernel = LossKernel.from_features(features)
        return self._read((block, {name: kernel.correlation(block)}) for block in kernel.blocks())

    def _read(self, blocks: Iterable[Block]) -> dict[str, Similarity]:
        count = len(self.classes.leaf)
        shuffled = np.random.default_rng(self.seed).permutation(count)  # [N]
        parts: dict[str, list[Similarity]] = {}
        for block, similarities in blocks:
            probes = np.arange(count)[block]
            for name, rows in similarities.items():
                linkage = average_linkage(rows) if len(probes) == count else None
                nearest = self._nearest(rows, probes, shuffled)  # [n, k]
                part = Similarity(self._sums(rows, probes), self._chosen(rows, probes), nearest, linkage)
                parts.setdefault(name, []).append(part)
        return {name: self._joined(members) for name, members in parts.items()}

    def _means(self, blocks: Iterable[Block]) -> dict[str, np.ndarray]:
        sums: dict[str, np.ndarray] = {}
        for block, similarities in blocks:
            probes = np.arange(len(self.classes.leaf))[block]
            for name, rows in similarities.items():
                sums[name] = sums.get(name, 0.0) + self._sums(rows, probes)
        return {name: self._mean(total) for name, total in sums.items()}

    def _joined(self, parts: list[Similarity]) -> Similarity:
        sums, pairs, nearest, linkages = zip(*parts, strict=True)
        return Similarity(self._mean(np.sum(sums, axis=0)), np.concatenate(pairs), np.concatenate(nearest), linkages[0])

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        weights = self.classes.weights  # [G, G]
        return np.divide(sums, weights, out=np.full(weights.shape, np.nan), where=weights > 0)

    def _sums(self, rows: np.ndarray, probes: np.ndarray) -> np.ndarray:
        """Return what rows [n, N] add to the sums over classes [G, G], a probe's similarity with itself left out."""
        leaf, count = self.classes.leaf, len(self.classes.ids)
        order = np.argsort(leaf, kind="stable")  # [N], by class
        starts = np.searchsorted(leaf[order], np.arange(count))  # [G], first column of each class
        # Where the probes are sorted by class already, a copy of all rows is saved.
        is_sorted = np.array_equal(order, np.arange(len(order)))
        sums = np.add.reduceat(rows if is_sorted else rows[:, order], starts, axis=1)  # [n, G]
        sums[np.arange(len(probes)), leaf[probes]] -= rows[np.arange(len(probes)), probes]
        return (leaf[probes] == np.arange(count)[:, None]).astype(float) @ sums

    def _chosen(self, rows: np.ndarray, probes: np.ndarray) -> np.ndarray:
        # Pairs are sorted by their first probe, so that those of a block are a slice.
        low, high = np.searchsorted(self.pairs.first, [probes[0], probes[-1] + 1])
        return rows[self.pairs.first[low:high] - probes[0], self.pairs.second[low:high]]

    def _nearest(self, rows: np.ndarray, probes: np.ndarray, shuffled: np.ndarray) -> np.ndarray:
        k = min(self.neighbours, len(shuffled) - 1)
        # Of equal columns argpartition keeps any: in shuffled order none is favoured, by class or otherwise.
        apart = -rows[:, shuffled]  # [n, N]
        apart[np.arange(len(probes)), np.argsort(shuffled)[probes]] = np.inf  # no probe is its own neighbour
        return shuffled[np.argpartition(apart, k - 1, axis=1)[:, :k]]


def _blocks(kernel: LossKernel) -> Iterator[Block]:
    for block in kernel.blocks():
        coupling = kernel.coupling(block) if kernel.chains >= 2 else None
        yield block, _named(kernel.correlation(block), coupling)


def _whole(matrices: Matrices) -> Block:
    correlation = matrices.correlation()
    coupling = matrices.coupling() if matrices.chains >= 2 else None
    return slice(0, len(correlation)), _named(correlation, coupling)


def _named(correlation: np.ndarray, coupling: np.ndarray | None) -> dict[str, np.ndarray]:
    named = {} if coupling is None else {"coupling": coupling}
    return named | {"abs_r": np.abs(correlation), "r": correlation}
