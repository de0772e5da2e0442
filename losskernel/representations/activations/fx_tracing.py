"""A network followed by torch.fx: its operations, evaluated one after another."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer


class Untraceable(Exception):
    """Torch.fx cannot follow a network; the message says why."""


class TracedNetwork:
    """A copy of a network in eval mode, evaluated operation by operation.

    Raises:
        Untraceable: its way depends on the numbers it is given.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        tracer = _Tracer()
        try:
            graph = tracer.trace(self.model)
        except Exception as error:  # a network's own code may raise anything on what stands in for its inputs
            raise Untraceable(str(error).strip().split("\n")[0]) from error
        self.names: dict[fx.Node, str] = dict(tracer.node_to_qualname)
        self.ends = tracer.ends
        self.nodes: list[fx.Node] = list(graph.nodes)
        self.evaluation = fx.Interpreter(self.model, graph=graph)

    def evaluate(self, inputs: Tensor, wanted: Collection[str], keep: Callable[[str, Tensor], None]) -> None:
        """Hand over the values of the wanted operations as each is evaluated; what comes after the last is not.

        What is handed over may be overwritten by the next operation.
        """
        left = set(wanted)
        for node in self.steps(inputs):
            name = self.names.get(node)
            if name in left:
                keep(name, self.evaluation.env[node])
                left.remove(name)
                if not left:
                    return

    @torch.no_grad()
    def steps(self, inputs: Tensor) -> Iterator[fx.Node]:
        """Yield every operation once it is evaluated; values that are used no more are dropped."""
        walk = self.evaluation
        walk.env, walk.args_iter = {}, iter([inputs])
        try:
            for node in self.nodes:
                walk.env[node] = walk.run_node(node)
                yield node
                for done in walk.user_to_last_uses.get(node, ()):
                    del walk.env[done]
        finally:
            walk.env = {}


class _Tracer(NodePathTracer):
    """Remembers which operation every module ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, fx.Node] = {}
        self._calls: Counter[str] = Counter()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        given = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        if isinstance(given, fx.Proxy):
            call = self._calls[name]
            self.ends[f"{name}_{call}" if call else name] = given.node
        self._calls[name] += 1
        return given
