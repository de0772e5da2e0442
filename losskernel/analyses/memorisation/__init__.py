"""Which probes does the network merely remember? Scores of suspicion from one kernel, and what they find."""

from losskernel.analyses.memorisation.scores import kernel_scores

__all__ = ["kernel_scores"]
