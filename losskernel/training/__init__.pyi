from .checkpoint_files import checkpoints as checkpoints
from .checkpoint_files import load_weights as load_weights
from .checkpoint_files import save_weights as save_weights
from .supervised import fit as fit
from .supervised import retrain as retrain
from .training_settings import Training as Training

__all__ = [
    "Training",
    "checkpoints",
    "fit",
    "load_weights",
    "retrain",
    "save_weights",
]
