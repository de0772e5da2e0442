"""The state of jobs as their folders, this machine's processes and SLURM tell it; nothing is written, no lock taken."""
