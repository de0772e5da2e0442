"""The number of probes per forward pass: as many as fit into memory, and on a CPU into its caches."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 1024
_SMALLEST = 16
# Of the largest activation of a block. Measured on one CPU with 32 MiB of last-level cache: Inception-v1 at 64
# pixels and smaller networks are fastest from 8 to 16 MiB and lose a quarter or more at four times as much;
# at 224 pixels 16 images are best, of 51 MiB.
_CACHE = 2**24
_SHARE = 0.5  # of an accelerator's free memory; gradients and other programs need the rest


def choose_block(model: nn.Module, sample: Tensor, device: torch.device) -> int:
    """Return how many probes to evaluate at once, a power of two.

    On CUDA as many as measured memory allows, elsewhere as many as keep activations in a CPU's cache.

    Args:
        model: the network; copied.
        sample: one input [1, ...].
        device: where the probes are evaluated.
    """
    network = copy.deepcopy(model).eval().to(device)
    one = sample[:1].to(device)
    if device.type != "cuda":
        return cached(largest_activation(network, one))
    room = _SHARE * torch.cuda.mem_get_info(device)[0]
    return fitting(lambda block: _peak(network, one.expand(block, *one.shape[1:]), device), room)


def cached(activation: int) -> int:
    """Return the block whose largest activation, of so many bytes a probe, stays in the cache."""
    block = LARGEST
    while block > _SMALLEST and block * activation > _CACHE:
        block //= 2
    return block


def fitting(peak: Callable[[int], float], room: float) -> int:
    """Return the largest power of two whose peak of memory in bytes fits, measured while blocks double."""
    block = 1
    while block < LARGEST and peak(2 * block) <= room:
        block *= 2
    return block


@torch.no_grad()
def largest_activation(model: nn.Module, sample: Tensor) -> int:
    """Return the bytes of the largest output of any submodule for one input [1, ...]."""
    sizes = [0]

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.nbytes)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


@torch.no_grad()
def _peak(model: nn.Module, inputs: Tensor, device: torch.device) -> float:
    """Return the peak of memory in bytes of one forward pass; infinite if it does not fit."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        model(inputs.contiguous())
    except torch.OutOfMemoryError:
        return float("inf")
    return torch.cuda.max_memory_allocated(device) - before
