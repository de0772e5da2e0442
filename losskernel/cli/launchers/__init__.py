"""Jobs that other machines or processes do: what became of them, and waiting for all of them."""

from losskernel.cli.launchers.slurm_states import ACTIVE, Slurm
from losskernel.cli.launchers.waiting import GONE, Watch

__all__ = ["ACTIVE", "GONE", "Slurm", "Watch"]
