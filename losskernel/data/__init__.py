"""Datasets: one file each, every one a function that returns Data."""

from losskernel.data.arithmetic import arithmetic, modular_arithmetic
from losskernel.data.base import Data, stack
from losskernel.data.digits import digits

__all__ = ["Data", "arithmetic", "digits", "modular_arithmetic", "stack"]
