from .confident_learning import ConfidentLearning as ConfidentLearning
from .gradient_norms import EL2N as EL2N
from .gradient_norms import GraNd as GraNd
from .gradient_norms import SelfInfluence as SelfInfluence
from .margins import AreaUnderMargin as AreaUnderMargin
from .margins import Margin as Margin
from .margins import Uncertainty as Uncertainty

__all__ = [
    "EL2N",
    "AreaUnderMargin",
    "ConfidentLearning",
    "GraNd",
    "Margin",
    "SelfInfluence",
    "Uncertainty",
]
