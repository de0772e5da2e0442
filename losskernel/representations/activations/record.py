"""Layers of a network as points: activations on the probes, recorded with bounded memory."""

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data, size
from losskernel.data.loading import BlockLoader
from losskernel.errors import InputError, require, require_integer
from losskernel.geometry import Point
from losskernel.representations.activations.gathering import Columns, is_factor, passes
from losskernel.representations.activations.graph import Graph
from losskernel.representations.activations.products import Triangle, first_entry

_BLOCK = 64
GIBIBYTE = 2**30
# Numbers that many times smaller are still exact in single precision.
_FAINT = 1e-30


class Network(Protocol):
    """A copy of a network that hands over what its operations return."""

    model: nn.Module

    def evaluate(self, inputs: Tensor, wanted: Collection[str], keep: Callable[[str, Tensor], None]) -> None:
        """Hand over the values of the wanted operations as each is evaluated."""
        ...


def record(
    model: nn.Module, data: Data, graph: Graph, budget: int = 2 * GIBIBYTE
) -> Iterator[tuple[str, Point | None]]:
    """Yield the layers of a graph as points over the probes, in order; None for one that is the same for all probes.

    A copy of the network is evaluated in eval mode, where its weights are, block by block. All axes but the first are
    flattened. Activations are centred over the probes before they are multiplied, which the centring of kernels would
    do in any case, but after digits were lost. Memory is bounded: activations take the budget at most, for which the
    probes may be passed through the network several times, and one kernel is held at a time, as its triangle: in
    double precision below 4096 probes, else in single. A layer [N, d] with 2 d <= N stays a factor.

    Args:
        model: the network; that whose graph it is, or another with the same operations.
        data: its probes are the inputs.
        graph: of the layers, see `choose`.
        budget: bytes of activations that are held at once.

    Raises:
        InputError: the network has other operations, or an activation or product is not finite.
    """
    require_integer("budget", budget, at_least=1)
    return _points(_network(model, graph), data, graph, budget)


def _points(network: Network, data: Data, graph: Graph, budget: int) -> Iterator[tuple[str, Point | None]]:
    weight = next((each for each in network.model.parameters() if each.is_floating_point()), torch.empty(0))
    blocks = BlockLoader(data.probes, _BLOCK, data.workers, weight.device)
    ids, count = np.asarray(data.ids), size(data.probes)
    itemsize = 8 if weight.dtype == torch.float64 else 4
    layer = _Layer(ids)
    for pieces in passes(graph.widths, count, itemsize, budget):
        gathered = {graph.operations[piece.name]: Columns(piece, ids) for piece in pieces}
        for inputs, _ in blocks:
            # A network may overwrite what it is given.
            network.evaluate(inputs.clone(), gathered, lambda name, values, into=gathered: into[name].add(values))
        for operation in list(gathered):
            columns = gathered.pop(operation)
            layer.add(columns)
            if columns.piece.last:
                yield columns.piece.name, layer.point(columns.piece.name)
                layer = _Layer(ids)


class _Layer:
    """A point that grows by columns of a layer."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids
        self._factor: np.ndarray | None = None
        self._triangle: Triangle | None = None

    def add(self, columns: Columns) -> None:
        piece, values = columns.piece, columns.centred()
        if columns.constant:
            return
        if piece.start == 0 and piece.last and is_factor(piece.stop, len(self._ids)):
            self._factor = values.cpu().numpy()
            return
        if self._triangle is None:
            self._triangle = Triangle(len(self._ids), values.dtype == torch.float64)
        self._triangle.add(values)

    def point(self, name: str) -> Point | None:
        if self._factor is not None:
            return Point(self._ids, factor=self._factor)
        if self._triangle is None:
            return None
        values = self._triangle.values
        diagonal = values[first_entry(np.arange(len(self._ids)), len(self._ids))]
        # No entry of a positive kernel is larger than the largest on its diagonal.
        largest = float(diagonal.max())
        fits = np.isfinite(largest) and (values.dtype == np.float64 or largest > _FAINT)
        require(fits, f"products of activations of {name} leave single precision; call double() on the network")
        return Point(self._ids, triangle=values)


def _network(model: nn.Module, graph: Graph) -> Network:
    from losskernel.representations.activations.fx_tracing import TracedNetwork, Untraceable
    from losskernel.representations.activations.hooks import HookedNetwork

    if graph.untraced:
        network = HookedNetwork(model)
        # A module that is called again has a number behind its name.
        known = {name for name, _ in model.named_modules() if name}
        missing = [name for name in graph.operations.values() if not {name, name.rpartition("_")[0]} & known]
    else:
        try:
            network = TracedNetwork(model)
        except Untraceable as error:
            raise InputError(f"torch.fx cannot follow {type(model).__name__} ({error}); take its own graph") from error
        missing = [name for name in graph.operations.values() if name not in network.names.values()]
    require(not missing, f"{type(model).__name__} has no operation {', '.join(missing)}; take its own graph")
    return network
