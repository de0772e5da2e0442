"""Record the activations of a network's layers on the probes as points, with bounded memory.

Layers are gathered in as few passes over the probes as the memory budget allows (`passes`, `Columns`). Narrow layers
stay factors; of wide ones the kernel is summed over blocks of columns and held as its triangle (`Triangle`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data, size
from losskernel.data.loading import BlockLoader
from losskernel.errors import InputError, require, require_integer
from losskernel.geometry import Point
from losskernel.geometry.point import SINGLE_PRECISION_INPUTS, first_entry
from losskernel.representations.activations.graph import Graph
from losskernel.representations.activations.trace import HookedNetwork, TracedNetwork, Untraceable

GIBIBYTE = 2**30
_BLOCK = 64  # probes per forward pass
# Products are computed in about _BLOCKS blocks of rows, so that little is wasted below the diagonal, of at least _ROWS
# rows and at most _NUMBERS numbers.
_BLOCKS, _ROWS, _NUMBERS = 16, 64, 2**24
# A largest entry above this leaves enough range in single precision for entries 1e-8 times smaller.
_FAINT = 1e-30


def record(
    model: nn.Module, data: Data, graph: Graph, budget: int = 2 * GIBIBYTE
) -> Iterator[tuple[str, Point | None]]:
    """Yield the layers of a graph as points over the probes, in order; None for one that is constant over the probes.

    A copy of the network is evaluated in eval mode, on the device of its weights, block by block. All axes but the
    first are flattened. Activations are centred over the probes before they are multiplied, which the centring of
    kernels would do in any case, but with a loss of digits. Memory is bounded: activations take at most the budget,
    for which the probes may pass through the network several times, and one kernel is held at a time, as its triangle:
    in double precision below 4096 probes, else in single. A layer [N, d] with 2 d <= N stays a factor.

    Args:
        model: the network of the graph, or another with the same operations.
        data: its probes are the inputs.
        graph: of the layers, see `choose`.
        budget: bytes of activations that are held at once.

    Raises:
        InputError: the network has other operations, or an activation or product is not finite.
    """
    require_integer("budget", budget, at_least=1)
    return _points(_network(model, graph), data, graph, budget)


class Piece(NamedTuple):
    """A range of columns of a layer's activations [N, d]."""

    name: str
    start: int
    stop: int
    width: int  # of the layer

    @property
    def last(self) -> bool:
        """Whether the layer ends here."""
        return self.stop == self.width


def passes(widths: Mapping[str, int], inputs: int, itemsize: int, budget: int) -> list[list[Piece]]:
    """Return which columns of which layers each pass over the probes gathers.

    Layers are taken in order and cut where the budget ends, except those kept whole as factors (`is_factor`).

    Args:
        widths: layer -> numbers per probe.
        inputs: N.
        itemsize: bytes of a number.
        budget: bytes of a pass.
    """
    most = max(1, budget // (inputs * itemsize))  # columns of a pass
    planned: list[list[Piece]] = [[]]
    free = most
    for name, width in widths.items():
        start = 0
        while start < width:
            whole = is_factor(width, inputs) and width <= most
            if free == 0 or (whole and width > free):
                planned.append([])
                free = most
            stop = min(width, start + free)
            planned[-1].append(Piece(name, start, stop, width))
            free -= stop - start
            start = stop
    return planned


def is_factor(width: int, inputs: int) -> bool:
    """Whether [N, d] is no larger than the triangle of its products."""
    return 2 * width <= inputs


class Columns:
    """The activations [N, w] of a piece, filled during a pass over the probes.

    Args:
        piece: which columns.
        ids: [N] names of the probes, for messages.
    """

    def __init__(self, piece: Piece, ids: Sequence[object] | np.ndarray) -> None:
        self.piece, self._ids = piece, ids
        self._values = self._sums = torch.empty(0)
        self.constant = True
        self._filled = 0

    def add(self, values: Tensor) -> None:
        """Copy the piece's columns of the next probes' activations [b, ...].

        Raises:
            InputError: a number is not finite, or the layer has another width.
        """
        flat = values.reshape(len(values), -1)
        name, width = self.piece.name, self.piece.width
        fits = flat.shape[1] == width
        require(fits, f"{name} has {flat.shape[1]} numbers per probe, its graph {width}; use this network's graph")
        flat = flat[:, self.piece.start : self.piece.stop]
        finite = torch.isfinite(flat).all(1)
        if not bool(finite.all()):
            first = self._ids[self._filled + int(torch.nonzero(~finite)[0])]
            raise InputError(
                f"activations of {name} are not finite, first at probe {first}; check the weights and inputs"
            )
        if not self._filled:  # precision and device are known from the first block on
            dtype = torch.float64 if flat.dtype == torch.float64 else torch.float32
            self._values = torch.empty(len(self._ids), flat.shape[1], dtype=dtype, device=flat.device)
            self._sums = torch.zeros(flat.shape[1], dtype=torch.float64, device=flat.device)
        end = self._filled + len(flat)
        self._values[self._filled : end] = flat
        self._sums += flat.double().sum(0)
        self.constant = self.constant and bool((self._values[self._filled : end] == self._values[0]).all())
        self._filled = end

    def centred(self) -> Tensor:
        """Return the activations [N, w] less their mean over the probes, and release them.

        Raises:
            InputError: the network did not evaluate the layer for every probe.
        """
        name, count = self.piece.name, len(self._ids)
        require(self._filled == count, f"{name} was evaluated for {self._filled} of {count} probes; leave it out")
        values, self._values = self._values, torch.empty(0)
        return values.sub_((self._sums / len(values)).to(values.dtype))


class Triangle:
    """The entries of X Xᵀ on and above the diagonal, row by row, [N (N + 1) / 2], summed over blocks of X's columns."""

    def __init__(self, inputs: int, double: bool) -> None:
        self._inputs = inputs
        self._double = double or inputs < SINGLE_PRECISION_INPUTS
        self.values = np.zeros(inputs * (inputs + 1) // 2, np.float64 if self._double else np.float32)

    def add(self, columns: Tensor) -> None:
        """Add the products of centred activations [N, w], computed on their device."""
        step = max(1, min(max(_ROWS, self._inputs // _BLOCKS), _NUMBERS // self._inputs))
        for start in range(0, self._inputs, step):
            block = self._products(columns, start, min(start + step, self._inputs)).cpu().numpy()
            for offset, row in enumerate(block):
                first = first_entry(start + offset, self._inputs)
                self.values[first : first + len(row) - offset] += row[offset:]

    def _products(self, columns: Tensor, start: int, stop: int) -> Tensor:
        """Return rows start to stop from column start on, [stop - start, N - start]."""
        if not self._double or columns.dtype == torch.float64:
            return columns[start:stop] @ columns[start:].T
        # Converted to double some columns at a time: all of them would take twice the budget again.
        product = torch.zeros(stop - start, self._inputs - start, dtype=torch.float64, device=columns.device)
        for part in columns[start:].split(max(1, _NUMBERS // self._inputs), dim=1):
            exact = part.double()
            product += exact[: stop - start] @ exact.T
        return product


def _points(
    network: TracedNetwork | HookedNetwork, data: Data, graph: Graph, budget: int
) -> Iterator[tuple[str, Point | None]]:
    weight = next(filter(torch.is_floating_point, network.model.parameters()), torch.empty(0))
    blocks = BlockLoader(data.probes, _BLOCK, data.workers, weight.device)
    ids, count = np.asarray(data.ids), size(data.probes)
    itemsize = 8 if weight.dtype == torch.float64 else 4
    layer = _Layer(ids)
    for pieces in passes(graph.widths, count, itemsize, budget):
        gathered = {graph.operations[piece.name]: Columns(piece, ids) for piece in pieces}
        for inputs, _ in blocks:
            # A copy, since a network may overwrite its inputs.
            network.evaluate(inputs.clone(), gathered, lambda name, values, into=gathered: into[name].add(values))
        for operation in list(gathered):
            columns = gathered.pop(operation)  # so that its memory is free before the next layer's kernel
            layer.add(columns)
            if columns.piece.last:
                yield columns.piece.name, layer.point(columns.piece.name)
                layer = _Layer(ids)


class _Layer:
    """Accumulates the point of a layer from its pieces."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids
        self._factor: np.ndarray | None = None
        self._triangle: Triangle | None = None

    def add(self, columns: Columns) -> None:
        piece, values = columns.piece, columns.centred()
        if columns.constant:  # contributes nothing but rounding
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
        # No entry of a positive kernel is larger than the largest on its diagonal.
        largest = float(values[first_entry(np.arange(len(self._ids)), len(self._ids))].max())
        fits = np.isfinite(largest) and (values.dtype == np.float64 or largest > _FAINT)
        require(fits, f"products of activations of {name} leave single precision; call double() on the network")
        return Point(self._ids, triangle=values)


def _network(model: nn.Module, graph: Graph) -> TracedNetwork | HookedNetwork:
    """Return a copy of the network that can be evaluated operation by operation, as its graph was made."""
    kind = type(model).__name__
    if graph.untraced:
        network = HookedNetwork(model)
        # The second and later calls of a module have a number behind its name.
        known = {name for name, _ in model.named_modules() if name}
        missing = [name for name in graph.operations.values() if not {name, name.rpartition("_")[0]} & known]
    else:
        try:
            network = TracedNetwork(model)
        except Untraceable as error:
            raise InputError(f"torch.fx cannot trace {kind} ({error}); use this network's graph") from error
        missing = [name for name in graph.operations.values() if name not in network.names.values()]
    require(not missing, f"{kind} has no operation {', '.join(missing)}; use this network's graph")
    return network
