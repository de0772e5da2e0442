"""A multilayer perceptron with ReLU."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from losskernel.errors import require, require_integer


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
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, ...] -> [B, outputs]."""
        return self.layers(inputs.flatten(1))
