"""Samplers: one file per sampler, each a torch Optimizer whose update is elementwise."""

from losskernel.samplers.base import Phase, Sampler, resolve_nbeta, select
from losskernel.samplers.rmsprop_sgld import RMSpropSGLD
from losskernel.samplers.sgld import SGLD

__all__ = ["SGLD", "Phase", "RMSpropSGLD", "Sampler", "resolve_nbeta", "select"]
