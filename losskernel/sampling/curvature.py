"""Curvature of the training loss without forming its Hessian: power iteration on Hessian-vector products."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from losskernel.data.base import Data, size
from losskernel.data.loading import MinibatchLoader
from losskernel.data.minibatch_order import MinibatchIndices, generator
from losskernel.sampling.engine.stacked_model import StackedModel

_BATCH = 256


def power_iteration(product: Callable[[Tensor], Tensor], vector: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return (directions [C, P], eigenvalues [C]) of largest size of C symmetric matrices, from their products."""
    value = vector[:, 0]
    for _ in range(iterations):
        vector = vector / vector.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vector.dtype).tiny)
        image = product(vector)
        value, vector = (vector * image).sum(1), image
    return vector / vector.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vector.dtype).tiny), value


@torch.no_grad()
def largest_curvature(
    model: nn.Module,
    data: Data,
    moving: Sequence[str],
    *,
    samples: int = 2048,
    iterations: int = 30,
    device: torch.device | str = "cpu",
) -> float:
    """Return λ_max of the Hessian of the mean training loss at the model's weights.

    Args:
        model: the trained network; evaluated in eval mode and never changed.
        data: training set and loss.
        moving: names of the weights.
        samples: training samples at most, drawn once without replacement.
        iterations: of power iteration, from a fixed random start.
        device: where to compute.
    """
    device = torch.device(device)
    batch = min(_BATCH, size(data.train))
    count = max(1, min(samples, size(data.train)) // batch)
    load = MinibatchLoader(data, MinibatchIndices(0, [0], size(data.train), batch), device)
    batches = [load() for _ in range(count)]
    stack = StackedModel(model, data.loss, 1, moving).to(device)
    start = stack.start[None].to(device)
    views = stack.views(start)

    def product(vector: Tensor) -> Tensor:
        return torch.stack([stack.hessian_product(views, *batch, vector) for batch in batches]).mean(0)

    first = torch.randn(start.shape, generator=generator(0, 0, 0), dtype=start.dtype).to(device)
    return float(power_iteration(product, first, iterations)[1])
