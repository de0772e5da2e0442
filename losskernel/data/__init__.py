"""Datasets: one file each, every one a function that returns Data."""

from losskernel.data.arithmetic import arithmetic, modular_arithmetic
from losskernel.data.base import Data, stack
from losskernel.data.cifar import cifar10, cifar100
from losskernel.data.digits import digits
from losskernel.data.image_folder import image_folder
from losskernel.data.imagenet import imagenet
from losskernel.data.preprocessing import Preprocessing
from losskernel.data.taxonomy_images import taxonomy_images

__all__ = [
    "Data",
    "Preprocessing",
    "arithmetic",
    "cifar10",
    "cifar100",
    "digits",
    "image_folder",
    "imagenet",
    "modular_arithmetic",
    "stack",
    "taxonomy_images",
]
