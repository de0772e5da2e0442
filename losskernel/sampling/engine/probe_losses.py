"""Recorded tensor functions: a flat list of operations, without those that do nothing or need not be repeated.

vmap and grad dispatch every operation through several Python layers, and leave expansions to the same shape,
products with one and constant subexpressions behind; for a small model both cost more than the arithmetic.

For one chain of a large model (`Evaluation`), BatchNorm in evaluation mode is folded into the convolution before it,
which saves a pass over the activations:
BN(conv(x, w) + b) = conv(x, w s) + (b - mean) s + beta with s = gamma / sqrt(var + eps), one number per channel.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

aten = torch.ops.aten
_RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.reshape.default}
_TIMES_ONE = {aten.mul.Scalar, aten.mul.Tensor, aten.pow.Tensor_Scalar, aten.div.Scalar}
Losses = Callable[..., Tensor]
# All with arguments (input, gamma, beta, mean, var, training, momentum, eps), and the output first.
_NORMS = {aten.native_batch_norm.default, aten.cudnn_batch_norm.default, aten.miopen_batch_norm.default}
_TRANSPOSED = 6  # index among a convolution's arguments


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
        try:
            # Plain positional arguments: the graph then needs no unpacking of nested ones at every call.
            module = traced(lambda *flat: self._function(*flat), *inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # what cannot be recorded is called, and raises what is wrong with it
            return self._function
        simplify(module)
        return module.forward


def traced(function: Callable[..., Any], *inputs: Tensor) -> GraphModule:
    """Return the operations of a function of tensors."""
    # make_fx describes every value by a tensor without content. Left to itself it makes a mode for each of them, with a
    # stack trace, which takes half of the time.
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(function)(*inputs)


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


class Evaluation:
    """Evaluate a function (inputs, targets, *weights) -> losses [b] on many batches at the same weights.

    Its operations are recorded once per shape without in-place ones, BatchNorms are folded into convolutions,
    and what follows from the weights alone is computed once per set of weights.

    Args:
        function: of tensors; without randomness.
    """

    def __init__(self, function: Losses) -> None:
        self._function = function
        # Of every shape: weights -> what follows from them alone; (inputs, targets, that) -> losses.
        self._programs: dict[object, tuple[Callable[..., tuple[Tensor, ...]], Losses]] = {}

    def at(self, weights: tuple[Tensor, ...]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return (inputs, targets) -> losses at the weights as they are when a shape is first seen."""
        prepared: dict[object, tuple[Tensor, ...]] = {}

        @torch.no_grad()
        def losses(inputs: Tensor, targets: Tensor) -> Tensor:
            key = tensors_key(inputs, targets)
            if key not in self._programs:
                self._programs[key] = _split(record(self._function, inputs, targets, *weights), 2)
            early, late = self._programs[key]
            if key not in prepared:
                prepared[key] = early(*weights)
            return late(inputs, targets, *prepared[key])

        return losses


def record(function: Losses, *inputs: Tensor) -> GraphModule:
    """Return the function's operations, without in-place ones and with BatchNorms folded.

    In-place operations stay where functionalisation fails, as with custom operators.
    """

    def plain(*flat: Tensor) -> Tensor:
        return function(*flat)

    try:
        module = traced(functionalize(plain), *inputs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        module = traced(plain, *inputs)
    _without_strides_in_place(module)
    if not mutates(module):
        simplify(module)
        fold_batch_norms(module)
    return module


def _without_strides_in_place(module: GraphModule) -> None:
    """Replace in-place changes of strides, which pooling of channels-last images makes, by views."""
    for node in module.graph.nodes:
        if node.target is aten.as_strided_.default and len(node.args[0].users) == 1:
            node.target = aten.as_strided.default
    module.recompile()


def _split(module: GraphModule, batched: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Cut a graph in two: what depends on the inputs after the first `batched` alone (weights), and the rest.

    A graph with in-place operations goes into the second part whole: they could change results of the first.
    """
    nodes, whole = list(module.graph.nodes), mutates(module)
    inputs = [node for node in nodes if node.op == "placeholder"]
    late: set[Node] = set(inputs[:batched])
    for node in nodes:
        given = node.all_input_nodes
        if node.op in ("call_function", "output") and (whole or not given or late & set(given)):
            late.add(node)
    # Results of the first part that the second reads.
    handed = [node for node in nodes if node not in late and late & node.users.keys()]
    first, second = Graph(module), Graph(module)
    copies: dict[Node, Node] = {}
    for node in nodes:
        if node not in late and (node.op != "placeholder" or node in inputs[batched:]):
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in handed))
    copies = {node: second.node_copy(node) for node in inputs[:batched]}
    copies |= {node: second.placeholder(node.name) for node in handed}
    for node in nodes:
        if node in late and node not in copies:
            copies[node] = second.node_copy(node, copies.__getitem__)
    return GraphModule(module, first).forward, GraphModule(module, second).forward


def fold_batch_norms(module: GraphModule) -> int:
    """Fold the BatchNorms of a recorded graph without in-place operations; return how many were folded.

    Only where the convolution's output goes nowhere else, and not into transposed convolutions, whose output
    channels lie along another axis of the weights.
    """
    norms = [node for node in module.graph.nodes if node.target in _NORMS and _foldable(node)]
    for norm in norms:
        with module.graph.inserting_before(norm):
            convolution = _folded(norm, module.graph.call_function)
        for user in norm.users:
            user.replace_all_uses_with(convolution)
    module.graph.eliminate_dead_code()
    module.recompile()
    return len(norms)


def _foldable(norm: Node) -> bool:
    convolution, _, _, mean, variance, training = norm.args[:6]
    if not isinstance(convolution, Node) or convolution.target is not aten.convolution.default:
        return False
    if training or mean is None or variance is None or convolution.args[_TRANSPOSED] or len(convolution.users) > 1:
        return False
    return all(user.target is operator.getitem and (user.args[1] == 0 or not user.users) for user in norm.users)


def _folded(norm: Any, call: Callable[..., Node]) -> Node:
    """Write the operations of the folded convolution."""
    convolution, gamma, beta, mean, variance, _, _, epsilon = norm.args
    inputs, lowered, bias, *geometry = convolution.args
    weight, bias = _before_cast(lowered), _before_cast(bias)
    scale = call(aten.rsqrt.default, (call(aten.add.Scalar, (variance, epsilon)),))
    if gamma is not None:
        scale = call(aten.mul.Tensor, (scale, gamma))
    column = call(aten.view.default, (scale, [-1] + [1] * (len(geometry[0]) + 1)))
    shift = mean if bias is None else call(aten.sub.Tensor, (mean, bias))
    shift = call(aten.mul.Tensor, (shift, scale))
    folded = call(aten.mul.Tensor, (weight, column))
    bias = call(aten.neg.default, (shift,)) if beta is None else call(aten.sub.Tensor, (beta, shift))
    dtype = convolution.meta["val"].dtype
    if weight is not lowered or mean.meta["val"].dtype != dtype:
        folded, bias = (call(aten._to_copy.default, (part,), {"dtype": dtype}) for part in (folded, bias))
    return call(aten.convolution.default, (inputs, folded, bias, *geometry))


def _before_cast(node: Any) -> Any:
    """Return the tensor before autocast lowered it: folding in full precision rounds the weights only once."""
    cast = isinstance(node, Node) and node.target is aten._to_copy.default
    return node.args[0] if cast else node
