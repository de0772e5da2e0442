from .graph import INPUTS as INPUTS
from .graph import OPERATIONS as OPERATIONS
from .graph import Graph as Graph
from .graph import choose as choose
from .recording import record as record
from .stored_point import StoredPoint as StoredPoint
from .stored_point import open_point as open_point
from .stored_point import write_point as write_point
from .trace import trace_graph as trace_graph

__all__ = [
    "INPUTS",
    "OPERATIONS",
    "Graph",
    "StoredPoint",
    "choose",
    "open_point",
    "record",
    "trace_graph",
    "write_point",
]
