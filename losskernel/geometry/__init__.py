"""Metric spaces whose points are kernels over the same inputs: how far apart are two representations?"""

from losskernel.geometry.angular_cka import AngularCKA
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.point import Point
from losskernel.geometry.scaling import Layout, classical_scaling

__all__ = ["AngularCKA", "Arrangement", "Layout", "Point", "classical_scaling"]
