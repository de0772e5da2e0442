from .base import Data as Data
from .base import stack as stack
from .images.image_files import FlipAndCrop as FlipAndCrop
from .images.image_files import Preprocessing as Preprocessing
from .images.image_folders import image_folder as image_folder
from .images.image_folders import imagenet as imagenet
from .images.image_folders import tiny_imagenet as tiny_imagenet
from .images.small_images import cifar10 as cifar10
from .images.small_images import cifar100 as cifar100
from .images.small_images import digits as digits
from .synthetic import arithmetic as arithmetic
from .synthetic import modular_arithmetic as modular_arithmetic
from .synthetic import taxonomy_images as taxonomy_images
from .synthetic import taxonomy_vectors as taxonomy_vectors
from .wrappers.label_noise import ClassDependentNoise as ClassDependentNoise
from .wrappers.label_noise import HumanLabels as HumanLabels
from .wrappers.label_noise import InstanceDependentNoise as InstanceDependentNoise
from .wrappers.label_noise import SymmetricNoise as SymmetricNoise
from .wrappers.planted_samples import Backdoor as Backdoor
from .wrappers.planted_samples import Duplicates as Duplicates
from .wrappers.planted_samples import NearDuplicates as NearDuplicates
from .wrappers.probes import JointProbes as JointProbes
from .wrappers.probes import TrainingProbes as TrainingProbes

__all__ = [
    "Backdoor",
    "ClassDependentNoise",
    "Data",
    "Duplicates",
    "FlipAndCrop",
    "HumanLabels",
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
    "tiny_imagenet",
]
