"""What sweeps around a finished run share: reading their jobs, and the page that puts the kernels side by side."""

from losskernel.sweeps.around.jobs import JOBS, Look, look, read_jobs
from losskernel.sweeps.around.page import Finding, side_by_side

__all__ = ["JOBS", "Finding", "Look", "look", "read_jobs", "side_by_side"]
