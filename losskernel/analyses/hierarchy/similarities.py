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


class View(NamedTuple):
    """One similarity over probes, as far as the hierarchy asks for it.

    Attributes:
        means: over pairs of different probes of every two classes, [G, G]; NaN for a class of one probe with itself.
        pairs: the similarities of the chosen pairs of probes, [P].
        nearest: the most alike other probes of each, in no order; equals are taken at random, [N, k].
        linkage: average-linkage tree of the probes, [N - 1, 4], where all of them were at hand at once.
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
        seed: of the choice among equals.
    """

    classes: Classes
    pairs: Pairs
    neighbours: int
    seed: int = 0

    def of_kernel(self, kernel: LossKernel) -> dict[str, View]:
        """Read a loss kernel: "coupling" (of two chains or more), "abs_r" and "r"."""
        return self._read(_blocks(kernel))

    def means_of_kernel(self, kernel: LossKernel) -> dict[str, np.ndarray]:
        """Return only the means over classes [G, G] of a loss kernel's similarities."""
        return self._means(_blocks(kernel))

    def of_matrices(self, matrices: Matrices) -> dict[str, View]:
        """Read a kernel or a resample of it through its whole matrices [N, N]."""
        return self._read([_whole(matrices)])

    def means_of_matrices(self, matrices: Matrices) -> dict[str, np.ndarray]:
        """Return only the means over classes [G, G] of a kernel or a resample of it."""
        return self._means([_whole(matrices)])

    def of_features(self, name: str, features: np.ndarray) -> dict[str, View]:
        """Read the cosines of rows [N, d]."""
        kernel = LossKernel.from_features(features)
        return self._read((block, {name: kernel.correlation(block)}) for block in kernel.blocks())

    def _read(self, blocks: Iterable[Block]) -> dict[str, View]:
        count = len(self.classes.leaf)
        shuffled = np.random.default_rng(self.seed).permutation(count)
        parts: dict[str, list[View]] = {}
        for block, similarities in blocks:
            for name, rows in similarities.items():
                own = np.arange(count)[block]
                linkage = average_linkage(rows) if len(own) == count else None
                view = View(self._sums(rows, own), self._chosen(rows, own), self._nearest(rows, own, shuffled), linkage)
                parts.setdefault(name, []).append(view)
        return {name: self._joined(views) for name, views in parts.items()}

    def _means(self, blocks: Iterable[Block]) -> dict[str, np.ndarray]:
        sums: dict[str, np.ndarray] = {}
        for block, similarities in blocks:
            own = np.arange(len(self.classes.leaf))[block]
            for name, rows in similarities.items():
                sums[name] = sums.get(name, 0.0) + self._sums(rows, own)
        return {name: self._mean(total) for name, total in sums.items()}

    def _joined(self, views: list[View]) -> View:
        sums, pairs, nearest, _ = zip(*views, strict=True)
        return View(self._mean(np.sum(sums, axis=0)), np.concatenate(pairs), np.concatenate(nearest), views[0].linkage)

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        weights = self.classes.weights
        return np.divide(sums, weights, out=np.full(weights.shape, np.nan), where=weights > 0)

    def _sums(self, rows: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return what rows [n, N] add to the sums over classes [G, G], a probe's similarity with itself left out."""
        leaf, count = self.classes.leaf, len(self.classes.ids)
        order = np.argsort(leaf, kind="stable")
        starts = np.searchsorted(leaf[order], np.arange(count))
        together = np.array_equal(order, np.arange(len(order)))  # the columns of a class; saves a copy of all rows
        sums = np.add.reduceat(rows if together else rows[:, order], starts, axis=1)
        sums[np.arange(len(own)), leaf[own]] -= rows[np.arange(len(own)), own]
        return (leaf[own] == np.arange(count)[:, None]).astype(float) @ sums

    def _chosen(self, rows: np.ndarray, own: np.ndarray) -> np.ndarray:
        low, high = np.searchsorted(self.pairs.first, [own[0], own[-1] + 1])
        return rows[self.pairs.first[low:high] - own[0], self.pairs.second[low:high]]

    def _nearest(self, rows: np.ndarray, own: np.ndarray, shuffled: np.ndarray) -> np.ndarray:
        k = min(self.neighbours, len(shuffled) - 1)
        apart = -rows[:, shuffled]
        apart[np.arange(len(own)), np.argsort(shuffled)[own]] = np.inf  # itself
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
    found = {} if coupling is None else {"coupling": coupling}
    return found | {"abs_r": np.abs(correlation), "r": correlation}
