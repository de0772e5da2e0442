from .graph import INPUTS as INPUTS
from .graph import OPERATIONS as OPERATIONS
from .graph import Graph as Graph
from .graph import choose as choose
from .recording import record as record
from .trace import trace_graph as trace_graph

__all__ = [
    "INPUTS",
    "OPERATIONS",
    "Graph",
    "choose",
    "record",
    "trace_graph",
]
