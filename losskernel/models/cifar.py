"""ResNets for small pictures: three segments of residual blocks, every operation of its own name."""

from torch import Tensor, nn

from losskernel.errors import require, require_integer
from losskernel.models.cifar_layers import GlobalAveragePool, KaimingNetwork, check_ends, filters

_FILTERS = 16  # of the first segment, at width 1


def cifar_resnet(depth: int = 20, width: float = 1, outputs: int = 10, channels: int = 3) -> nn.Module:
    """A ResNet for pictures of any size; [B, channels, height, width] -> [B, outputs].

    Args:
        depth: layers with weights on the longest way, 6k + 2 for k blocks in each of three segments.
        width: times 16, 32 and 64 filters.
        outputs: numbers per prediction.
        channels: input channels.

    Raises:
        InputError: a depth that is none of 8, 14, 20, ..., or another number out of range.

    Source: He et al. 2016, section 4.2, with projections for shortcuts as in arXiv 2206.10999.
    """
    require_integer("model.depth", depth, at_least=8)
    lower = depth - (depth - 2) % 6
    require(depth == lower, f"model.depth must be 6k + 2, got {depth}; take {lower} or {lower + 6}")
    check_ends(outputs, channels)
    return CifarResNet(filters(_FILTERS, width), (depth - 2) // 6, outputs, channels)


class CifarResNet(KaimingNetwork):
    """3×3 stem, three segments of `blocks` blocks with 1, 2 and 4 times the filters, mean over positions, head."""

    def __init__(self, first: int, blocks: int, outputs: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        made: list[nn.Module] = []
        before = first
        for segment in range(3):
            for block in range(blocks):
                made.append(ResidualBlock(before, first * 2**segment, 2 if segment > 0 and block == 0 else 1))
                before = first * 2**segment
        self.blocks = nn.Sequential(*made)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(before, outputs)
        self.reset_parameters()

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, outputs]."""
        stem = self.relu(self.bn(self.conv(inputs)))
        return self.fc(self.pool(self.blocks(stem)))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; the shortcut projects where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = None if stride == 1 else Projection(before, after, stride)
        self.relu2 = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, before, height, width] -> [B, after, height / stride, width / stride]."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(inputs)))))
        return self.relu2(residual + (inputs if self.shortcut is None else self.shortcut(inputs)))


class Projection(nn.Module):
    """A shortcut to another shape: 1×1 convolution and BatchNorm."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, stride, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, before, height, width] -> [B, after, height / stride, width / stride]."""
        return self.bn(self.conv(inputs))
