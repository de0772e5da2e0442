import copy
import functools
from collections.abc import Callable

import pytest
import torch
from oracles import own_gradient
from torch import Tensor, nn
from torch.nn.functional import one_hot

from losskernel.errors import DivergenceError, InputError
from losskernel.losses import cross_entropy, squared_error
from losskernel.models import MLP, MultitaskMLP, SmallCNN
from losskernel.sampling.engine.stacked_model import StackedModel, check_losses, start_losses

RNG = torch.Generator().manual_seed(0)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


def _classes(*shape: int) -> Tensor:
    return torch.randint(3, shape, generator=RNG)


def _tasks(*shape: int) -> Tensor:
    return torch.cat([_normal(*shape, 2), one_hot(torch.randint(2, shape, generator=RNG), 2).double()], dim=-1)


def _cnn() -> nn.Module:
    model = SmallCNN(channels=1, outputs=3, widths=(4, 5))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as training leaves them
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


# model, loss, inputs of a shape, targets of a shape
CASES: dict[str, tuple[Callable[[], nn.Module], Callable, Callable[..., Tensor], Callable[..., Tensor]]] = {
    "MLP": (lambda: MLP(4, 3, (6, 5)), cross_entropy, lambda *n: _normal(*n, 4), _classes),
    "MultitaskMLP": (lambda: MultitaskMLP(2, width=6), squared_error, _tasks, _normal),
    "MultitaskMLP, towers": (lambda: MultitaskMLP(2, width=6, towers=True), squared_error, _tasks, _normal),
    "MultitaskMLP, deep": (lambda: MultitaskMLP(2, width=6, depth=3), squared_error, _tasks, _normal),
    "SmallCNN": (_cnn, cross_entropy, lambda *n: _normal(*n, 1, 8, 8), _classes),
}
every_model = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def _stack(case, chains: int, moving: list[str] | None = None) -> tuple[nn.Module, StackedModel, Tensor]:
    """A model in training mode, its stack, and a buffer [C, P] of different weights for each chain."""
    torch.manual_seed(0)
    model = case[0]().double().train()
    stack = StackedModel(model, case[1], chains, moving or [name for name, _ in model.named_parameters()])
    return model, stack, stack.start.repeat(chains, 1) + 0.1 * _normal(chains, stack.size)


def _weights(stack: StackedModel, buffer: Tensor, chain: int) -> dict[str, Tensor]:
    return {name: view[chain] for name, view in zip(stack.moving, stack.views(buffer), strict=True)}


@every_model
@pytest.mark.parametrize("chains", [1, 3])
def test_every_chain_gets_its_own_gradient_and_loss(case, chains: int) -> None:
    _, loss, inputs_of, targets_of = case
    model, stack, buffer = _stack(case, chains)
    for _ in range(2):  # the second call meets what the first one recorded, with other numbers
        buffer += 0.05 * _normal(*buffer.shape)
        inputs, targets = inputs_of(chains, 7), targets_of(chains, 7)
        gradient, mean_loss = stack.gradient(stack.views(buffer), inputs, targets)
        assert gradient.shape == buffer.shape
        for chain in range(chains):
            weights = _weights(stack, buffer, chain)
            expected = own_gradient(model, weights, loss, inputs[chain], targets[chain])
            torch.testing.assert_close(gradient[chain], expected, rtol=1e-10, atol=1e-10)
            alone = copy.deepcopy(model).eval()
            alone.load_state_dict(weights, strict=False)
            exact = loss(alone(inputs[chain]), targets[chain]).mean()
            torch.testing.assert_close(mean_loss[chain], exact.detach(), rtol=1e-10, atol=1e-10)


@every_model
@pytest.mark.parametrize("chains", [1, 3])
def test_every_chain_has_its_own_losses_on_the_same_probes(case, chains: int) -> None:
    _, loss, inputs_of, targets_of = case
    model, stack, buffer = _stack(case, chains)
    for count in (9, 4, 9):  # the last block of probes is often shorter
        buffer += 0.05 * _normal(*buffer.shape)
        inputs, targets = inputs_of(count), targets_of(count)
        losses = stack.evaluator(stack.views(buffer))(inputs, targets)
        assert losses.shape == (chains, count)
        for chain in range(chains):
            alone = copy.deepcopy(model).eval()
            alone.load_state_dict(_weights(stack, buffer, chain), strict=False)
            torch.testing.assert_close(losses[chain], loss(alone(inputs), targets).detach(), rtol=1e-10, atol=1e-10)


def test_a_loss_does_not_depend_on_its_batch_mates() -> None:
    case = CASES["SmallCNN"]
    _, stack, buffer = _stack(case, 2)
    inputs, targets = case[2](6), case[3](6)
    views = stack.views(buffer)
    one_by_one = [stack.evaluator(views)(inputs[n : n + 1], targets[n : n + 1]) for n in range(6)]
    torch.testing.assert_close(torch.cat(one_by_one, dim=1), stack.evaluator(views)(inputs, targets))


def test_only_the_chosen_weights_move() -> None:
    case = CASES["MLP"]
    moving = ["layers.4.weight", "layers.0.bias"]
    model, stack, buffer = _stack(case, 2, moving)
    assert stack.size == 3 * 5 + 6
    weights = dict(model.named_parameters())
    torch.testing.assert_close(stack.start, torch.cat([weights[name].detach().flatten() for name in moving]))
    inputs, targets = case[2](2, 7), case[3](2, 7)
    gradient, _ = stack.gradient(stack.views(buffer), inputs, targets)
    for chain in range(2):  # the frozen weights are the template's
        expected = own_gradient(model, _weights(stack, buffer, chain), case[1], inputs[chain], targets[chain])
        torch.testing.assert_close(gradient[chain], expected, rtol=1e-10, atol=1e-10)


@every_model
@pytest.mark.parametrize("chains", [1, 3])
def test_a_hessian_product_is_the_derivative_of_a_chains_own_gradient(case, chains: int) -> None:
    _, _, inputs_of, targets_of = case
    _, stack, buffer = _stack(case, chains)
    for _ in range(2):  # the second call meets what the first one recorded, with other numbers
        buffer += 0.05 * _normal(*buffer.shape)
        inputs, targets, direction = inputs_of(chains, 7), targets_of(chains, 7), _normal(*buffer.shape)
        result = stack.hessian_product(stack.views(buffer), inputs, targets, direction)
        step = 1e-6
        ahead, behind = (
            stack.gradient(stack.views(buffer + sign * step * direction), inputs, targets)[0].clone()
            for sign in (1, -1)
        )
        torch.testing.assert_close(result, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-6)


def test_hessian_products_are_symmetric_and_those_of_the_whole_hessian() -> None:
    case = CASES["MLP"]
    model, stack, buffer = _stack(case, 2, ["layers.4.weight", "layers.0.bias"])
    inputs, targets = case[2](2, 7), case[3](2, 7)
    names = stack.moving

    def mean_loss(flat: Tensor, chain: int) -> Tensor:
        views = [view[0] for view in StackedModel(model, case[1], 1, names).views(flat[None])]
        outputs = torch.func.functional_call(model, dict(zip(names, views, strict=True)), (inputs[chain],))
        return case[1](outputs, targets[chain]).mean()

    directions = torch.eye(stack.size, dtype=torch.float64)
    rows = [
        stack.hessian_product(stack.views(buffer), inputs, targets, item.expand(2, -1).clone()) for item in directions
    ]
    for chain in range(2):
        hessian = torch.stack([row[chain] for row in rows])
        torch.testing.assert_close(hessian, hessian.T, rtol=1e-9, atol=1e-12)
        exact = torch.autograd.functional.hessian(functools.partial(mean_loss, chain=chain), buffer[chain])
        torch.testing.assert_close(hessian, exact, rtol=1e-9, atol=1e-12)


def test_views_follow_the_buffer() -> None:
    _, stack, buffer = _stack(CASES["MLP"], 3)
    views = stack.views(buffer)
    buffer.zero_()
    assert all(not view.any() for view in views)
    assert [view.shape[1:] for view in views] == [(6, 4), (6,), (5, 6), (5,), (3, 5), (3,)]


@every_model
def test_the_callers_model_stays_as_it_is(case) -> None:
    model, stack, buffer = _stack(case, 3)
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    needs = [weight.requires_grad for weight in model.parameters()]
    stack.gradient(stack.views(buffer), case[2](3, 5), case[3](3, 5))
    stack.evaluator(stack.views(buffer))(case[2](5), case[3](5))
    start_losses(model, case[1], [(case[2](5), case[3](5))])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert [weight.requires_grad for weight in model.parameters()] == needs == [True] * len(needs)
    assert all(weight.grad is None for weight in model.parameters())


def test_a_later_change_of_the_model_does_not_reach_the_stack() -> None:
    case = CASES["SmallCNN"]
    model, stack, buffer = _stack(case, 2, ["head.weight"])
    inputs, targets = case[2](5), case[3](5)
    before = stack.evaluator(stack.views(buffer))(inputs, targets).clone()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.zero_()
    assert torch.equal(stack.evaluator(stack.views(buffer))(inputs, targets), before)


@every_model
def test_losses_at_the_start_are_the_models_own_in_evaluation_mode(case) -> None:
    model, stack, _ = _stack(case, 2)
    inputs, targets = case[2](9), case[3](9)
    result = start_losses(model, case[1], [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])])
    torch.testing.assert_close(result, case[1](copy.deepcopy(model).eval()(inputs), targets).detach())
    same = stack.evaluator(stack.views(stack.start.repeat(2, 1)))(inputs, targets)
    torch.testing.assert_close(same, result.expand(2, 9))


# --- errors


def test_a_loss_at_the_start_must_be_finite() -> None:
    model, inputs = MLP(2, 1, ()), torch.zeros(5, 2)
    inputs[3:, 0] = torch.inf
    with pytest.raises(
        DivergenceError, match=r"the loss of sample 3 at the trained weights is inf \(2 of 5 not finite\)"
    ):
        start_losses(model, squared_error, [(inputs, torch.zeros(5))])


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda outputs, targets: squared_error(outputs, targets).mean(), r"\(\)"),
        (lambda outputs, targets: (outputs - targets) ** 2, r"\(5, 1\)"),
        (lambda outputs, targets: 0.5, "float"),
    ],
)
def test_a_loss_must_be_one_number_per_sample(loss, found: str) -> None:
    message = rf"data.loss must return one loss per sample, shape \(5,\), but returned {found}; drop the mean"
    with pytest.raises(InputError, match=message):
        check_losses(MLP(2, 1, ()), loss, torch.zeros(5, 2), torch.zeros(5, 1))


def test_a_model_that_does_not_fit_the_inputs_is_refused_in_one_line() -> None:
    message = r"the model and the loss fail on a batch of inputs \(5, 3\) and targets \(5,\): .*check model, dataset"
    with pytest.raises(InputError, match=message) as caught:
        check_losses(MLP(2, 1, ()), squared_error, torch.zeros(5, 3), torch.zeros(5))
    assert "\n" not in str(caught.value)


def test_a_failure_without_words_is_named_by_its_type() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError

    with pytest.raises(InputError, match=r"fail on a batch .*: RuntimeError; check model"):
        check_losses(MLP(2, 1, ()), loss, torch.zeros(5, 2), torch.zeros(5))


def test_a_refusal_by_the_loss_itself_is_not_wrapped() -> None:
    with pytest.raises(InputError, match=r"^squared_error needs as many outputs as targets"):
        check_losses(MLP(2, 3, ()), squared_error, torch.zeros(5, 2), torch.zeros(5))
