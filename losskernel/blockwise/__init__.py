"""Kernels of single blocks of a network's weights: which part of it couples which inputs."""

from losskernel.blockwise.blocks import block_name, blocks_of
from losskernel.blockwise.coupling import GroupCoupling, group_coupling, shared_neighbours
from losskernel.blockwise.kernels import blockwise

__all__ = ["GroupCoupling", "block_name", "blocks_of", "blockwise", "group_coupling", "shared_neighbours"]
