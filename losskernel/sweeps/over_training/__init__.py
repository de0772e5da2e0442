"""Kernels along training: how far they travel, what their metrics do, maps on which the probes move."""

from losskernel.sweeps.over_training.checkpoints import kept_checkpoints
from losskernel.sweeps.over_training.moving_maps import MovingMaps, chained, displacement, moving_maps
from losskernel.sweeps.over_training.over_training import dynamics

__all__ = ["MovingMaps", "chained", "displacement", "dynamics", "kept_checkpoints", "moving_maps"]
