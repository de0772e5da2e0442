"""Layers and targets as points: inputs, activations and output of a network, and what it is to learn.

Layers also at checkpoints; targets are one-hot labels, and similarities of classes in a taxonomy.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from losskernel.data.base import Data, stack
from losskernel.data.taxonomy import MEASURES, Taxonomy, read_taxonomy, wordnet
from losskernel.errors import InputError, require, require_number
from losskernel.geometry import Point
from losskernel.losses import cross_entropy
from losskernel.representations.activations.graph import INPUTS, OPERATIONS, Graph, choose
from losskernel.representations.activations.recording import GIBIBYTE, record
from losskernel.representations.activations.trace import trace_graph
from losskernel.representations.evaluation import Checkpoints, Evaluator, History, device_of, require_checkpoints
from losskernel.representations.points.point_set import TRAINED, NamedPoint

LOGITS, OUTPUT, SOFTMAX = "logits", "output", "softmax"
_LOG = logging.getLogger(__name__)
_ROOT = "root"  # node above the coarsest labels


@dataclass(frozen=True)
class Layers:
    """The inputs, the chosen layers and the output of a network, and of a classifier its softmax.

    The operation that the network ends with is called "logits" for a classifier, else "output", and is always included.
    Layers of a checkpoint carry its step: "relu @ 120". Checkpoint layers that are constant over the probes, as in
    untrained networks, are left out and logged.

    Attributes:
        patterns: globs of operations and modules in which * does not match a dot, or "re:" and a regular expression;
            "operations" takes all operations, None the network's direct children.
        checkpoints: "all" that were kept along training, "none", or a list of their steps.
        budget: GiB of activations that are held at once.

    Source: Lange et al. 2022, arXiv 2206.10999.
    """

    patterns: Sequence[str] | str | None = None
    checkpoints: Checkpoints = "all"
    budget: float = 2.0

    gives: ClassVar[frozenset[str]] = frozenset({"input", "layer", "output"})

    def __post_init__(self) -> None:
        listed = not isinstance(self.patterns, str) or self.patterns == OPERATIONS
        words = "points.layers.patterns must be null, operations or a list of patterns"
        require(listed, f"{words}, got {self.patterns!r}; write [{self.patterns!r}]")
        require_checkpoints("points.layers.checkpoints", self.checkpoints)
        require_number("points.layers.budget", self.budget, above=0)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield the points of the trained network, then of each checkpoint, in the order of evaluation.

        Raises:
            InputError: a pattern matches nothing, a checkpoint was not kept, or a trained layer has no kernel.
        """
        graph = self._graph(model, data)  # of the trained network; checkpoints have the same operations
        inputs = stack(data.probes, workers=data.workers)[0].flatten(1)
        numbers = inputs.double() if inputs.is_floating_point() else inputs
        yield NamedPoint(INPUTS, Point.from_features(numbers.numpy(), data.ids), "input")
        yield from self._network(model, data, graph, TRAINED, history.step)
        for step, weights in history.selected(self.checkpoints, "points.layers.checkpoints"):
            for layer in self._network(weights.to(device_of(model)), data, graph, f"step {step}", step):
                after = tuple(name if name == INPUTS else f"{name} @ {step}" for name in layer.after)
                yield replace(layer, name=f"{layer.name} @ {step}", after=after)

    def _graph(self, model: nn.Module, data: Data) -> Graph:
        """Return the graph of the chosen operations, the network's last operation included."""
        whole = trace_graph(model, data)
        chosen = choose(whole, self.patterns)
        if whole.operations[whole.names[-1]] in chosen.operations.values():
            return chosen
        # Chosen again with the last operation, whose edges lead from the chosen ones.
        return choose(whole, [f"re:{re.escape(name)}" for name in (*chosen.names, whole.names[-1])])

    def _network(
        self, model: nn.Module, data: Data, graph: Graph, network: str, step: int | None
    ) -> Iterator[NamedPoint]:
        """Yield the layers and the output of one network; the names carry no step yet."""
        classifier = data.loss is cross_entropy  # outputs are logits
        last = LOGITS if classifier else OUTPUT
        dead: list[str] = []  # layers that are constant over the probes
        for position, (name, point) in enumerate(record(model, data, graph, int(self.budget * GIBIBYTE)), start=1):
            kind, label = ("output", last) if position == len(graph.names) else ("layer", name)
            if point is None:  # constant over the probes, so that centring leaves nothing
                dead.append(label)
                continue
            after = tuple(before for before in graph.edges[name] if before not in dead)
            yield NamedPoint(label, point, kind, network, step, position, after)
        words = f"{', '.join(dead)} of {network}: the same for all probes, so there is no kernel"
        if dead and network == TRAINED:
            raise InputError(f"{words}; leave it out of patterns")
        if dead:  # expected of a checkpoint, such as untrained weights
            _LOG.warning("points.layers: %s; left out", words)
        if classifier and last not in dead:
            whole = Evaluator(model)
            blocks = [whole.model(inputs).double().softmax(1).cpu() for inputs, _ in whole.blocks(data)]
            point = Point.from_features(torch.cat(blocks).numpy(), data.ids)
            yield NamedPoint(SOFTMAX, point, "output", network, step, len(graph.names) + 1, (last,))


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
