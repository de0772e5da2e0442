"""Activations of a network's layers on the probes, as points of a space of representations."""

from losskernel.representations.activations.graph import INPUTS, Graph, trace_graph
from losskernel.representations.activations.products import MANY
from losskernel.representations.activations.record import record
from losskernel.representations.activations.selection import OPERATIONS, choose
from losskernel.representations.activations.stored_point import StoredPoint, open_point, write_point

__all__ = [
    "INPUTS",
    "MANY",
    "OPERATIONS",
    "Graph",
    "StoredPoint",
    "choose",
    "open_point",
    "record",
    "trace_graph",
    "write_point",
]
