"""Plain nn.Module factories; any other importable nn.Module works as well."""

from losskernel.models.cifar import cifar_resnet
from losskernel.models.cifar_vgg import cifar_vgg
from losskernel.models.mlp import MLP
from losskernel.models.multitask_mlp import MultitaskMLP
from losskernel.models.small_cnn import SmallCNN
from losskernel.models.timm_models import timm_model
from losskernel.models.torchvision_models import inception_v1, resnet18, resnet50, vgg16

__all__ = [
    "MLP",
    "MultitaskMLP",
    "SmallCNN",
    "cifar_resnet",
    "cifar_vgg",
    "inception_v1",
    "resnet18",
    "resnet50",
    "timm_model",
    "vgg16",
]
