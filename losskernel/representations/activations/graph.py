"""Which operations a network evaluates on a batch, and how they follow each other."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from losskernel.data.base import Data, stack
from losskernel.errors import InputError

# What stands before the first operation.
INPUTS = "inputs"
# Probes that the network is tried on: axes of other tensors are seldom so long.
_EXAMPLES = 5


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations of a network in the order of evaluation, all of them or chosen ones, and what each follows on.

    An operation is whatever returns one floating tensor [B, ...] that depends on the inputs: modules of torch and
    functions such as a residual sum. One that returns the numbers of another unchanged (dropout in eval mode, a
    flattening) is the same point, and only another name of it.

    Attributes:
        names: in the order of evaluation.
        edges: name -> names of the nearest operations before it that are in the graph, or "inputs".
        widths: name -> numbers a probe.
        operations: name -> what the network's own graph calls the operation.
        aliases: names of modules, and of operations that change nothing -> name of the operation that they end with.
        parts: names of those that only pick numbers of another, such as a slice.
        children: names of the network's direct children.
        untraced: why torch.fx cannot follow the network; then only modules are known, each after the one before.
    """

    names: tuple[str, ...]
    edges: Mapping[str, tuple[str, ...]]
    widths: Mapping[str, int]
    operations: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    children: tuple[str, ...] = ()
    untraced: str = ""


def trace_graph(model: nn.Module, data: Data) -> Graph:
    """Return the graph of all operations of a network in eval mode, found on a few of the probes.

    By torch.fx, with names as torchvision gives them ("layer1.0.add", "layer1.0.relu_1" for the second call). A
    network that it cannot follow is run instead, and its modules form a chain in the order of evaluation.

    Raises:
        InputError: the network cannot be evaluated on the probes.
    """
    # Loaded here, for torchvision takes its time.
    from losskernel.representations.activations.fx_tracing import Untraceable
    from losskernel.representations.activations.hooks import hooked_graph
    from losskernel.representations.activations.survey import traced_graph

    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    inputs = stack(data.probes, _EXAMPLES)[0].to(device)
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


def nearest(
    names: Iterable[str], edges: Mapping[str, tuple[str, ...]], chosen: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return chosen name -> chosen names that it follows on, edges that lead over others drawn through them.

    Args:
        names: in the order of evaluation.
        edges: name -> names before it.
        chosen: some of the names -> what they are called.
    """
    ends: dict[str, tuple[str, ...]] = {INPUTS: (INPUTS,)}
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        before = tuple(dict.fromkeys(end for each in edges[name] for end in ends[each]))
        ends[name] = before
        if name in chosen:
            ends[name] = (chosen[name],)
            found[chosen[name]] = before
    return found


def is_activation(value: object, batch: int) -> bool:
    """Whether an operation returned one floating tensor with a row a probe."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0 and len(value) == batch
