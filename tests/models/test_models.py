import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.models import MLP, MultitaskMLP, SmallCNN, cifar_resnet
from losskernel.models.memory_format import choose_layout


def _samples(tasks: int, count: int = 12) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.cat([torch.rand(count, 2, generator=rng), one_hot(torch.arange(count) % tasks, tasks)], dim=1)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 6, 7)])
def test_an_mlp_has_the_widths_asked_for(hidden: tuple[int, ...]) -> None:
    model = MLP(12, 3, hidden)
    widths = [12, *hidden, 3]
    expected = sum((before + 1) * after for before, after in itertools.pairwise(widths))
    assert sum(weight.numel() for weight in model.parameters()) == expected
    assert model(torch.zeros(2, 3, 4)).shape == (2, 3)


def test_an_mlp_is_linear_without_hidden_layers_and_not_with_them() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 4), torch.randn(20, 4)
    for hidden, linear in (((), True), ((16,), False)):
        model = MLP(4, 2, hidden)
        middle, mean = model((x + y) / 2), (model(x) + model(y)) / 2
        assert torch.allclose(middle, mean, atol=1e-6) == linear


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("towers", [False, True])
def test_a_multitask_mlp_answers_once_a_sample(depth: int, towers: bool) -> None:
    model = MultitaskMLP(tasks=3, outputs=2, width=8, depth=depth, towers=towers)
    assert model(_samples(3)).shape == (12, 2)
    hidden = [name for name, weight in model.named_parameters() if weight.shape[0] == 8 and weight.ndim == 2]
    assert len(hidden) == depth * (3 if towers else 1)


def test_towers_share_no_weights_between_tasks() -> None:
    torch.manual_seed(0)
    model = MultitaskMLP(tasks=2, towers=True)
    inputs = _samples(2)
    of_first = inputs[inputs[:, 2] == 1]
    model(of_first).sum().backward()
    gradients = {name: weight.grad.abs().sum().item() for name, weight in model.named_parameters()}
    assert all(value == 0 for name, value in gradients.items() if name.startswith("towers.1"))
    assert any(value > 0 for name, value in gradients.items() if name.startswith("towers.0"))
    torch.testing.assert_close(model(of_first), model.towers[0](of_first[:, :2]))


def test_a_shared_trunk_is_shared() -> None:
    torch.manual_seed(0)
    model = MultitaskMLP(tasks=2)
    inputs = _samples(2)
    for task in (0, 1):
        model.zero_grad()
        model(inputs[inputs[:, 2 + task] == 1]).sum().backward()
        assert model.head.weight.grad.abs().sum() > 0


def test_a_small_cnn_pools_any_image_and_ends_in_a_linear_head() -> None:
    model = SmallCNN(channels=3, outputs=5, widths=(4, 6)).eval()
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert model(torch.zeros(2, 3, 16, 12)).shape == (2, 5)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 2
    assert [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)] == [4, 6]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP(0, 3), "model.inputs must be >= 1, got 0"),
        (lambda: MLP(3, 1.5), "model.outputs must be a whole number, got 1.5"),
        (lambda: MLP(3, 1, [8, 0]), "model.hidden must be >= 1, got 0"),
        (lambda: MLP(3, 1, 8), r"model.hidden must be a list of widths, got 8; e.g. \[64,64\]"),
        (lambda: MLP(3, 1, "8"), "model.hidden must be a list of widths, got '8'"),
        (lambda: MultitaskMLP(0), "model.tasks must be >= 1"),
        (lambda: MultitaskMLP(2, operands=0), "model.operands must be >= 1"),
        (lambda: MultitaskMLP(2, outputs=0), "model.outputs must be >= 1"),
        (lambda: MultitaskMLP(2, width=0), "model.width must be >= 1"),
        (lambda: MultitaskMLP(2, depth=0), "model.depth must be >= 1"),
        (lambda: MultitaskMLP(2.0), "model.tasks must be a whole number"),
        (lambda: SmallCNN(widths=16), r"model.widths must be a list, got 16; e.g. \[16,32\]"),
        (lambda: SmallCNN(widths="16"), "model.widths must be a list"),
        (lambda: SmallCNN(widths=[16, 0]), "model.widths must be >= 1"),
        (lambda: SmallCNN(channels=0), "must be >= 1"),
        (lambda: SmallCNN(outputs="ten"), "must be a whole number, got 'ten'"),
    ],
)
def test_a_width_that_is_no_width_is_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_narrow_residual_networks_keep_channels_first() -> None:
    # Strided 1x1 convolutions of few channels corrupt the heap in their backward pass where channels come last.
    images, classes = torch.randn(2, 3, 16, 16), torch.zeros(2).long()
    layouts = [choose_layout(cifar_resnet(8, width).eval(), cross_entropy, images, classes) for width in (1, 0.5, 0.25)]
    assert layouts == [torch.channels_last, torch.channels_last, torch.contiguous_format]
