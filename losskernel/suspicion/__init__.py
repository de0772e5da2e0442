"""How suspicious each probe is by the usual tools: one number a probe, [N, 1], higher = more suspicious.

Baselines: each is called with the network and the data, those that look back at training with its history as well. The
class of a probe is its target, the label as given.
"""

from losskernel.suspicion.confident_learning import ConfidentLearning
from losskernel.suspicion.early import EL2N, GraNd
from losskernel.suspicion.margins import AreaUnderMargin, Margin, Uncertainty
from losskernel.suspicion.self_influence import SelfInfluence

__all__ = ["EL2N", "AreaUnderMargin", "ConfidentLearning", "GraNd", "Margin", "SelfInfluence", "Uncertainty"]
