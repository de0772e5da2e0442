"""Recorded functions: the same results to the last bit, with fewer operations."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from losskernel.losses import cross_entropy, squared_error
from losskernel.models import MLP, MultitaskMLP, SmallCNN
from losskernel.sampling.engine.probe_losses import Recorded, simplify

CHAINS = 3
CASES = {
    "regression": (MultitaskMLP(2), squared_error, torch.randn(CHAINS, 16, 4), torch.randn(CHAINS, 16)),
    "towers": (MultitaskMLP(2, towers=True), squared_error, torch.randn(CHAINS, 16, 4), torch.randn(CHAINS, 16)),
    "classes": (MLP(64, 10), cross_entropy, torch.rand(CHAINS, 16, 64), torch.randint(0, 10, (CHAINS, 16))),
    "cnn": (SmallCNN().eval(), cross_entropy, torch.rand(CHAINS, 16, 1, 8, 8), torch.randint(0, 10, (CHAINS, 16))),
}


def gradients(model: nn.Module, loss: Any) -> Any:
    """A stacked gradient as a function of (inputs, targets, *weights)."""
    names = [name for name, _ in model.named_parameters()]

    def one(weights: tuple[Tensor, ...], inputs: Tensor, targets: Tensor) -> Tensor:
        return loss(functional_call(model, dict(zip(names, weights, strict=True)), (inputs,)), targets).mean()

    def function(inputs: Tensor, targets: Tensor, *weights: Tensor) -> Any:
        result, value = grad_and_value(lambda w: vmap(one)(w, inputs, targets).sum())(weights)
        return (*result, value)

    return function


def stacked(model: nn.Module) -> list[Tensor]:
    """Slightly different weights for every chain."""
    return [weight.detach() + 0.1 * torch.randn(CHAINS, *weight.shape) for weight in model.parameters()]


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_gradient_is_the_direct_one_to_the_last_bit(case: str) -> None:
    model, loss, inputs, targets = CASES[case]
    function = gradients(model, loss)
    recorded = Recorded(function)
    for _ in range(2):  # recorded on the first call, replayed on other numbers by the second
        weights = stacked(model)
        direct = function(inputs, targets, *weights)
        assert all(torch.equal(a, b) for a, b in zip(recorded(inputs, targets, *weights), direct, strict=True))


def test_simplifying_removes_operations_and_changes_no_result() -> None:
    model, loss, inputs, targets = CASES["regression"]
    function, weights = gradients(model, loss), stacked(model)
    module = make_fx(lambda *flat: function(*flat))(inputs, targets, *weights)
    before, count = module(inputs, targets, *weights), len(module.graph.nodes)
    simplify(module)
    assert len(module.graph.nodes) < 0.75 * count
    assert all(torch.equal(a, b) for a, b in zip(module(inputs, targets, *weights), before, strict=True))


def test_graphs_with_in_place_operations_are_left_alone() -> None:
    def function(x: Tensor) -> Tensor:
        copy = x.clone()
        seen = copy * 1
        copy.add_(1)
        return seen + copy

    x = torch.randn(4)
    assert torch.equal(Recorded(function)(x), function(x))


def test_every_shape_is_recorded_on_its_own() -> None:
    recorded = Recorded(lambda x: x.sum() * len(x))
    for length in (2, 5):
        assert recorded(torch.ones(length)) == length**2
