from .networks import MLP as MLP
from .networks import MultitaskMLP as MultitaskMLP
from .networks import SmallCNN as SmallCNN
from .networks import cifar_resnet as cifar_resnet
from .networks import cifar_vgg as cifar_vgg
from .pretrained import inception_v1 as inception_v1
from .pretrained import resnet18 as resnet18
from .pretrained import resnet50 as resnet50
from .pretrained import squeezenet1_1 as squeezenet1_1
from .pretrained import timm_model as timm_model
from .pretrained import vgg16 as vgg16

__all__ = [
    "MLP",
    "MultitaskMLP",
    "SmallCNN",
    "cifar_resnet",
    "cifar_vgg",
    "inception_v1",
    "resnet18",
    "resnet50",
    "squeezenet1_1",
    "timm_model",
    "vgg16",
]
