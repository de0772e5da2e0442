"""Points of a study in one space: its inputs, every layer, labels and loss kernels, over the same probes."""

from losskernel.points.placed import KINDS, TRAINED, Placed, PointSet
from losskernel.points.store import POINTS, Source, collect, open_points, sampled_point

__all__ = ["KINDS", "POINTS", "TRAINED", "Placed", "PointSet", "Source", "collect", "open_points", "sampled_point"]
