"""Samplers: one file per sampler, each a torch Optimizer whose update is elementwise."""

from losskernel.sampling.samplers.base import Phase, Sampler, resolve_nbeta, select
from losskernel.sampling.samplers.rmsprop_sgld import RMSpropSGLD
from losskernel.sampling.samplers.sghmc import SGHMC
from losskernel.sampling.samplers.sgld import SGLD
from losskernel.sampling.samplers.sgnht import SGNHT

__all__ = ["SGHMC", "SGLD", "SGNHT", "Phase", "RMSpropSGLD", "Sampler", "resolve_nbeta", "select"]
