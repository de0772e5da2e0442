"""Many runs side by side: metrics against what was swept, similarity of their kernels, the stable region."""

from losskernel.sweeps.compare import ALIKE, Comparison, compare
from losskernel.sweeps.read_runs import FAILURE, find_runs

__all__ = ["ALIKE", "FAILURE", "Comparison", "compare", "find_runs"]
