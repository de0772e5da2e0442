"""Points of a study in one space: its inputs, every layer, labels and loss kernels, over the same probes."""

from losskernel.representations.points.point_set import KINDS, LOSS_KERNEL, TRAINED, Placed, PointSet
from losskernel.representations.points.store import POINTS, Source, collect, open_points, sampled_point

__all__ = [
    "KINDS",
    "LOSS_KERNEL",
    "POINTS",
    "TRAINED",
    "Placed",
    "PointSet",
    "Source",
    "collect",
    "open_points",
    "sampled_point",
]
