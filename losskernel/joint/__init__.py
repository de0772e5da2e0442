"""Loss kernels, layers, labels and kernels in closed form as points of one space: which is near which, and why?"""

from losskernel.joint.beyond import beyond_labels
from losskernel.joint.drawing import draw
from losskernel.joint.members import Joint
from losskernel.joint.nearest import nearest
from losskernel.joint.robustness import closed_numbers, other_space
from losskernel.joint.summary import along_training, distances, numbers
from losskernel.joint.sweep import Sweep, sweep_of
from losskernel.joint.training import Family, families, training_table, velocity_angles

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
