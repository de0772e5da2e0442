from .point_set import KINDS as KINDS
from .point_set import LOSS_KERNEL as LOSS_KERNEL
from .point_set import TRAINED as TRAINED
from .point_set import NamedPoint as NamedPoint
from .point_set import PointSet as PointSet
from .point_set import sampled_point as sampled_point
from .store import POINTS as POINTS
from .store import Source as Source
from .store import StoredPoint as StoredPoint
from .store import collect as collect
from .store import open_point as open_point
from .store import open_points as open_points
from .store import write_point as write_point

__all__ = [
    "KINDS",
    "LOSS_KERNEL",
    "POINTS",
    "TRAINED",
    "NamedPoint",
    "PointSet",
    "Source",
    "StoredPoint",
    "collect",
    "open_point",
    "open_points",
    "sampled_point",
    "write_point",
]
