"""Plain nn.Module factories; any other importable nn.Module works as well."""

from losskernel.models.mlp import MLP
from losskernel.models.multitask_mlp import MultitaskMLP
from losskernel.models.small_cnn import SmallCNN

__all__ = ["MLP", "MultitaskMLP", "SmallCNN"]
