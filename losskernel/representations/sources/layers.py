"""Layers as points: a network's inputs, activations and output, at the trained weights and at checkpoints."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from losskernel.data.base import Data, stack
from losskernel.errors import InputError, require, require_number
from losskernel.geometry import Point
from losskernel.losses import cross_entropy
from losskernel.representations.activations.graph import INPUTS, OPERATIONS, Graph, choose
from losskernel.representations.activations.recording import GIBIBYTE, record
from losskernel.representations.activations.trace import trace_graph
from losskernel.representations.evaluation import Evaluator, device_of
from losskernel.representations.history import Checkpoints, History, require_checkpoints
from losskernel.representations.points.point_set import TRAINED, NamedPoint

LOGITS, OUTPUT, SOFTMAX = "logits", "output", "softmax"
_LOG = logging.getLogger(__name__)


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
        yield NamedPoint(INPUTS, Point.from_features(_inputs(data), data.ids), "input")
        yield from self._network(model, data, graph, TRAINED, history.step)
        for step, weights in history.selected(self.checkpoints, "points.layers.checkpoints"):
            for layer in self._network(weights.to(device_of(model)), data, graph, f"step {step}", step):
                after = tuple(name if name == INPUTS else f"{name} @ {step}" for name in layer.after)
                yield replace(layer, name=f"{layer.name} @ {step}", after=after)

    def _graph(self, model: nn.Module, data: Data) -> Graph:
        """Return the graph of the chosen operations, the network's last operation included."""
        whole = trace_graph(model, data)
        chosen = choose(whole, self.patterns)
        last = whole.operations[whole.names[-1]]
        if last in chosen.operations.values():
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
        if dead:
            self._report(dead, network)
        if classifier and last not in dead:
            point = Point.from_features(_softmax(model, data), data.ids)
            yield NamedPoint(SOFTMAX, point, "output", network, step, len(graph.names) + 1, (last,))

    def _report(self, dead: list[str], network: str) -> None:
        """Refuse constant layers of the trained network; log those of a checkpoint, where they are expected."""
        words = f"{', '.join(dead)} of {network}: the same for all probes, so there is no kernel"
        if network == TRAINED:
            raise InputError(f"{words}; leave it out of patterns")
        _LOG.warning("points.layers: %s; left out", words)


def _inputs(data: Data) -> Any:
    inputs, _ = stack(data.probes, workers=data.workers)
    return inputs.flatten(1).double().numpy() if inputs.is_floating_point() else inputs.flatten(1).numpy()


def _softmax(model: nn.Module, data: Data) -> Any:
    network = Evaluator(model)
    blocks = [network.outputs(inputs).double().softmax(1).cpu() for inputs, _ in network.blocks(data)]
    return torch.cat(blocks).numpy()
