"""Datasets: one file each, every one a function that returns Data; and wrappers, Data -> Data."""

from losskernel.data.arithmetic import arithmetic, modular_arithmetic
from losskernel.data.augmentation import FlipAndCrop
from losskernel.data.base import Data, stack
from losskernel.data.digits import digits
from losskernel.data.images.cifar import cifar10, cifar100
from losskernel.data.images.image_folder import image_folder
from losskernel.data.images.imagenet import imagenet
from losskernel.data.images.preprocessing import Preprocessing
from losskernel.data.taxonomy_images import taxonomy_images
from losskernel.data.taxonomy_vectors import taxonomy_vectors
from losskernel.data.wrappers.backdoor import Backdoor
from losskernel.data.wrappers.duplicates import Duplicates, NearDuplicates
from losskernel.data.wrappers.instance_noise import InstanceDependentNoise
from losskernel.data.wrappers.label_noise import ClassDependentNoise, SymmetricNoise
from losskernel.data.wrappers.probes import JointProbes, TrainingProbes

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
