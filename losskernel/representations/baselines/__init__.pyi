from .features import Gradients as Gradients
from .features import Influence as Influence
from .features import Layers as Layers
from .features import Logits as Logits
from .features import Penultimate as Penultimate
from .features import ProjectedMargins as ProjectedMargins
from .perturbations import AdversarialFlips as AdversarialFlips
from .perturbations import NoiseFlips as NoiseFlips
from .retraining import Retrained as Retrained

__all__ = [
    "AdversarialFlips",
    "Gradients",
    "Influence",
    "Layers",
    "Logits",
    "NoiseFlips",
    "Penultimate",
    "ProjectedMargins",
    "Retrained",
]
