"""Loss kernels, layers, labels and kernels in closed form as points of one space: which is near which, and why?"""

from losskernel.analyses.joint.along_training import Family, families, training_table, velocity_angles
from losskernel.analyses.joint.beyond_labels import beyond_labels
from losskernel.analyses.joint.drawing import draw
from losskernel.analyses.joint.kernels import Joint
from losskernel.analyses.joint.localization_sweep import Sweep, sweep_of
from losskernel.analyses.joint.nearest_layer import nearest
from losskernel.analyses.joint.other_spaces import closed_numbers, other_space
from losskernel.analyses.joint.summary import along_training, distances, numbers

__all__ = [
    "Family",
    "Joint",
    "Sweep",
    "along_training",
    "beyond_labels",
    "closed_numbers",
    "distances",
    "draw",
    "families",
    "nearest",
    "numbers",
    "other_space",
    "sweep_of",
    "training_table",
    "velocity_angles",
]
