"""A small convolutional network with BatchNorm."""

from collections.abc import Sequence

from torch import Tensor, nn

from losskernel.errors import require, require_integer


class SmallCNN(nn.Module):
    """Blocks of 3×3 convolution, BatchNorm, ReLU, 2×2 pooling; then a mean over positions and a linear head.

    Args:
        channels: input channels.
        outputs: numbers per prediction.
        widths: channels of each block.

    Raises:
        InputError: a width is not a whole number of at least 1.
    """

    def __init__(self, channels: int = 1, outputs: int = 10, widths: Sequence[int] = (16, 32)) -> None:
        super().__init__()
        require(not isinstance(widths, (str, int)), f"model.widths must be a list, got {widths!r}; e.g. [16,32]")
        for width in [channels, outputs, *widths]:
            require_integer("model.widths", width, at_least=1)
        blocks: list[nn.Module] = []
        before = channels
        for width in widths:
            convolution = nn.Conv2d(before, width, 3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(before, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, outputs]."""
        return self.head(self.features(inputs).mean((2, 3)))
