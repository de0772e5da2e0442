"""The order of an image's numbers in memory: channels last, where the model is convolutional and can read it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def choose_layout(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor
) -> torch.memory_format:
    """Return the order in which images [b, c, h, w] go through the model fastest, by rule: nothing is timed.

    Channels last lets convolutions read neighbouring numbers: on CPUs without reordering, on CUDA's tensor
    cores natively. A model that views its activations as if channels came first gets them in that order.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions or inputs.ndim != 4 or inputs.device.type not in ("cpu", "cuda"):
        return torch.contiguous_format
    if any(map(_corrupts_memory, convolutions)):
        return torch.contiguous_format
    inputs, targets = inputs[:2], targets[:2]
    # A model may read positions in memory order, which would change its outputs without an error.
    with torch.no_grad():
        plain = loss(model(arranged(inputs, torch.contiguous_format)), targets)
        try:
            other = loss(model(arranged(inputs, torch.channels_last)), targets)
        except RuntimeError:  # view() of what is no longer contiguous
            return torch.contiguous_format
    same = torch.allclose(plain, other, rtol=1e-2, atol=1e-4, equal_nan=True)
    return torch.channels_last if same else torch.contiguous_format


def arranged(inputs: Tensor, layout: torch.memory_format | None) -> Tensor:
    """Return a copy of the inputs, which the model may change; images [b, c, h, w] in the given order."""
    if layout != torch.channels_last:
        return inputs.clone()
    if inputs.shape[1] > 1:
        return inputs.clone(memory_format=torch.channels_last)
    # With one channel both orders are the same numbers, and only the strides can say which is meant.
    _, _, height, width = inputs.shape
    copied = inputs.clone(memory_format=torch.contiguous_format)
    return copied.as_strided(inputs.shape, (height * width, 1, width, 1))


def _corrupts_memory(convolution: nn.Conv2d) -> bool:
    """Whether a convolution's backward pass on the CPU writes beyond its memory where channels come last.

    Seen with torch 2.15: strided 1×1 convolutions of fewer than 8 input channels abort the process, or another part of
    it later. Narrow ResNets have such shortcuts.
    """
    strided = max(convolution.stride) > 1 and max(convolution.kernel_size) == 1
    return strided and convolution.in_channels // convolution.groups < 8
