"""How suspicious each probe is by the usual tools: one number a probe, [N, 1], higher = more suspicious.

Baselines: each is called with the network and the data, those that look back at training with its history as well. The
class of a probe is its target, the label as given.
"""

from losskernel.representations.scores.confident_learning import ConfidentLearning
from losskernel.representations.scores.early_training import EL2N, GraNd
from losskernel.representations.scores.margins import AreaUnderMargin, Margin, Uncertainty
from losskernel.representations.scores.self_influence import SelfInfluence

__all__ = ["EL2N", "AreaUnderMargin", "ConfidentLearning", "GraNd", "Margin", "SelfInfluence", "Uncertainty"]
