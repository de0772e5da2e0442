"""Kernels of single blocks of a network's weights: which part of it couples which inputs."""

from losskernel.sweeps.over_blocks.blocks import block_name, blocks_of
from losskernel.sweeps.over_blocks.group_coupling import GroupCoupling, group_coupling, shared_neighbours
from losskernel.sweeps.over_blocks.over_blocks import blockwise

__all__ = ["GroupCoupling", "block_name", "blocks_of", "blockwise", "group_coupling", "shared_neighbours"]
