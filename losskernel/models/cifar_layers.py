"""What the CIFAR networks of arXiv 2206.10999 share: their initial weights, their widths and their last pooling."""

from fractions import Fraction

from torch import Tensor, nn

from losskernel.errors import require, require_integer, require_number


class GlobalAveragePool(nn.Module):
    """The mean over positions: [B, C, height, width] -> [B, C]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Average every channel."""
        return inputs.mean((2, 3))


class KaimingNetwork(nn.Module):
    """A network whose initial weights are those of the paper's own code.

    They are drawn here and not in the layers: subclasses of torch's layers would be traced into by torch.fx, where
    BatchNorm's checks fail, and every operation would lose its module's name.
    """

    def reset_parameters(self) -> None:
        """Draw Kaiming-normal weights, BatchNorm scales uniform in [0, 1] and no shifts; a head's bias stays torch's.

        Source: He et al. 2015, arXiv 1502.01852; github.com/facebookresearch/open_lth.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight)
                nn.init.zeros_(module.bias)


def filters(base: int, width: float) -> int:
    """Return `base` filters times a width.

    Raises:
        InputError: that is no whole number of filters.
    """
    require_number("model.width", width, above=0)
    count = Fraction(width) * base
    require(
        count.denominator == 1,
        f"model.width must give a whole number of filters, got {width!r} x {base}; take a multiple of 1/{base}",
    )
    return int(count)


def check_ends(outputs: int, channels: int) -> None:
    """Raise InputError unless both ends of a network have a size."""
    for key, value in (("outputs", outputs), ("channels", channels)):
        require_integer(f"model.{key}", value, at_least=1)
