"""Sources of points: what a network does layer by layer, what it is to learn, and further kernels."""

from losskernel.sources.targets import Targets

__all__ = ["Targets"]
