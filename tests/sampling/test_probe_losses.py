"""Probe evaluation of one convolutional chain: the plain model's losses, whatever was folded and rearranged."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from losskernel.losses import cross_entropy
from losskernel.models.memory_format import arranged, choose_layout
from losskernel.sampling.engine.probe_losses import Evaluation, record
from losskernel.sampling.engine.stacked_model import StackedModel, start_losses

RNG = torch.Generator().manual_seed(0)
NORM = torch.ops.aten.native_batch_norm.default


def trained(model: nn.Module) -> nn.Module:
    """Give every BatchNorm its own statistics, scale and shift, as training leaves them."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            if module.track_running_stats:
                module.running_mean.normal_(0, 0.5, generator=RNG)
                module.running_var.uniform_(0.3, 3.0, generator=RNG)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2.0, generator=RNG)
                nn.init.normal_(module.bias, generator=RNG)
    return model.double().eval()


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


class Twice(nn.Module):
    """The convolution's output goes past the BatchNorm too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = self.convolution(inputs)
        return (self.norm(seen) + seen).flatten(1)


class Views(nn.Module):
    """Reads its activations as if channels came first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 6 * 6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.norm(self.convolution(inputs)).view(len(inputs), -1))


def after(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules, nn.Flatten())


# name -> model, shape of an input, BatchNorms that stay
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "plain": (lambda: after(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), (3, 8, 8), 0),
    "with bias": (lambda: after(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 8, 8), 0),
    "without affine": (lambda: after(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), (3, 8, 8), 0),
    "grouped": (lambda: after(nn.Conv2d(4, 8, 3, groups=2, stride=2), nn.BatchNorm2d(8)), (4, 8, 8), 0),
    "depthwise": (lambda: after(nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.BatchNorm2d(4)), (4, 8, 8), 0),
    "one dimension": (lambda: after(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (3, 8), 0),
    "three dimensions": (lambda: after(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4)), (2, 4, 4, 4), 0),
    "in place": (
        lambda: after(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)),
        (3, 8, 8),
        0,
    ),
    "one channel": (lambda: after(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), (1, 8, 8), 0),
    "viewed": (Views, (3, 8, 8), 0),
    "transposed": (lambda: after(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 8, 8), 1),
    "used twice": (Twice, (3, 8, 8), 1),
    "norm first": (lambda: after(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), (3, 8, 8), 1),
    "activated before": (lambda: after(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), (3, 8, 8), 1),
    "linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), (6,), 1),
    "batch statistics": (
        lambda: after(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        (3, 8, 8),
        1,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_norms_are_folded_where_that_changes_nothing(name: str) -> None:
    build, shape, left = NETS[name]
    model = trained(build())
    names = [name for name, _ in model.named_parameters()]

    def outputs(inputs: Tensor, _: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(model, dict(zip(names, weights, strict=True)), (inputs,))

    weights = tuple(weight.detach().clone() for weight in model.parameters())
    with torch.no_grad():
        graph = record(outputs, image(6, *shape), torch.zeros(6), *weights).graph
        assert sum(node.target is NORM for node in graph.nodes) == left
        evaluation = Evaluation(outputs)
        for _ in range(2):  # recorded by the first, replayed by the second with other weights
            for weight in weights:
                weight += 0.1 * torch.randn(weight.shape, generator=RNG, dtype=weight.dtype)
            at, direct = evaluation.at(weights), dict(zip(names, weights, strict=True))
            for inputs in (image(6, *shape), image(4, *shape), image(6, *shape)):
                expected = functional_call(model, direct, (inputs,))
                torch.testing.assert_close(at(inputs, torch.zeros(len(inputs))), expected, rtol=1e-10, atol=1e-10)


def test_what_follows_from_the_weights_is_computed_once_for_a_set_of_them() -> None:
    prepared: list[int] = []

    def losses(inputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        return inputs * (weight.exp() * 2) + targets

    evaluation = Evaluation(losses)
    weight, x = torch.ones(1), torch.ones(3)
    at = evaluation.at((weight,))
    before = at(x, x)
    early, late = next(iter(evaluation._programs.values()))
    evaluation._programs = {
        key: (lambda *given: (prepared.append(1), early(*given))[1], late) for key in evaluation._programs
    }
    at = evaluation.at((weight,))
    assert all(torch.equal(at(x, x), before) for _ in range(3))
    assert len(prepared) == 1
    weight += 1
    assert torch.equal(evaluation.at((weight,))(x, x), losses(x, x, weight))
    assert len(prepared) == 2


@torch.library.custom_op("losskernel_tests::add_one", mutates_args=("values",))
def add_one(values: Tensor) -> None:
    """An operation of others that changes its input."""
    values.add_(1)


def test_operations_that_only_exist_in_place_are_run_as_they_are() -> None:
    def losses(inputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        seen, direct = inputs * weight, weight.clone()
        add_one(seen)
        add_one(direct)
        return seen * direct + targets

    evaluation, x = Evaluation(losses), torch.arange(3.0)
    for weight in (torch.ones(1), torch.full((1,), 2.0)):
        at = evaluation.at((weight,))
        for _ in range(2):
            assert torch.equal(at(x, x), (x * weight + 1) * (weight + 1) + x)


def googlenet(dtype: torch.dtype) -> nn.Module:
    from torchvision.models import GoogLeNet

    torch.manual_seed(0)
    model = GoogLeNet(num_classes=7, aux_logits=False, init_weights=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of one pass, so that activations keep their size
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        model.train()(torch.randn(32, 3, 32, 32))
    return model.to(dtype).eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_inception_has_the_plain_models_losses(dtype: torch.dtype, tolerance: float) -> None:
    model = googlenet(dtype)
    stack = StackedModel(model, cross_entropy, 1, [name for name, _ in model.named_parameters()])
    weights = stack.start[None] + 1e-3 * torch.randn(1, stack.size, generator=RNG).to(dtype)
    inputs, targets = torch.randn(8, 3, 32, 32, generator=RNG).to(dtype), torch.arange(8) % 7
    views = stack.views(weights)
    result = stack.evaluator(views)(inputs, targets)
    (program,) = stack._evaluations[None]._programs.values()
    assert not any(node.target is NORM for node in program[1].__self__.graph.nodes)  # pyright: ignore
    assert inputs.is_contiguous()
    plain = copy.deepcopy(model)
    plain.load_state_dict({name: view[0] for name, view in zip(stack.moving, views, strict=True)}, strict=False)
    expected = cross_entropy(plain(inputs), targets)
    torch.testing.assert_close(result[0], expected.detach(), rtol=tolerance, atol=0)
    assert expected.std() > 0.1
    if dtype == torch.float64:  # in float32 a maximum may fall on another of two near-equal pixels
        gradient, loss = stack.gradient(views, inputs[None], targets[None])
        expected.mean().backward()
        direct = torch.cat([weight.grad.flatten() for weight in plain.parameters()])
        torch.testing.assert_close(gradient[0], direct, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(loss[0], expected.mean().detach())


# --- order in memory


def outputs_as_loss(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.flatten(1).sum(1)


def test_channels_come_last_for_images_of_convolutional_models_that_read_them_so() -> None:
    plain = after(nn.Conv2d(3, 4, 3))
    for channels in (1, 3):
        inputs = torch.randn(4, channels, 8, 8)
        last = arranged(inputs, torch.channels_last)
        assert torch.equal(last, inputs)
        assert last.stride() == (channels * 64, 1, channels * 8, channels)
        assert nn.Conv2d(channels, 4, 3)(last).is_contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(4)
    assert choose_layout(plain, outputs_as_loss, torch.randn(4, 3, 8, 8), targets) == torch.channels_last
    assert choose_layout(Views(), outputs_as_loss, torch.randn(4, 3, 8, 8), targets) == torch.contiguous_format
    flat = choose_layout(nn.Linear(8, 2), outputs_as_loss, torch.randn(4, 3, 8, 8), targets)
    assert flat == torch.contiguous_format
    line = choose_layout(after(nn.Conv1d(3, 4, 3)), outputs_as_loss, torch.randn(4, 3, 8), targets)
    assert line == torch.contiguous_format


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_that_the_model_changes_are_copies(channels: int) -> None:
    class Shifts(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.sub_(1.0)).flatten(1)

    model = Shifts(channels, 4, 3)
    stack = StackedModel(model, cross_entropy, 1, ["weight", "bias"])
    inputs, targets = torch.randn(4, channels, 8, 8), torch.arange(4)
    before, views = inputs.clone(), stack.views(stack.start[None].clone())
    first = stack.evaluator(views)(inputs, targets)
    start = start_losses(model, cross_entropy, [(inputs, targets), (inputs, targets)])
    stack.gradient(views, inputs[None], targets[None])
    assert torch.equal(inputs, before)
    assert torch.equal(stack.evaluator(views)(inputs, targets), first)
    torch.testing.assert_close(start, torch.cat([first[0], first[0]]))


def test_a_model_whose_answer_depends_on_the_order_keeps_its_own() -> None:
    class Strides(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            seen = super().forward(input)
            return seen * seen.stride(1)

    inputs = torch.randn(4, 3, 8, 8)
    assert choose_layout(Strides(3, 4, 3), outputs_as_loss, inputs, torch.zeros(4)) == torch.contiguous_format


# --- gradients of one chain


class InPlace(nn.Module):
    """In-place activations, a residual, pooling: what torchvision's networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = nn.functional.relu(self.norm(self.first(inputs)), inplace=True)
        seen = seen + self.second(seen)
        seen = nn.functional.max_pool2d(seen.clamp_(min=-1.0), 2)
        return self.head(seen.mean((2, 3)))


@pytest.mark.parametrize("build", [InPlace, Views])
def test_gradients_and_hessian_products_are_those_of_plain_autograd(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = trained(build())
    stack = StackedModel(model, cross_entropy, 1, [name for name, _ in model.named_parameters()])
    assert stack.lone
    for _ in range(2):
        weights = stack.start[None] + 0.1 * torch.randn(1, stack.size, generator=RNG, dtype=torch.float64)
        views, inputs, targets = stack.views(weights), image(7, 3, 8, 8), torch.arange(7) % 5
        plain = copy.deepcopy(model)
        plain.load_state_dict({name: view[0] for name, view in zip(stack.moving, views, strict=True)}, strict=False)
        losses = cross_entropy(plain(inputs), targets)
        direct = torch.autograd.grad(losses.mean(), list(plain.parameters()), create_graph=True)
        flat = torch.cat([part.flatten() for part in direct])
        gradient, _ = stack.gradient(views, inputs[None], targets[None])
        torch.testing.assert_close(gradient[0], flat.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(stack.evaluator(views)(inputs, targets)[0], losses.detach(), rtol=1e-10, atol=1e-12)
        direction = torch.randn(1, stack.size, generator=RNG, dtype=torch.float64)
        second = torch.autograd.grad(flat @ direction[0], list(plain.parameters()))
        product = stack.hessian_product(views, inputs[None], targets[None], direction)
        torch.testing.assert_close(product[0], torch.cat([p.flatten() for p in second]), rtol=1e-9, atol=1e-10)


class Straight(torch.autograd.Function):
    """Rounds forwards, and passes gradients straight through."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.round()

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


def test_gradients_that_are_not_those_of_the_operations_are_kept() -> None:
    class Rounded(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            with torch.no_grad():
                scale = self.weight.abs().mean()
            return (Straight.apply(super().forward(input)) * scale).flatten(1)

    torch.manual_seed(0)
    model = Rounded(3, 4, 3).double()
    stack = StackedModel(model, cross_entropy, 1, ["weight", "bias"])
    inputs, targets = 3 * image(7, 3, 8, 8), torch.arange(7)
    gradient, _ = stack.gradient(stack.views(stack.start[None].clone()), inputs[None], targets[None])
    cross_entropy(model(inputs), targets).mean().backward()
    direct = torch.cat([model.weight.grad.flatten(), model.bias.grad])
    torch.testing.assert_close(gradient[0], direct, rtol=1e-9, atol=1e-12)
    assert direct.abs().max() > 0.01
