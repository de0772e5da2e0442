"""Record a tensor function as a flat list of operations, and drop those that do nothing.

vmap and grad dispatch every operation through several Python layers, and leave expansions to the same shape,
products with one and constant subexpressions behind; for a small model both cost more than the arithmetic.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

aten = torch.ops.aten
_RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.reshape.default}
_TIMES_ONE = {aten.mul.Scalar, aten.mul.Tensor, aten.pow.Tensor_Scalar, aten.div.Scalar}


class Recorded:
    """Call a function of tensors through its recorded operations, one recording per shape of the inputs.

    The operations are the function's own, so the results are those of running it directly.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *inputs: Tensor) -> Any:
        """Return what the function returns."""
        key = tensors_key(*inputs)
        with torch.no_grad():
            graph = self._graphs.get(key)
            if graph is None:
                graph = self._graphs[key] = self._record(*inputs)
            return graph(*inputs)

    def _record(self, *inputs: Tensor) -> Callable[..., Any]:
        # Plain positional arguments: the graph then needs no unpacking of nested ones at every call.
        module = make_fx(lambda *flat: self._function(*flat))(*inputs)
        simplify(module)
        return module.forward


def tensors_key(*inputs: Tensor) -> tuple[object, ...]:
    """Return the shapes and types that a recording depends on."""
    return tuple((tensor.shape, tensor.dtype) for tensor in inputs)


def simplify(module: GraphModule) -> None:
    """Remove operations that change nothing, and compute once what does not depend on the inputs.

    Leaves graphs with in-place operations alone: there, a value may change after it was read.
    """
    if mutates(module):
        return
    for node in [node for node in module.graph.nodes if node.op == "call_function"]:
        if _changes_nothing(node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    _fold_constants(module)
    module.graph.eliminate_dead_code()
    module.recompile()


def mutates(module: GraphModule) -> bool:
    """Whether a graph has in-place operations."""
    targets = [node.target for node in module.graph.nodes if node.op == "call_function"]
    return any(isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable for target in targets)


def _changes_nothing(node: Node) -> bool:
    source = node.args[0] if node.args else None
    if not isinstance(source, Node):
        return False
    before, after = source.meta.get("tensor_meta"), node.meta.get("tensor_meta")
    if before is None or after is None or (tuple(before.shape), before.dtype) != (tuple(after.shape), after.dtype):
        return False
    if node.target in _RESHAPES:
        return tuple(before.stride) == tuple(after.stride)
    return node.target in _TIMES_ONE and len(node.args) == 2 and node.args[1] in (1, 1.0)


def _fold_constants(module: GraphModule) -> None:
    """Replace what follows from `ones_like` alone by tensors computed here."""
    values: dict[Node, Tensor] = {}
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten.ones_like.default and {"val", "tensor_meta"} <= node.meta.keys():
            about = node.meta["tensor_meta"]
            values[node] = torch.ones(about.shape, dtype=about.dtype, device=node.meta["val"].device)
        elif node.all_input_nodes and all(source in values for source in node.all_input_nodes):
            arguments, options = map_arg((node.args, node.kwargs), lambda source: values[source])
            values[node] = node.target(*arguments, **options)
    # Only constants that other operations read become buffers; those in between are dead code afterwards.
    for number, (node, value) in enumerate(values.items()):
        if any(user not in values for user in node.users):
            module.register_buffer(f"_constant_{number}", value)
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(f"_constant_{number}"))
