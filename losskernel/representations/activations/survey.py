"""Which operations a network has, found by evaluating each once."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from losskernel.representations.activations.fx_tracing import TracedNetwork, Untraceable
from losskernel.representations.activations.graph import INPUTS, Graph, is_activation


def traced_graph(model: nn.Module, inputs: Tensor) -> Graph:
    """Return the graph of a network's operations, found on some inputs.

    Raises:
        Untraceable: torch.fx cannot follow it, or what it followed gives other outputs.
    """
    network = TracedNetwork(model)
    try:
        seen = _Survey(network, len(inputs))
        output = seen.survey(inputs.clone())
    except Exception as error:
        raise Untraceable(str(error).strip().split("\n")[0]) from error
    with torch.no_grad():
        direct = network.model(inputs.clone())
    if isinstance(direct, Tensor) and not (isinstance(output, Tensor) and _agree(direct, output)):
        raise Untraceable("the operations that were followed give other outputs than the network")
    return seen.graph()


class _Survey:
    """What each operation returns, and from which others it has it."""

    def __init__(self, network: TracedNetwork, batch: int) -> None:
        self._network, self._batch = network, batch
        self._edges: dict[str, tuple[str, ...]] = {}
        self._widths: dict[str, int] = {}
        self._aliases: dict[str, str] = {}
        self._parts: set[str] = set()
        # Of every operation: names that its value comes from; whether it only looks at numbers of another.
        self._sources: dict[fx.Node, tuple[str, ...]] = {}
        self._looking: dict[fx.Node, bool] = {}

    @torch.no_grad()
    def survey(self, inputs: Tensor) -> Any:
        """Evaluate every operation once; return what the network returns."""
        walk = self._network.evaluation
        walk.env, walk.args_iter = {}, iter([inputs])
        for node in self._network.nodes:
            given = {each: walk.env[each] for each in node.all_input_nodes}
            before = {each: _versions(value) for each, value in given.items()}
            walk.env[node] = walk.run_node(node)
            changed = [each for each, value in given.items() if _versions(value) != before[each]]
            self._place(node, given, walk.env[node], not changed)
            # What is overwritten comes from here on from the operation that did it.
            after = self._sources[node] or tuple(dict.fromkeys(each for one in given for each in self._sources[one]))
            self._sources.update(dict.fromkeys(changed, after))
        output, walk.env = walk.env[self._network.nodes[-1]], {}
        return output

    def graph(self) -> Graph:
        """Return what was found."""
        names = tuple(self._edges)
        modules = {module: self._alias_of(end) for module, end in self._network.ends.items()}
        found = {name: target for name, target in modules.items() if target is not None and name != target}
        return Graph(
            names,
            self._edges,
            self._widths,
            {name: name for name in names},
            {name: target for name, target in {**found, **self._aliases}.items() if target != INPUTS},
            frozenset(self._parts),
            tuple(name for name, _ in self._network.model.named_children()),
        )

    def _alias_of(self, node: fx.Node) -> str | None:
        name = self._network.names[node]
        return name if name in self._edges else self._aliases.get(name)

    def _place(self, node: fx.Node, given: dict[fx.Node, Any], value: Any, untouched: bool) -> None:
        if node.op == "placeholder":
            # Of several arguments the first is the inputs; others have defaults.
            self._sources[node] = (INPUTS,) if not self._sources else ()
            self._looking[node] = False
            return
        tensors = list(_tensors([value]))
        sources = tuple(dict.fromkeys(each for before in given for each in self._sources[before])) if tensors else ()
        self._sources[node] = sources
        self._looking[node] = untouched and any(
            _shared(one, other) for one in tensors for other in _tensors(given.values())
        )
        # What is taken out of several is a look at others' numbers if those were.
        several = [before for before, each in given.items() if not isinstance(each, Tensor) and _versions(each)]
        if several and self._looking[node]:
            self._looking[node] = all(self._looking[each] for each in several)
        if not sources or node.op in ("get_attr", "output") or not is_activation(value, self._batch):
            return
        name = self._network.names[node]
        origin = self._origin(node, given, value, sources)
        if origin is not None:
            self._aliases[name] = origin
            return
        self._edges[name], self._widths[name] = sources, value.numel() // self._batch
        self._sources[node] = (name,)
        if self._looking[node]:
            self._parts.add(name)

    def _origin(self, node: fx.Node, given: dict[fx.Node, Any], value: Tensor, sources: tuple[str, ...]) -> str | None:
        """Return the name of the operation whose numbers this one returns unchanged, None where it changes them."""
        known = [before for before, each in given.items() if isinstance(each, Tensor)]
        if len(known) != 1 or len(sources) != 1:  # a second tensor may be a weight
            return None
        before = given[known[0]]
        if not is_activation(before, self._batch) or before.numel() != value.numel():
            return None
        same = self._looking[node] if _shared(value, before) else self._repeats(node, known[0], before)
        return sources[0] if same else None

    def _repeats(self, node: fx.Node, source: fx.Node, before: Tensor) -> bool:
        """Whether an operation returns whatever it is given, such as the mean over a single position."""
        walk = self._network.evaluation
        module = self._network.model.get_submodule(str(node.target)) if node.op == "call_module" else nn.Identity()
        if [*module.parameters(), *module.buffers()]:
            return False  # other weights would change it
        noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(0)).to(before)
        noise = 10 * (noise - noise.mean())
        held, walk.env[source] = walk.env[source], noise.clone()
        try:
            again = walk.run_node(node)
        finally:
            walk.env[source] = held
        return torch.equal(again.reshape(self._batch, -1), noise.reshape(self._batch, -1))


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _versions(value: Any) -> list[int]:
    """Return how often each tensor was written to."""
    return [tensor._version for tensor in _tensors([value])]


def _shared(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie in the same memory."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _agree(direct: Tensor, output: Tensor) -> bool:
    """Whether two outputs are the same up to rounding."""
    largest = float(direct.nan_to_num().abs().max())
    return direct.shape == output.shape and torch.allclose(direct, output, 0.0, 1e-3 * largest, equal_nan=True)
