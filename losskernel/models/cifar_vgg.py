"""VGGs with BatchNorm for small pictures: a plain chain of operations, every one of its own name."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from losskernel.errors import require
from losskernel.models.cifar_layers import GlobalAveragePool, KaimingNetwork, check_ends, filters

_FILTERS = 64  # of the first segment, at width 1
_GROWTH = (1, 2, 4, 8, 8)
# Convolutions of each segment; with the three linear layers of the original network they make up the depth.
_SEGMENTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def cifar_vgg(depth: int = 16, width: float = 1, outputs: int = 10, channels: int = 3) -> nn.Module:
    """A VGG with BatchNorm and one linear layer; [B, channels, height, width] -> [B, outputs].

    Four poolings halve the sides, to 2 × 2 positions from 32 × 32; on pictures smaller than 16 × 16 the last ones find
    one position and leave it as it is.

    Args:
        depth: 11, 13, 16 or 19, named after the original, which has two more linear layers.
        width: times 64, 128, 256, 512 and 512 filters.
        outputs: numbers per prediction.
        channels: input channels.

    Raises:
        InputError: another depth, or a number out of range.

    Source: Simonyan & Zisserman 2015, arXiv 1409.1556; for CIFAR as in arXiv 2206.10999, without the biases that
        BatchNorm subtracts again.
    """
    known = isinstance(depth, int) and depth in _SEGMENTS
    require(known, f"model.depth must be one of {', '.join(map(str, _SEGMENTS))}, got {depth!r}")
    check_ends(outputs, channels)
    return CifarVGG(filters(_FILTERS, width), _SEGMENTS[depth], outputs, channels)


class CifarVGG(KaimingNetwork):
    """Segments of 3×3 convolutions, BatchNorms and ReLUs, 2×2 maxima between them, mean over positions, head."""

    def __init__(self, first: int, segments: Sequence[int], outputs: int, channels: int) -> None:
        super().__init__()
        made: OrderedDict[str, nn.Module] = OrderedDict()
        # Convolutions are counted through: of names such as conv1_2 torchvision's tracer cuts the end off.
        numbers, before = itertools.count(1), channels
        for segment, (growth, convolutions) in enumerate(zip(_GROWTH, segments, strict=True)):
            if segment > 0:
                # Rounding sides up changes nothing at 32 pixels, and keeps the last position of small pictures.
                made[f"pool{segment}"] = nn.MaxPool2d(2, ceil_mode=True)
            for number in itertools.islice(numbers, convolutions):
                made[f"conv{number}"] = nn.Conv2d(before, growth * first, 3, padding=1, bias=False)
                made[f"bn{number}"] = nn.BatchNorm2d(growth * first)
                made[f"relu{number}"] = nn.ReLU()
                before = growth * first
        self.features = nn.Sequential(made)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(before, outputs)
        self.reset_parameters()

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, outputs]."""
        return self.fc(self.pool(self.features(inputs)))
