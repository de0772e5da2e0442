"""Kernels along training: how far they travel, what their metrics do, maps on which the probes move."""

from losskernel.dynamics.checkpoints import kept_checkpoints
from losskernel.dynamics.moving import MovingMaps, chained, displacement, moving_maps
from losskernel.dynamics.stages import dynamics

__all__ = ["MovingMaps", "chained", "displacement", "dynamics", "kept_checkpoints", "moving_maps"]
