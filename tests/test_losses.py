import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import log_softmax

from losskernel.errors import InputError
from losskernel.losses import cross_entropy, squared_error


def _logits(samples: int = 40, classes: int = 7, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(samples, classes, generator=rng, dtype=torch.float64)
    return logits, torch.randint(classes, (samples,), generator=rng)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_cross_entropy_is_minus_log_softmax_in_float64(scale: float) -> None:
    logits, classes = _logits(scale=scale)
    expected = -log_softmax(logits, dim=1).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(cross_entropy(logits, classes), expected, rtol=1e-12, atol=1e-12)


def test_cross_entropy_keeps_losses_that_log_softmax_loses_in_float32() -> None:
    logits = torch.tensor([[30.0, 0.0]])
    classes = torch.tensor([0])
    assert -log_softmax(logits, dim=1)[0, 0].item() == 0.0
    assert cross_entropy(logits, classes).item() == pytest.approx(math.exp(-30), rel=1e-4)


def test_cross_entropy_is_linear_where_the_wrong_class_wins_by_far() -> None:
    logits = torch.tensor([[0.0, 2000.0, -5.0]])
    assert cross_entropy(logits, torch.tensor([0])).item() == 2000.0


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot() -> None:
    logits, classes = _logits()
    found = grad(lambda z: cross_entropy(z, classes).sum())(logits)
    expected = logits.softmax(1) - torch.eye(7, dtype=torch.float64)[classes]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_gradient_of_a_tiny_loss_survives_in_float32() -> None:
    found = grad(lambda z: cross_entropy(z, torch.tensor([0])).sum())(torch.tensor([[30.0, 0.0]]))
    torch.testing.assert_close(found[0, 1].item(), math.exp(-30), rtol=1e-4, atol=0)


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_losses_mean_the_same_under_vmap(loss) -> None:
    logits, classes = _logits(samples=12)
    targets = classes if loss is cross_entropy else logits.flip(0)
    stacked = vmap(loss)(logits.unflatten(0, (3, 4)), targets.unflatten(0, (3, 4)))
    torch.testing.assert_close(stacked.flatten(), loss(logits, targets), rtol=1e-14, atol=0)
    per_sample = vmap(grad(lambda z, t: loss(z[None], t[None])[0]))(logits, targets)
    whole = grad(lambda z: loss(z, targets).sum())(logits)
    torch.testing.assert_close(per_sample, whole, rtol=1e-12, atol=1e-14)


def test_squared_error_is_half_the_squared_distance() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert squared_error(outputs, targets).tolist() == [2.5, 12.5]


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 1, 1)])
def test_squared_error_pairs_samples_whatever_the_trailing_axes(shape: tuple[int, ...]) -> None:
    outputs, targets = torch.arange(5.0)[:, None], torch.zeros(shape)
    assert squared_error(outputs, targets).tolist() == [0.0, 0.5, 2.0, 4.5, 8.0]


def test_squared_error_does_not_broadcast() -> None:
    with pytest.raises(InputError, match=r"as many outputs as targets, got shapes \(5, 2\) and \(5,\)"):
        squared_error(torch.zeros(5, 2), torch.zeros(5))


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3, 3)])
def test_cross_entropy_refuses_logits_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"needs logits \[batch, classes >= 2\]"):
        cross_entropy(torch.zeros(shape), torch.zeros(5, dtype=torch.int64))


def test_cross_entropy_refuses_targets_that_are_no_classes() -> None:
    with pytest.raises(InputError, match=r"class numbers as targets, got torch.float32"):
        cross_entropy(torch.zeros(5, 3), torch.zeros(5))
