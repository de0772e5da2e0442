"""BatchNorm in evaluation mode folded into the convolution before it: one pass over the activations less.

BN(conv(x, w) + b) = conv(x, w s) + (b - mean) s + beta with s = gamma / sqrt(var + eps), one number per channel.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
# All with arguments (input, gamma, beta, mean, var, training, momentum, eps), and the output first.
_NORMS = {aten.native_batch_norm.default, aten.cudnn_batch_norm.default, aten.miopen_batch_norm.default}
_TRANSPOSED = 6  # place among a convolution's arguments


def fold_batch_norms(module: GraphModule) -> int:
    """Fold what can be folded in a recorded graph without in-place operations; return how many were.

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
    """Return what autocast lowered: folded before that, weights are rounded once."""
    cast = isinstance(node, Node) and node.target is aten._to_copy.default
    return node.args[0] if cast else node
