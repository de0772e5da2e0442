"""Samplers: one file per sampler, each a torch Optimizer whose update is elementwise."""

from losskernel.samplers.base import Phase, Sampler, resolve_nbeta, select
from losskernel.samplers.rmsprop_sgld import RMSpropSGLD
from losskernel.samplers.sghmc import SGHMC
from losskernel.samplers.sgld import SGLD
from losskernel.samplers.sgnht import SGNHT

__all__ = ["SGHMC", "SGLD", "SGNHT", "Phase", "RMSpropSGLD", "Sampler", "resolve_nbeta", "select"]
