"""How many probes are evaluated at once."""

import pytest
import torch

from losskernel.models import SmallCNN
from losskernel.sampling.engine.stacked_model import LARGEST, cached, choose_block, fitting, largest_activation

CPU = torch.device("cpu")


def test_the_largest_activation_is_that_of_one_probe_in_bytes() -> None:
    model = SmallCNN(3, 10, widths=(32, 64)).eval()
    assert largest_activation(model, torch.zeros(1, 3, 16, 16)) == 32 * 16 * 16 * 4
    assert largest_activation(model.double(), torch.zeros(1, 3, 16, 16).double()) == 32 * 16 * 16 * 8
    assert not any(module._forward_hooks for module in model.modules())


def test_a_block_keeps_its_largest_activation_within_16_mebibytes() -> None:
    assert cached(2**18) == 64  # Inception-v1 at 64 pixels
    assert cached(2**18 + 1) == 32
    assert cached(100) == LARGEST
    assert cached(2**30) == 16
    assert choose_block(SmallCNN(3, 10, widths=(32, 64)), torch.zeros(1, 3, 32, 32), CPU) == 128


def test_the_model_is_left_as_it_is() -> None:
    model = SmallCNN().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choose_block(model, torch.rand(1, 1, 8, 8), CPU)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("room", "block"), [(640.0, 64), (639.0, 32), (1.0, 1), (1e9, LARGEST)])
def test_memory_holds_the_largest_power_of_two_that_was_measured_to_fit(room: float, block: int) -> None:
    requested: list[int] = []

    def peak(size: int) -> float:
        requested.append(size)
        return 10.0 * size

    assert fitting(peak, room) == block
    assert max(requested) <= 2 * block  # nothing much larger than what fits is ever tried


def test_a_failed_allocation_ends_the_search() -> None:
    assert fitting(lambda size: float("inf") if size > 16 else 0.0, 1.0) == 16
