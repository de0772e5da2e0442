"""Networks with weights of their own: perceptrons, and convolutional networks for small images.

The latter are a plain CNN, and the ResNets and VGGs of studies on CIFAR. Every operation is a module of its own name,
so that activations of any of them can be recorded.
"""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from losskernel.errors import require, require_integer, require_number

_RESNET_FILTERS = 16  # of the first segment, at width 1
_VGG_FILTERS = 64
_VGG_GROWTH = (1, 2, 4, 8, 8)
# Convolutions of each segment; with the three linear layers of the original network they make up the depth.
_VGG_SEGMENTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class MLP(nn.Module):
    """inputs → hidden ReLU layers → outputs; inputs of any shape are flattened.

    Args:
        inputs: numbers per sample.
        outputs: numbers per prediction.
        hidden: width of each hidden layer.

    Raises:
        InputError: a width is not a whole number of at least 1.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        listed = not isinstance(hidden, (str, int))
        require(listed, f"model.hidden must be a list of widths, got {hidden!r}; e.g. [64,64]")
        widths = [inputs, *hidden, outputs]
        for key, width in zip(["inputs", *["hidden"] * len(hidden), "outputs"], widths, strict=True):
            require_integer(f"model.{key}", width, at_least=1)
        layers: list[nn.Module] = []  # the last ReLU is left out below
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, ...] -> [B, outputs]."""
        return self.layers(inputs.flatten(1))


class MultitaskMLP(nn.Module):
    """An MLP on (operands, one-hot task), or one disjoint tower per task.

    With towers, the weights split into blocks that do not share a task, so the posterior factorises and the
    covariance of losses across tasks is zero (the paper's Proposition 2).

    Args:
        tasks: number of tasks; the last `tasks` inputs are the one-hot task.
        operands: numbers before the one-hot task.
        outputs: numbers per prediction.
        width: units per hidden layer.
        depth: hidden layers.
        towers: one subnetwork per task in place of a shared trunk.

    Raises:
        InputError: a size is not a whole number of at least 1.
    """

    def __init__(
        self, tasks: int, operands: int = 2, outputs: int = 1, width: int = 32, depth: int = 1, towers: bool = False
    ) -> None:
        super().__init__()
        sizes = {"tasks": tasks, "operands": operands, "outputs": outputs, "width": width, "depth": depth}
        for key, value in sizes.items():
            require_integer(f"model.{key}", value, at_least=1)
        self.tasks, self.operands = tasks, operands
        hidden = [width] * depth
        if towers:
            self.towers = nn.ModuleList(MLP(operands, outputs, hidden) for _ in range(tasks))
        else:
            self.towers = None
            self.trunk = MLP(operands + tasks, width, hidden[:-1]) if depth > 1 else nn.Linear(operands + tasks, width)
            self.head = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, operands + tasks] -> [B, outputs]."""
        if self.towers is None:
            return self.head(torch.relu(self.trunk(inputs)))
        numbers, task = inputs[:, : self.operands], inputs[:, self.operands :]  # [B, operands], [B, tasks]
        # Every tower runs and the one-hot task selects one: vmap allows no control flow that depends on data.
        answers = torch.stack([tower(numbers) for tower in self.towers], dim=1)  # [B, tasks, outputs]
        return (answers * task[:, :, None]).sum(1)


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
        for before, after in itertools.pairwise([channels, *widths]):
            blocks += [_conv(before, after), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear([channels, *widths][-1], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, outputs]."""
        return self.head(self.features(inputs).mean((2, 3)))


def cifar_resnet(depth: int = 20, width: float = 1, outputs: int = 10, channels: int = 3) -> nn.Module:
    """A ResNet for images of any size; [B, channels, height, width] -> [B, outputs].

    Args:
        depth: layers with weights on the longest path, 6k + 2 for k blocks in each of three segments.
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
    _check_ends(outputs, channels)
    return CifarResNet(_filters(_RESNET_FILTERS, width), (depth - 2) // 6, outputs, channels)


def cifar_vgg(depth: int = 16, width: float = 1, outputs: int = 10, channels: int = 3) -> nn.Module:
    """A VGG with BatchNorm and one linear layer; [B, channels, height, width] -> [B, outputs].

    Four poolings halve the sides, to 2 × 2 positions from 32 × 32; images smaller than 16 × 16 reach one position
    earlier, and the poolings after that change nothing.

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
    known = isinstance(depth, int) and depth in _VGG_SEGMENTS
    require(known, f"model.depth must be one of {', '.join(map(str, _VGG_SEGMENTS))}, got {depth!r}")
    _check_ends(outputs, channels)
    return CifarVGG(_filters(_VGG_FILTERS, width), _VGG_SEGMENTS[depth], outputs, channels)


class KaimingNetwork(nn.Module):
    """A network whose initial weights are those of the reference implementation of arXiv 2206.10999.

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


class CifarResNet(KaimingNetwork):
    """3×3 stem, three segments of `blocks` blocks with 1, 2 and 4 times the filters, mean over positions, head."""

    def __init__(self, first: int, blocks: int, outputs: int, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, first)
        self.bn = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        layers: list[nn.Module] = []
        before = first
        for segment, block in itertools.product(range(3), range(blocks)):
            # The first block of every segment but the first halves the sides and doubles the filters.
            layers.append(ResidualBlock(before, first * 2**segment, 2 if segment > 0 and block == 0 else 1))
            before = first * 2**segment
        self.blocks = nn.Sequential(*layers)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(before, outputs)
        self.reset_parameters()

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, outputs]."""
        stem = self.relu(self.bn(self.conv(inputs)))
        return self.fc(self.pool(self.blocks(stem)))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; where the shape changes, a 1×1 convolution projects the shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(before, after, stride)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(after, after)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = None if stride == 1 else _projection(before, after, stride)
        self.relu2 = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, before, height, width] -> [B, after, height / stride, width / stride]."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(inputs)))))
        return self.relu2(residual + (inputs if self.shortcut is None else self.shortcut(inputs)))


class CifarVGG(KaimingNetwork):
    """Segments of 3×3 convolutions, BatchNorms and ReLUs, 2×2 maxima between them, mean over positions, head."""

    def __init__(self, first: int, segments: Sequence[int], outputs: int, channels: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        # Convolutions are numbered through: torchvision's tracer cuts the end off names such as conv1_2.
        numbers, before = itertools.count(1), channels
        # [B, C, 32, 32] is [B, 8 C, 2, 2] before the last mean.
        for segment, (growth, convolutions) in enumerate(zip(_VGG_GROWTH, segments, strict=True)):
            if segment > 0:
                # Rounding sides up changes nothing at 32 pixels, and keeps the last position of small images.
                layers[f"pool{segment}"] = nn.MaxPool2d(2, ceil_mode=True)
            for number in itertools.islice(numbers, convolutions):
                layers[f"conv{number}"] = _conv(before, growth * first)
                layers[f"bn{number}"] = nn.BatchNorm2d(growth * first)
                layers[f"relu{number}"] = nn.ReLU()
                before = growth * first
        self.features = nn.Sequential(layers)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(before, outputs)
        self.reset_parameters()

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, outputs]."""
        return self.fc(self.pool(self.features(inputs)))


class GlobalAveragePool(nn.Module):
    """The mean over positions: [B, C, height, width] -> [B, C]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Average every channel."""
        return inputs.mean((2, 3))


def _conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """A 3×3 convolution; no bias, for the BatchNorm behind it would subtract it again."""
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


def _projection(before: int, after: int, stride: int) -> nn.Module:
    """A shortcut to another shape: 1×1 convolution and BatchNorm."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(before, after, 1, stride, bias=False), bn=nn.BatchNorm2d(after)))


def _filters(base: int, width: float) -> int:
    """Return `base` filters times a width.

    Raises:
        InputError: that is no whole number of filters.
    """
    require_number("model.width", width, above=0)
    count = Fraction(width) * base  # exact: a float could round a part of a filter away
    require(
        count.denominator == 1,
        f"model.width must give a whole number of filters, got {width!r} x {base}; take a multiple of 1/{base}",
    )
    return int(count)


def _check_ends(outputs: int, channels: int) -> None:
    for key, value in (("outputs", outputs), ("channels", channels)):
        require_integer(f"model.{key}", value, at_least=1)
