"""Activations of a network's layers on the probes, as points of a space of representations."""

from losskernel.activations.choosing import OPERATIONS, choose
from losskernel.activations.graph import INPUTS, Graph, trace_graph
from losskernel.activations.products import MANY
from losskernel.activations.recording import record
from losskernel.activations.stored import StoredPoint, open_point, write_point

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
