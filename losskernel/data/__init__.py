"""Datasets: one file each, every one a function that returns Data; and wrappers, Data -> Data."""

from losskernel.data.arithmetic import arithmetic, modular_arithmetic
from losskernel.data.augmentation import FlipAndCrop
from losskernel.data.backdoor import Backdoor
from losskernel.data.base import Data, stack
from losskernel.data.cifar import cifar10, cifar100
from losskernel.data.digits import digits
from losskernel.data.duplicates import Duplicates, NearDuplicates
from losskernel.data.image_folder import image_folder
from losskernel.data.imagenet import imagenet
from losskernel.data.instance_noise import InstanceDependentNoise
from losskernel.data.label_noise import ClassDependentNoise, SymmetricNoise
from losskernel.data.preprocessing import Preprocessing
from losskernel.data.probing import JointProbes, TrainingProbes
from losskernel.data.taxonomy_images import taxonomy_images
from losskernel.data.taxonomy_vectors import taxonomy_vectors

__all__ = [
    "Backdoor",
    "ClassDependentNoise",
    "Data",
    "Duplicates",
    "FlipAndCrop",
    "InstanceDependentNoise",
    "JointProbes",
    "NearDuplicates",
    "Preprocessing",
    "SymmetricNoise",
    "TrainingProbes",
    "arithmetic",
    "cifar10",
    "cifar100",
    "digits",
    "image_folder",
    "imagenet",
    "modular_arithmetic",
    "stack",
    "taxonomy_images",
    "taxonomy_vectors",
]
