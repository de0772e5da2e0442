"""What a network does with its inputs, layer by layer, now and at the weights kept along its training."""

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
from losskernel.representations.activations import INPUTS, OPERATIONS, Graph, choose, record, trace_graph
from losskernel.representations.baselines.collect import History
from losskernel.representations.baselines.features import Watched
from losskernel.representations.points import TRAINED, Placed
from losskernel.representations.sources.checkpoints import Checkpoints, chosen_checkpoints, require_checkpoints

LOGITS, OUTPUT, SOFTMAX = "logits", "output", "softmax"
GIBIBYTE = 2**30
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layers:
    """The inputs, the chosen layers and the output of a network, and of a classifier its softmax.

    The operation that the network ends with is called "logits" for a classifier, else "output"; it always has a part.
    Layers of a kept checkpoint carry its step: "relu @ 120"; those that are the same for all probes, as untrained
    networks may have some, are left out and named in the log.

    Attributes:
        patterns: globs of operations and modules in which * does not match a dot, or "re:" and a regular expression;
            "operations" takes everything that is evaluated, None the network's direct children.
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

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[Placed]:
        """Yield the points of the trained network, then of each checkpoint, in the order of evaluation.

        Raises:
            InputError: a pattern matches nothing, a checkpoint was not kept, or a trained layer has no kernel.
        """
        graph = self._graph(model, data)
        yield Placed(INPUTS, Point.from_features(_inputs(data), data.ids), "input")
        yield from self._network(model, data, graph, TRAINED, history.step)
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        for step, weights in chosen_checkpoints(history, self.checkpoints, "points.layers.checkpoints"):
            for each in self._network(weights.to(device), data, graph, f"step {step}", step):
                after = tuple(name if name == INPUTS else f"{name} @ {step}" for name in each.after)
                yield replace(each, name=f"{each.name} @ {step}", after=after)

    def _graph(self, model: nn.Module, data: Data) -> Graph:
        """Return the graph of the chosen operations, the last of all among them."""
        whole = trace_graph(model, data)
        chosen = choose(whole, self.patterns)
        last = whole.operations[whole.names[-1]]
        if last in chosen.operations.values():
            return chosen
        return choose(whole, [f"re:{re.escape(name)}" for name in (*chosen.names, whole.names[-1])])

    def _network(self, model: nn.Module, data: Data, graph: Graph, network: str, step: int | None) -> Iterator[Placed]:
        classifier = data.loss is cross_entropy
        last = LOGITS if classifier else OUTPUT
        dead: list[str] = []
        for place, (name, point) in enumerate(record(model, data, graph, int(self.budget * GIBIBYTE)), start=1):
            ends = place == len(graph.names)
            kind, own = ("output", last) if ends else ("layer", name)
            if point is None:
                dead.append(own)
                continue
            after = tuple(each for each in graph.edges[name] if each not in dead)
            yield Placed(own, point, kind, network, step, place, after)
        if dead:
            self._report(dead, network)
        if classifier and last not in dead:
            point = Point.from_features(_softmax(model, data), data.ids)
            yield Placed(SOFTMAX, point, "output", network, step, len(graph.names) + 1, (last,))

    def _report(self, dead: list[str], network: str) -> None:
        """Refuse layers of the trained network without a kernel; an untrained one may well have some."""
        words = f"{', '.join(dead)} of {network}: the same for all probes, so there is no kernel"
        if network == TRAINED:
            raise InputError(f"{words}; leave it out of patterns")
        _LOG.warning("points.layers: %s; left out", words)


def _inputs(data: Data) -> Any:
    inputs, _ = stack(data.probes, workers=data.workers)
    return inputs.flatten(1).double().numpy() if inputs.is_floating_point() else inputs.flatten(1).numpy()


def _softmax(model: nn.Module, data: Data) -> Any:
    network = Watched(model, [])
    found = [network.outputs(inputs).double().softmax(1).cpu() for inputs, _ in network.blocks(data)]
    return torch.cat(found).numpy()
