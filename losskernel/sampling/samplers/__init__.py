"""Samplers, each a torch Optimizer whose update is elementwise."""

from losskernel.sampling.samplers.base import Phase, Sampler, resolve_nbeta, select
from losskernel.sampling.samplers.sghmc import SGHMC, SGNHT
from losskernel.sampling.samplers.sgld import SGLD, RMSpropSGLD

__all__ = ["SGHMC", "SGLD", "SGNHT", "Phase", "RMSpropSGLD", "Sampler", "resolve_nbeta", "select"]
