"""Trace a network: which operations it evaluates on a batch, their values, and how they follow each other.

By torch.fx where it can trace the network (TracedNetwork), else by forward hooks on its modules (HookedNetwork).
"""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from losskernel.data.base import Data, stack
from losskernel.errors import InputError, require
from losskernel.representations.activations.graph import INPUTS, Graph
from losskernel.representations.evaluation import device_of

# Probes that a network is traced on: a number that is seldom the length of an axis of other tensors.
_EXAMPLES = 5


class Untraceable(Exception):
    """torch.fx cannot trace a network; the message says why."""


def trace_graph(model: nn.Module, data: Data) -> Graph:
    """Return the graph of all operations of a network in eval mode, traced on a few of the probes.

    By torch.fx, with names as torchvision gives them ("layer1.0.add", "layer1.0.relu_1" for the second call). A
    network that it cannot trace is run with hooks instead, and its modules form a chain in the order of evaluation.

    Raises:
        InputError: the network cannot be evaluated on the probes.
    """
    inputs = stack(data.probes, _EXAMPLES)[0].to(device_of(model))
    try:
        return traced_graph(model, inputs)
    except Untraceable as error:
        reason = str(error)
    try:
        return hooked_graph(model, inputs.clone(), reason)
    except InputError:
        raise
    except Exception as error:  # a network's own code may raise anything
        kind = type(model).__name__
        raise InputError(f"{kind} cannot be evaluated on the probes: {error}; give a network that fits them") from error


class TracedNetwork:
    """A copy of a network in eval mode, evaluated operation by operation.

    Raises:
        Untraceable: its control flow depends on the values of its inputs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        tracer = _Tracer()
        try:
            graph = tracer.trace(self.model)
        except Exception as error:  # a network's own code may raise anything when it is given proxies
            raise Untraceable(str(error).strip().split("\n")[0]) from error
        self.names: dict[fx.Node, str] = dict(tracer.node_to_qualname)
        self.ends = tracer.ends
        self.nodes: list[fx.Node] = list(graph.nodes)
        self.interpreter = fx.Interpreter(self.model, graph=graph)

    def evaluate(self, inputs: Tensor, wanted: Collection[str], keep: Callable[[str, Tensor], None]) -> None:
        """Call keep(name, value) for the wanted operations as each is evaluated; stop after the last of them.

        A value may be overwritten in place by the next operation.
        """
        remaining = set(wanted)  # once empty, the rest of the network need not be evaluated
        for node in self._steps(inputs):
            name = self.names.get(node)
            if name in remaining:
                keep(name, self.interpreter.env[node])
                remaining.remove(name)
                if not remaining:
                    return

    @torch.no_grad()
    def _steps(self, inputs: Tensor) -> Iterator[fx.Node]:
        """Yield every node once it is evaluated; values that are used no more are dropped."""
        walk = self.interpreter
        walk.env, walk.args_iter = {}, iter([inputs])
        try:
            for node in self.nodes:
                walk.env[node] = walk.run_node(node)
                yield node
                # Values that no later node reads, so that activations do not add up over the network.
                for done in walk.user_to_last_uses.get(node, ()):
                    del walk.env[done]
        finally:
            walk.env = {}


class _Tracer(NodePathTracer):
    """Records the operation that every module ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, fx.Node] = {}
        self._calls: Counter[str] = Counter()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        if isinstance(output, fx.Proxy):
            call = self._calls[name]
            self.ends[f"{name}_{call}" if call else name] = output.node
        self._calls[name] += 1
        return output


def traced_graph(model: nn.Module, inputs: Tensor) -> Graph:
    """Return the graph of a network's operations, by evaluating each once.

    Raises:
        Untraceable: torch.fx cannot trace it, or what it traced gives other outputs.
    """
    network = TracedNetwork(model)
    try:
        survey = _Survey(network, len(inputs))
        output = survey.run(inputs.clone())
    except Exception as error:
        raise Untraceable(str(error).strip().split("\n")[0]) from error
    # Control flow that depends on values is traced silently for one of its branches.
    with torch.no_grad():
        direct = network.model(inputs.clone())
    if isinstance(direct, Tensor) and not (isinstance(output, Tensor) and _agree(direct, output)):
        raise Untraceable("the traced operations give other outputs than the network")
    return survey.graph()


class _Survey:
    """Finds what each operation returns, and which others its value derives from."""

    def __init__(self, network: TracedNetwork, batch: int) -> None:
        self._network, self._batch = network, batch
        self._edges: dict[str, tuple[str, ...]] = {}
        self._widths: dict[str, int] = {}
        self._aliases: dict[str, str] = {}
        self._parts: set[str] = set()
        # Of every node: names of operations that its value derives from; whether it is a view of another's memory.
        self._sources: dict[fx.Node, tuple[str, ...]] = {}
        self._view: dict[fx.Node, bool] = {}

    @torch.no_grad()
    def run(self, inputs: Tensor) -> Any:
        """Evaluate every operation once; return what the network returns."""
        walk = self._network.interpreter
        walk.env, walk.args_iter = {}, iter([inputs])
        for node in self._network.nodes:
            arguments = {source: walk.env[source] for source in node.all_input_nodes}
            # A tensor's version counts its in-place writes.
            before = {source: _versions(value) for source, value in arguments.items()}
            walk.env[node] = walk.run_node(node)
            changed = [source for source, value in arguments.items() if _versions(value) != before[source]]
            self._register(node, arguments, walk.env[node], not changed)
            # A value that was overwritten in place derives from now on from the operation that did it.
            sources = self._sources[node] or self._sources_of(arguments)
            self._sources.update(dict.fromkeys(changed, sources))
        output, walk.env = walk.env[self._network.nodes[-1]], {}
        return output

    def graph(self) -> Graph:
        """Return the graph of the operations that were evaluated."""
        names = tuple(self._edges)
        # A module is an alias of the operation that it ends with, or of what that one is an alias of.
        ends = {module: self._operation_of(end) for module, end in self._network.ends.items()}
        modules = {module: target for module, target in ends.items() if target is not None and module != target}
        return Graph(
            names,
            self._edges,
            self._widths,
            {name: name for name in names},
            {name: target for name, target in {**modules, **self._aliases}.items() if target != INPUTS},
            frozenset(self._parts),
            tuple(name for name, _ in self._network.model.named_children()),
        )

    def _operation_of(self, node: fx.Node) -> str | None:
        name = self._network.names[node]
        return name if name in self._edges else self._aliases.get(name)

    def _sources_of(self, arguments: dict[fx.Node, Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for node in arguments for name in self._sources[node]))

    def _register(self, node: fx.Node, arguments: dict[fx.Node, Any], value: Any, untouched: bool) -> None:
        """Record a node's sources and, if it is an operation of the graph, its edges and width."""
        if node.op == "placeholder":
            # Of several arguments the first is the inputs; others have defaults.
            self._sources[node] = (INPUTS,) if not self._sources else ()
            self._view[node] = False
            return
        tensors = list(_tensors([value]))
        sources = self._sources_of(arguments) if tensors else ()
        self._sources[node] = sources
        self._view[node] = untouched and any(
            _share_memory(one, other) for one in tensors for other in _tensors(arguments.values())
        )
        # An element of a tuple of tensors is a view of an operation's numbers only if the tuple was one.
        tuples = [source for source, given in arguments.items() if not isinstance(given, Tensor) and _versions(given)]
        if tuples and self._view[node]:
            self._view[node] = all(self._view[source] for source in tuples)
        if not sources or node.op in ("get_attr", "output") or not _is_activation(value, self._batch):
            return
        name = self._network.names[node]
        origin = self._origin(node, arguments, value, sources)
        if origin is not None:
            self._aliases[name] = origin
            return
        self._edges[name], self._widths[name] = sources, value.numel() // self._batch
        self._sources[node] = (name,)
        if self._view[node]:
            self._parts.add(name)

    def _origin(
        self, node: fx.Node, arguments: dict[fx.Node, Any], value: Tensor, sources: tuple[str, ...]
    ) -> str | None:
        """Return the name of the operation whose numbers this one returns unchanged, None where it changes them."""
        given = [source for source, argument in arguments.items() if isinstance(argument, Tensor)]
        if len(given) != 1 or len(sources) != 1:  # a second tensor may be a weight
            return None
        before = arguments[given[0]]
        if not _is_activation(before, self._batch) or before.numel() != value.numel():
            return None
        same = self._view[node] if _share_memory(value, before) else self._is_identity(node, given[0], before)
        return sources[0] if same else None

    def _is_identity(self, node: fx.Node, source: fx.Node, before: Tensor) -> bool:
        """Whether an operation returns its input whatever it is, such as the mean over a single position."""
        walk = self._network.interpreter
        module = self._network.model.get_submodule(str(node.target)) if node.op == "call_module" else nn.Identity()
        if [*module.parameters(), *module.buffers()]:
            return False  # an identity by chance, of these weights
        # Evaluated again on centred noise: a ReLU is the identity on some inputs, but not on these.
        noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(0)).to(before)
        noise = 10 * (noise - noise.mean())
        held, walk.env[source] = walk.env[source], noise.clone()
        try:
            again = walk.run_node(node)
        finally:
            walk.env[source] = held
        return torch.equal(again.reshape(self._batch, -1), noise.reshape(self._batch, -1))


class HookedNetwork:
    """A copy of a network in eval mode whose modules report their outputs, in the order of evaluation."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._calls: Counter[str] = Counter()
        self._keep: Callable[[str, Any], None] = lambda name, value: None
        for name, module in self.model.named_modules():
            if name:
                module.register_forward_hook(self._hook(name))

    @torch.no_grad()
    def evaluate(self, inputs: Tensor, wanted: Collection[str] | None, keep: Callable[[str, Tensor], None]) -> None:
        """Call keep(name, value) for the outputs of the wanted modules, None for all, as each is evaluated.

        A value may be overwritten in place by the next module.
        """
        self._calls.clear()
        self._keep = lambda name, value: keep(name, value) if wanted is None or name in wanted else None
        self.model(inputs)

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            call = self._calls[name]
            self._calls[name] += 1
            self._keep(f"{name}_{call}" if call else name, output)

        return hook


def hooked_graph(model: nn.Module, inputs: Tensor, reason: str) -> Graph:
    """Return the modules that return one tensor, a chain in the order of evaluation.

    Args:
        model: the network.
        inputs: some, [B, ...].
        reason: why torch.fx cannot trace the network.

    Raises:
        InputError: no module returns a floating tensor [B, ...].
    """
    # Tensors stay alive, so that no two share memory by chance.
    outputs: list[tuple[str, Tensor, int]] = [(INPUTS, inputs, inputs._version)]
    aliases: dict[str, str] = {}

    def keep(name: str, value: Any) -> None:
        if not _is_activation(value, len(inputs)):
            return
        last, before, version = outputs[-1]
        # A view of the last output that was not written to since is the same point under another name.
        if value.numel() == before.numel() and _share_memory(value, before) and value._version == version:
            aliases[name] = last
        else:
            outputs.append((name, value, value._version))

    network = HookedNetwork(model)
    network.evaluate(inputs, None, keep)
    names = tuple(name for name, _, _ in outputs[1:])
    kind = type(model).__name__
    require(len(names) > 0, f"{kind} has no module that returns a tensor [B, ...]; make its layers modules")
    return Graph(
        names,
        {name: (before,) for before, name in zip((INPUTS, *names), names, strict=False)},
        {name: value.numel() // len(inputs) for name, value, _ in outputs[1:]},
        {name: name for name in names},
        {name: target for name, target in aliases.items() if target != INPUTS},
        children=tuple(name for name, _ in network.model.named_children()),
        untraced=f"{kind} cannot be traced by torch.fx ({reason})",
    )


def _is_activation(value: object, batch: int) -> bool:
    """Whether an operation returned one floating tensor with a row per probe."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0 and len(value) == batch


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _versions(value: Any) -> list[int]:
    """Return how often each tensor was written to."""
    return [tensor._version for tensor in _tensors([value])]


def _share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are views of the same storage."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _agree(direct: Tensor, output: Tensor) -> bool:
    """Whether two outputs are the same up to rounding."""
    largest = float(direct.nan_to_num().abs().max())
    return direct.shape == output.shape and torch.allclose(direct, output, 0.0, 1e-3 * largest, equal_nan=True)
