"""Jobs that other machines or processes do: what became of them, and waiting for all of them."""

from losskernel.cluster.slurm import ACTIVE, Slurm
from losskernel.cluster.waiting import GONE, Watch

__all__ = ["ACTIVE", "GONE", "Slurm", "Watch"]
