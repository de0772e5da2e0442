"""Targets of a network as kernels over the probes: one-hot labels, and similarity of classes in a taxonomy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from losskernel.data.base import Data
from losskernel.data.taxonomy import MEASURES, Taxonomy, read_taxonomy, wordnet
from losskernel.errors import require
from losskernel.geometry import Point
from losskernel.representations.history import History
from losskernel.representations.points.point_set import NamedPoint

_ROOT = "root"  # node above the coarsest labels


@dataclass(frozen=True)
class Targets:
    """The kernel of one-hot labels: 1 for two probes with the same value, 0 for others.

    Attributes:
        labels: names of probe labels; the first is the target that paths are measured against.
    """

    labels: Sequence[str]

    gives: ClassVar[frozenset[str]] = frozenset({"target"})

    def __post_init__(self) -> None:
        listed = not isinstance(self.labels, str) and len(self.labels) > 0
        require(listed, f"points.targets.labels must be a list of probe labels, got {self.labels!r}; write [class]")

    def check(self, data: Data) -> None:
        """Raise InputError if a label does not exist, or does not distinguish the probes."""
        for name in self.labels:
            _require_label("labels", name, data)
            values = np.unique(np.asarray(data.labels[name]))
            require(
                1 < len(values) < len(data.labels[name]),
                f"labels={name}: it has {len(values)} values on {len(data.labels[name])} probes and makes no kernel; "
                "name one that some probes share and others do not",
            )

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield a point per label, named after it."""
        self.check(data)
        for name in self.labels:
            # One-hot rows [N, values], whose Gram matrix is 1 for equal labels.
            _, number = np.unique(np.asarray(data.labels[name]), return_inverse=True)
            yield NamedPoint(name, Point.from_features(np.eye(number.max() + 1)[number], data.ids), "target")


@dataclass(frozen=True)
class TaxonomyKernel:
    """Similarity of the classes of every two probes in a taxonomy; 1 within a class for path similarity.

    Attributes:
        label: names each probe's class as the taxonomy does.
        taxonomy: "wordnet", the path of a file that holds a tree, or a list of probe labels, from the coarsest to the
            finest above `label`, that are a tree themselves.
        measure: of the similarity, one of losskernel.data.taxonomy.MEASURES.
    """

    label: str
    taxonomy: str | Sequence[str] = "wordnet"
    measure: str = "path"

    gives: ClassVar[frozenset[str]] = frozenset({"target"})

    def __post_init__(self) -> None:
        require(isinstance(self.label, str), f"points.taxonomy.label must be a probe label, got {self.label!r}")
        named = isinstance(self.taxonomy, str) or len(self.taxonomy) > 0
        require(named, "points.taxonomy.taxonomy must be wordnet, a file or a list of labels, got []; e.g. [level_1]")
        known = ", ".join(MEASURES)
        require(self.measure in MEASURES, f"points.taxonomy.measure must be one of {known}, got {self.measure!r}")

    def check(self, data: Data) -> None:
        """Raise InputError if a label does not exist, or the taxonomy does not know the probes' classes."""
        self._similarity(data)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield the point "taxonomy"."""
        yield NamedPoint("taxonomy", Point.from_gram(self._similarity(data), data.ids), "target")

    def _similarity(self, data: Data) -> np.ndarray:
        """Return the similarity [N, N] of the probes' classes."""
        named = [self.label] if isinstance(self.taxonomy, str) else [*self.taxonomy, self.label]
        for name in named:
            _require_label("label", name, data)
        # Labels as text, since the nodes of a taxonomy are named.
        rows = [np.asarray(data.labels[name]).astype(str) for name in named]
        ids, leaf = np.unique(rows[-1], return_inverse=True)
        require(len(ids) >= 3, f"label={self.label}: a taxonomy needs >= 3 classes, got {len(ids)}; name another label")
        if not isinstance(self.taxonomy, str):
            tree = _nested(named, rows)
            ids = np.array([f"{self.label} {name}" for name in ids])
        else:
            tree = wordnet(ids.tolist()) if self.taxonomy == "wordnet" else read_taxonomy(self.taxonomy)
        similar = tree.similarity(ids.tolist(), self.measure, np.bincount(leaf))
        # Where a node has several parents some measures depend on the order of the two classes. [classes, classes] to
        # [N, N]: every probe takes the row and column of its class.
        return ((similar + similar.T) / 2)[np.ix_(leaf, leaf)]


def _require_label(key: str, name: str, data: Data) -> None:
    choices = ", ".join(data.labels) or "none"
    require(name in data.labels, f"{key}={name}: there is no such probe label; choose from {choices}")


def _nested(names: Sequence[str], rows: Sequence[np.ndarray]) -> Taxonomy:
    """Return the tree whose levels are labels [N] of the probes, from the coarsest.

    Raises:
        InputError: a group lies in two groups of the level above.
    """
    parents: dict[str, list[str]] = {_ROOT: []}  # node -> nodes above it
    above = np.full(len(rows[0]), _ROOT)
    for name, values in zip(names, rows, strict=True):
        nodes = np.char.add(f"{name} ", values)  # [N]; levels may share values, so each is named after its label
        for node, parent in sorted(set(zip(nodes.tolist(), above.tolist(), strict=True))):
            require(
                node not in parents,
                f"taxonomy={list(names[:-1])}: {node} lies in two groups of the level above; "
                "order the labels from the coarsest",
            )
            parents[node] = [parent]
        above = nodes
    return Taxonomy(parents)
