"""A sample's loss must be its own: twelve ways to mix samples and twelve to be random are refused by name."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.sampling.loss_checks import check_function

INPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(1))


class Body(nn.Module):
    """Two layers with something between them."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.last, self.inner = nn.Linear(6, 8), nn.Linear(8, 3), inner

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x)))


class MovingStatistics(nn.BatchNorm1d):
    """Patched to adapt while it is evaluated."""

    def forward(self, x: Tensor) -> Tensor:
        self.running_mean = 0.5 * self.running_mean + 0.5 * x.mean(0)
        return super().forward(x)


class Counter(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 0.01 * self.calls)


class Rare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if torch.rand(()) < 0.05 else x


class Drop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.1)


NUMPY, TORCH = np.random.default_rng(0), torch.Generator()

MIXING: dict[str, tuple[Any, str]] = {
    "batch statistics": (nn.BatchNorm1d(8, track_running_stats=False), r"inner \(BatchNorm1d\)"),
    "softmax over the batch": (nn.Softmax(0), r"inner \(Softmax\)"),
    "centred": (lambda h: h - h.mean(0), r"Body\.forward"),
    "scaled by the largest": (lambda h: h / h.abs().max(), r"Body\.forward"),
    "scaled by the norm": (lambda h: h / h.norm(), r"Body\.forward"),
    "running sum": (lambda h: h.cumsum(0), r"Body\.forward"),
    "neighbour": (lambda h: h + 0.1 * h.roll(1, 0), r"Body\.forward"),
    "first of the batch": (lambda h: h + 0.01 * h[0], r"Body\.forward"),
    "sorted": (lambda h: h.sort(0).values, r"Body\.forward"),
    "attention over the batch": (lambda h: F.scaled_dot_product_attention(h, h, h), r"Body\.forward"),
    "length of the batch": (lambda h: h * (1 + 0.1 * (len(h) % 2)), r"Body\.forward"),
    "quantised by the batch": (lambda h: (h / h.abs().max() * 127).round() / 127, r"Body\.forward"),
}
RANDOM: dict[str, tuple[Any, str]] = {
    "functional dropout": (lambda h: F.dropout(h, 0.1), r"Body\.forward"),
    "a module's dropout": (Drop(), r"inner \(Drop\)"),
    "rrelu": (lambda h: F.rrelu(h, training=True), r"Body\.forward"),
    "noise": (lambda h: h + 0.01 * torch.randn_like(h), r"Body\.forward"),
    "gumbel": (lambda h: F.gumbel_softmax(h), r"Body\.forward"),
    "permuted features": (lambda h: h[:, torch.randperm(8)], r"Body\.forward"),
    "numpy": (lambda h: h * float(np.random.rand()), r"Body\.forward"),  # noqa: NPY002
    "python": (lambda h: h * random.random(), r"Body\.forward"),
    "an own generator of numpy": (lambda h: h * NUMPY.random(), r"Body\.forward"),
    "an own generator of torch": (lambda h: h * torch.rand((), generator=TORCH), r"Body\.forward"),
    "a counter": (Counter(), r"inner \(Counter\)"),
    "seldom": (Rare(), r"inner \(Rare\)"),
    "statistics that move": (MovingStatistics(8), r"inner \(MovingStatistics\)"),
}


def contrast(outputs: Tensor, targets: Tensor) -> Tensor:
    rows = F.normalize(outputs, dim=1)
    return F.cross_entropy(rows @ rows.T / 0.5, torch.arange(len(targets)), reduction="none")


def balanced(outputs: Tensor, targets: Tensor) -> Tensor:
    weights = 1 / F.one_hot(targets, 3).sum(0).clamp(min=1).float()
    return cross_entropy(outputs, targets) * weights[targets]


def centred(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = cross_entropy(outputs, targets)
    return losses - losses.mean()


def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets) + 0.01 * torch.randn(len(targets))


@pytest.mark.parametrize("way", MIXING)
def test_a_network_that_mixes_samples_is_refused_by_its_module(way: str) -> None:
    inner, named = MIXING[way]
    with pytest.raises(InputError, match=rf"^{named} mixes samples: the loss of sample \d+ is .* among"):
        check_function(Body(inner), cross_entropy, INPUTS, TARGETS)


@pytest.mark.parametrize("loss", [contrast, balanced, centred])
def test_a_loss_that_mixes_samples_is_refused_by_its_name(loss: Any) -> None:
    with pytest.raises(InputError, match=rf"^data\.loss \({loss.__name__}\) mixes samples"):
        check_function(Body(nn.ReLU()), loss, INPUTS, TARGETS)


@pytest.mark.parametrize("way", RANDOM)
def test_a_network_that_is_random_in_evaluation_mode_is_refused_by_its_module(way: str) -> None:
    inner, named = RANDOM[way]
    before = torch.get_rng_state(), np.random.get_state()[1].sum(), random.getstate()  # noqa: NPY002
    with pytest.raises(InputError, match=rf"^{named} is random in evaluation mode"):
        check_function(Body(inner), cross_entropy, INPUTS, TARGETS)
    after = torch.get_rng_state(), np.random.get_state()[1].sum(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize("size", [-1e9, torch.finfo(torch.float32).min, float("-inf")])
@pytest.mark.parametrize(("inner", "word"), [(lambda h: h - h.mean(0), "mixes"), (lambda h: F.dropout(h), "is random")])
def test_a_masked_class_hides_nothing(inner: Any, word: str, size: float) -> None:
    class Masked(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).masked_fill(torch.tensor([False, False, True]), size)

    with pytest.raises(InputError, match=rf"^Masked\.forward {word}"):
        check_function(Masked(inner), cross_entropy, INPUTS, TARGETS.clamp(max=1))


def test_a_random_loss_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match=r"^data\.loss \(noisy\) is random"):
        check_function(Body(nn.ReLU()), noisy, INPUTS, TARGETS)


def test_a_target_that_fails_among_others_is_one_line() -> None:
    targets = TARGETS.clone()
    targets[5] = 3
    with pytest.raises(InputError, match=r"the model and the loss fail on a batch .*: index 3 is out of bounds"):
        check_function(Body(torch.tanh), cross_entropy, INPUTS, targets)


def test_a_network_that_cannot_take_one_sample_is_refused() -> None:
    class Squeezed(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).squeeze()

    with pytest.raises(InputError, match=r"on 1 of 16 samples that they take together|for 1 samples"):
        check_function(Squeezed(nn.ReLU()), cross_entropy, INPUTS, TARGETS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("inner", [nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.LayerNorm(8)], ids=str)
def test_rounding_is_no_mixing(inner: nn.Module, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(20)], Body(inner)).to(dtype)
    check_function(deep, cross_entropy, 100 * INPUTS.to(dtype), TARGETS)
