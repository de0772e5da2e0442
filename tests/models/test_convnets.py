"""The CIFAR networks of arXiv 2206.10999: sizes, names, initial weights, and that they can be traced and stacked."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from pictures import settled
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from losskernel.data import digits
from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.models import cifar_resnet, cifar_vgg
from losskernel.sampling.engine.stacked_model import StackedModel
from losskernel.training import Training, retrain

SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: cifar_resnet(14, width=0.25),
    "vgg": lambda: cifar_vgg(13, width=0.125),
}


def _seeded(name: str, seed: int = 0) -> nn.Module:
    """A small network whose BatchNorms know some noise."""
    torch.manual_seed(seed)
    return settled(SMALL[name]())


def _pictures(side: int = 16, count: int = 5) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def _numbers(model: nn.Module, without: str = "none") -> int:
    return sum(weight.numel() for name, weight in model.named_parameters() if without not in name)


# --- sizes


@pytest.mark.parametrize(("depth", "published"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")])
def test_resnets_have_the_published_sizes(depth: int, published: str) -> None:
    with torch.device("meta"):
        model = cifar_resnet(depth)
    # Table 6 of He et al. counts shortcuts without weights; two projections of 1 x 1 and their BatchNorms come on top.
    digits_after_point = len(published.split(".")[1])
    assert f"{_numbers(model, without='shortcut') / 1e6:.{digits_after_point}f}" == published
    assert _numbers(model) - _numbers(model, without="shortcut") == 16 * 32 + 32 * 64 + 2 * (32 + 64)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vggs_have_the_convolutions_of_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        plain, other = cifar_vgg(depth), getattr(torchvision.models, f"vgg{depth}_bn")()
    shapes = [
        [module.weight.shape for module in model.modules() if isinstance(module, nn.Conv2d)] for model in (plain, other)
    ]
    assert shapes[0] == shapes[1]
    norms = [module.num_features for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == [shape[0] for shape in shapes[0]]
    assert _numbers(plain) == sum(shape.numel() for shape in shapes[0]) + 2 * sum(norms) + 513 * 10


@pytest.mark.parametrize("depth", [8, 14, 20, 26])
def test_the_depth_counts_layers_with_weights(depth: int) -> None:
    model = cifar_resnet(depth, width=0.25)
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "shortcut" not in name
    ]
    assert len(layers) == depth
    vgg = [module for module in cifar_vgg(19, width=0.125).modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(vgg) == 19 - 2  # the two linear layers that only the original has


@pytest.mark.parametrize("width", [0.25, 1, 2, 10])
def test_the_width_multiplies_all_filters(width: float) -> None:
    with torch.device("meta"):
        resnet, vgg = cifar_resnet(8, width), cifar_vgg(11, width)
    widths = [module.out_channels for module in resnet.modules() if isinstance(module, nn.Conv2d)]
    # The last convolution of the second and of the third segment is the shortcut's.
    assert widths == [width * 16 * item for item in (1, 1, 1, 2, 2, 2, 4, 4, 4)]
    widths = [module.out_channels for module in vgg.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [width * 64 * item for item in (1, 2, 4, 4, 8, 8, 8, 8)]


def test_segments_halve_the_sides() -> None:
    resnet, vgg = cifar_resnet(14, width=0.25).eval(), cifar_vgg(16, width=0.125).eval()
    names = ["relu", *(f"blocks.{number}.relu2" for number in range(6))]
    seen = create_feature_extractor(resnet, names)(_pictures(32))
    assert [tuple(item.shape[1:]) for item in seen.values()] == [
        *[(4, 32, 32)] * 3,
        *[(8, 16, 16)] * 2,
        *[(16, 8, 8)] * 2,
    ]
    seen = create_feature_extractor(vgg, [f"features.pool{number}" for number in range(1, 5)])(_pictures(32))
    assert [item.shape[-1] for item in seen.values()] == [16, 8, 4, 2]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("side", [8, 15, 32])
def test_pictures_of_any_size_and_any_channels_are_answered(name: str, side: int) -> None:
    assert SMALL[name]().eval()(_pictures(side)).shape == (5, 10)
    build = cifar_resnet if name == "resnet" else cifar_vgg
    model = build({"resnet": 8, "vgg": 11}[name], width=0.25, outputs=7, channels=1).eval()
    assert model(torch.zeros(3, 1, side, 8)).shape == (3, 7)


def test_poolings_that_find_one_position_leave_it() -> None:
    model = _seeded("vgg")
    rounded_down = copy.deepcopy(model)
    for module in rounded_down.modules():
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = False
    for side in (16, 32):  # the paper's own
        assert torch.equal(model(_pictures(side)), rounded_down(_pictures(side)))
    seen = create_feature_extractor(model, ["features.relu8", "features.pool4"])(_pictures(8))
    assert torch.equal(seen["features.relu8"], seen["features.pool4"])
    assert seen["features.pool4"].shape[2:] == (1, 1)


# --- one operation, one name


@pytest.mark.parametrize("name", SMALL)
def test_every_operation_has_its_own_name(name: str) -> None:
    model = _seeded(name)
    calls = dict.fromkeys((item for item, module in model.named_modules() if isinstance(module, nn.ReLU)), 0)
    for item in calls:
        model.get_submodule(item).register_forward_hook(lambda *_, item=item: calls.update({item: calls[item] + 1}))
    model(_pictures())
    assert set(calls.values()) == {1}
    names = get_graph_node_names(model)[1]
    assert len(names) == len(set(names))
    modules = {item for item, module in model.named_modules() if not list(module.children())}
    functions = {item for item in names if item.split(".")[-1] in ("inputs", "add")}
    assert {item.removesuffix(".mean") for item in names} - functions == modules
    assert len(functions) == 1 + (6 if name == "resnet" else 0)


def test_the_names_along_a_resnet() -> None:
    block = ["conv1", "bn1", "relu1", "conv2", "bn2"]
    projected = [*block, "shortcut.conv", "shortcut.bn", "add", "relu2"]
    named = [
        f"blocks.{number}.{item}"
        for number in range(3)
        for item in (projected if number else [*block, *projected[-2:]])
    ]
    assert get_graph_node_names(cifar_resnet(8))[1] == ["inputs", "conv", "bn", "relu", *named, "pool.mean", "fc"]


@pytest.mark.parametrize("name", SMALL)
def test_a_traced_network_is_the_network(name: str) -> None:
    model = _seeded(name)
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(_pictures()), model(_pictures()))


def test_a_block_adds_its_input_to_what_it_computes() -> None:
    model = _seeded("resnet")
    seen = create_feature_extractor(model, ["blocks.0.relu2", "blocks.1.bn2", "blocks.1.add", "blocks.1.relu2"])(
        _pictures()
    )
    assert torch.equal(seen["blocks.1.add"], seen["blocks.0.relu2"] + seen["blocks.1.bn2"])
    assert torch.equal(seen["blocks.1.relu2"], seen["blocks.1.add"].relu())
    projected = create_feature_extractor(model, ["blocks.2.shortcut.bn", "blocks.2.bn2", "blocks.2.add"])(_pictures())
    summed = projected["blocks.2.shortcut.bn"] + projected["blocks.2.bn2"]
    assert torch.equal(projected["blocks.2.add"], summed)


@pytest.mark.parametrize("name", SMALL)
def test_stacked_networks_are_those_of_a_loop(name: str) -> None:
    models = [_seeded(name, seed) for seed in range(3)]
    weights, buffers = stack_module_state(models)
    shell, pictures = copy.deepcopy(models[0]).to("meta"), _pictures()

    def outputs(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
        return functional_call(shell, (weights, buffers), (pictures,))

    together = vmap(outputs)(weights, buffers)
    assert torch.allclose(together, torch.stack([model(_pictures()) for model in models]), atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("chains", [1, 2])
def test_chains_sample_the_networks_own_losses(name: str, chains: int) -> None:
    model, targets = _seeded(name), torch.arange(5)
    stacked = StackedModel(model, cross_entropy, chains, [item for item, _ in model.named_parameters()])
    weights = stacked.views(stacked.start.expand(chains, -1).clone())
    losses = stacked.evaluator(weights)(_pictures(), targets)
    expected = cross_entropy(model(_pictures()), targets).expand(chains, -1)
    assert torch.allclose(losses, expected, rtol=1e-3, atol=1e-4)
    gradients, _ = stacked.gradient(weights, _pictures().expand(chains, -1, -1, -1, -1), targets.expand(chains, -1))
    cross_entropy(model(_pictures()), targets).mean().backward()
    plain = torch.cat([item.grad.flatten() for item in model.parameters() if item.grad is not None])
    assert torch.allclose(gradients, plain.expand(chains, -1), rtol=1e-2, atol=1e-4)


# --- initial weights


def _initial(model: nn.Module) -> None:
    """Check the paper's initial weights by their first two moments."""
    scales = torch.cat([module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d)])
    assert 0 <= scales.min() < 0.02
    assert 0.98 < scales.max() <= 1
    assert scales.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * len(scales)))
    assert scales.var().item() == pytest.approx(1 / 12, rel=0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.bias == 0).all()
            assert (module.running_mean == 0).all()  # pyright: ignore[reportOptionalMemberAccess]
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            weight, error = module.weight, 1 / math.sqrt(module.weight.numel())
            expected = math.sqrt(2 / weight[0].numel())
            assert weight.mean().item() == pytest.approx(0, abs=5 * error * expected)
            assert weight.std().item() == pytest.approx(expected, rel=5 * error)
            assert weight.abs().max() > 2.5 * expected  # a normal has tails; torch's own uniform ends at 0.71 of it


@pytest.mark.parametrize("build", [lambda: cifar_resnet(14), lambda: cifar_vgg(11, width=0.5)], ids=["resnet", "vgg"])
def test_initial_weights_are_the_papers_and_are_so_again_for_a_network_trained_anew(
    build: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model, data = build(), digits(10)
    _initial(model)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in moved.state_dict().values():
            tensor.fill_(3)
    first, same, other = (
        retrain(start, Training(steps=0), data, seed) for start, seed in ((moved, 1), (model, 1), (model, 2))
    )
    _initial(first)
    pairs = zip(first.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    drawn = [
        name
        for name, weight in first.named_parameters()
        if not torch.equal(weight, other.get_parameter(name)) and not torch.equal(weight, model.get_parameter(name))
    ]
    shifts = {f"{name}.bias" for name, module in first.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert set(drawn) == {name for name, _ in first.named_parameters()} - shifts


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cifar_resnet(2), "model.depth must be >= 8, got 2"),
        (lambda: cifar_resnet(18), r"model.depth must be 6k \+ 2, got 18; take 14 or 20"),
        (lambda: cifar_resnet("20"), "model.depth must be a whole number, got '20'"),  # pyright: ignore[reportArgumentType]
        (lambda: cifar_resnet(width=0), "model.width must be > 0"),
        (lambda: cifar_resnet(width=0.3), "a whole number of filters, got 0.3 x 16; take a multiple of 1/16"),
        (lambda: cifar_resnet(outputs=0), "model.outputs must be >= 1"),
        (lambda: cifar_resnet(channels=1.5), "model.channels must be a whole number"),  # pyright: ignore[reportArgumentType]
        (lambda: cifar_vgg(20), "model.depth must be one of 11, 13, 16, 19, got 20"),
        (lambda: cifar_vgg("16"), "model.depth must be one of 11, 13, 16, 19, got '16'"),  # pyright: ignore[reportArgumentType]
        (lambda: cifar_vgg(width=1 / 100), "a whole number of filters, got 0.01 x 64; take a multiple of 1/64"),
        (lambda: cifar_vgg(outputs=0), "model.outputs must be >= 1"),
        (lambda: cifar_vgg(channels=0), "model.channels must be >= 1"),
    ],
)
def test_a_network_that_cannot_be_is_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
