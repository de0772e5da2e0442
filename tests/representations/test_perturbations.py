from typing import Any

import numpy as np
import pytest
import torch
from command import config
from scipy.stats import norm
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

from losskernel import Data
from losskernel.data import stack
from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.models import MLP, SmallCNN
from losskernel.representations import evaluation
from losskernel.representations.baselines import perturbations
from losskernel.representations.baselines.perturbations import AdversarialFlips, NoiseFlips

BOTH = (NoiseFlips(draws=5), AdversarialFlips())


def _points(count: int = 40, classes: int = 2, inputs: int = 3, scale: float = 1.0) -> Data:
    generator = torch.Generator().manual_seed(0)
    values = scale * torch.randn(count, inputs, generator=generator)
    held = TensorDataset(values, torch.arange(count) % classes)
    return Data(held, held, cross_entropy)


def _linear(classes: int = 2, inputs: int = 3) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(inputs, classes)


def _spread(data: Data) -> float:
    return float(stack(data.probes)[0].double().std(correction=0))


def _boundary(model: nn.Linear, data: Data) -> tuple[np.ndarray, Tensor]:
    """Distance of the two logits at every probe, and the weights of their difference."""
    weight = (model.weight[1] - model.weight[0]).detach()
    with torch.no_grad():
        logits = model(stack(data.probes)[0])
    return (logits[:, 1] - logits[:, 0]).abs().numpy(), weight


# --- noise


def test_a_linear_classifier_flips_as_often_as_theory_says() -> None:
    model, data, draws = _linear(), _points(30), 2000
    levels = (0.3, 1.0, 3.0)
    result = NoiseFlips(levels, draws=draws)(model, data)["flips"]
    gap, weight = _boundary(model, data)
    sd = np.array(levels) * _spread(data) * float(weight.norm())
    expected = norm.cdf(-gap[:, None] / sd)
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) / draws)
    deviation = (result - expected) / error
    assert np.abs(deviation).max() < 4.5
    assert np.abs(deviation.mean()) < 0.5
    assert expected.min() < 0.01 < 0.3 < expected.max()


def test_noise_is_fixed_by_its_seed_alone() -> None:
    model, data = MLP(3, 4, [8]), _points(classes=4)
    first, same, other = (NoiseFlips(draws=5, seed=seed)(model, data)["flips"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_levels_of_a_probe_share_their_directions() -> None:
    # in one dimension with one boundary, a direction that flips at one size flips at every larger one
    result = NoiseFlips((0.1, 0.3, 1.0, 3.0), draws=7)(_linear(inputs=1), _points(inputs=1))["flips"]
    assert (np.diff(result, axis=1) >= 0).all()
    assert result.max() > 0.3


# --- adversarial steps


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_linear_classifier_flips_at_its_margin_over_the_l1_norm(steps: int) -> None:
    model, data = _linear(), _points()
    levels = tuple(np.linspace(0.02, 2, 100))
    result = AdversarialFlips(levels, steps)(model, data)["flips"]
    gap, weight = _boundary(model, data)
    radius = gap / float(weight.abs().sum()) / _spread(data)
    np.testing.assert_array_equal(result, np.array(levels) > radius[:, None])
    assert 0.1 < result.mean() < 0.9


@pytest.mark.parametrize("steps", [1, 6])
def test_no_box_is_left(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, data, levels = MLP(3, 4, [16]), _points(classes=4), (0.05, 0.2)
    start, seen, predicted = stack(data.probes)[0], [], perturbations._predicted

    def noted(network: Any, inputs: Tensor) -> Tensor:
        if len(inputs) == len(start):
            seen.append((inputs - start).abs().max().item())
        return predicted(network, inputs)

    monkeypatch.setattr(perturbations, "_predicted", noted)
    AdversarialFlips(levels, steps)(model, data)
    # the first is the prediction itself; then come the steps in the first box, in which all probes are attacked
    assert seen[0] == 0
    size = levels[0] * _spread(data)
    np.testing.assert_allclose(max(seen[1 : steps + 1]), size, rtol=1e-4)
    assert seen[1] == pytest.approx(size if steps == 1 else size * 2.5 / 6, rel=1e-4)


def test_of_many_classes_none_flips_within_its_certain_radius() -> None:
    model, data = _linear(classes=6), _points(60, classes=6)
    levels = tuple(np.linspace(0.02, 1.5, 75))
    result = AdversarialFlips(levels)(model, data)["flips"]
    with torch.no_grad():
        logits = model(stack(data.probes)[0])
        predicted = logits.argmax(1)
        gaps = logits.gather(1, predicted[:, None]) - logits
        reach = (model.weight[predicted][:, None] - model.weight).abs().sum(2)
    certain = (gaps / reach).nan_to_num(nan=np.inf).min(1).values.numpy() / _spread(data)
    assert not result[np.array(levels) < certain[:, None]].any()
    # and few hold out for much longer
    first = np.where(result.any(1), result.argmax(1), len(levels) - 1)
    assert np.median(np.array(levels)[first] / np.maximum(certain, 0.02)) < 1.3


def test_a_network_that_is_sure_of_itself_is_attacked_all_the_same() -> None:
    model, data = _linear(), _points()
    plain = AdversarialFlips()(model, data)["flips"]
    with torch.no_grad():
        model.weight *= 2**10
        model.bias *= 2**10  # its softmax is one to the last bit, and the gradient of its cross-entropy 0
        assert model(stack(data.probes)[0]).softmax(1).max(1).values.median() == 1
    np.testing.assert_array_equal(AdversarialFlips()(model, data)["flips"], plain)
    assert plain.any()


def test_what_flips_at_a_size_counts_as_flipped_at_larger_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 32), Waves(), nn.Linear(32, 4))
    result = AdversarialFlips((0.1, 0.2, 0.4, 0.8, 1.6))(model, _points(classes=4))["flips"]
    assert (np.diff(result, axis=1) >= 0).all()
    assert set(np.unique(result)) == {0, 1}


class Waves(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(3 * inputs)


# --- both


@pytest.mark.parametrize("baseline", BOTH, ids=lambda item: type(item).__name__)
def test_a_level_is_relative_to_the_inputs_spread(baseline: Any) -> None:
    torch.manual_seed(0)
    model, factor = MLP(3, 4, [8]), 16.0
    plain = baseline(model, _points(classes=4))
    with torch.no_grad():
        model.layers[0].weight /= factor  # a power of two: exact
    scaled = baseline(model, _points(classes=4, scale=factor))
    np.testing.assert_array_equal(scaled["flips"], plain["flips"])
    np.testing.assert_array_equal(scaled["levels"], plain["levels"])
    assert 0.05 < plain["flips"].mean() < 0.95


@pytest.mark.parametrize("baseline", BOTH, ids=lambda item: type(item).__name__)
def test_rows_name_their_levels_and_the_network_is_left_alone(baseline: Any) -> None:
    torch.manual_seed(0)
    model = SmallCNN(widths=(4, 6)).train()
    images = TensorDataset(torch.randn(9, 1, 8, 8), torch.arange(9))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = baseline(model, Data(images, images, cross_entropy))
    assert list(result) == ["flips", "levels"]
    assert result["flips"].shape == result["levels"].shape == (9, len(baseline.levels))
    np.testing.assert_array_equal(result["levels"], np.tile(baseline.levels, (9, 1)))
    assert 0 <= result["flips"].min() <= result["flips"].max() <= 1
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_adversarial_flips_follow_the_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, data = MLP(3, 4, [8]), _points(classes=4)
    result = AdversarialFlips()(model, data)["flips"]
    order = np.random.default_rng(0).permutation(40)
    turned = Data(data.train, Subset(data.probes, order.tolist()), cross_entropy)
    monkeypatch.setattr(evaluation, "_BLOCK", 7)
    np.testing.assert_array_equal(AdversarialFlips()(model, turned)["flips"], result[order])


@pytest.mark.parametrize("baseline", BOTH, ids=lambda item: type(item).__name__)
def test_what_cannot_be_perturbed_is_refused(baseline: Any) -> None:
    classes = torch.zeros(4).long()
    for inputs, model, message in [
        (torch.ones(4, 3), _linear(), "all inputs of all probes are one number, and levels have no unit; drop"),
        (torch.ones(4, 3).long(), _linear(), "inputs must be real numbers to be perturbed, got torch.int64; drop"),
        (torch.randn(4, 3), _linear(classes=1), r"must return logits \[probes, classes >= 2\], got shape \(4, 1\)"),
    ]:
        data = Data(*[TensorDataset(inputs, classes)] * 2, cross_entropy)
        with pytest.raises(InputError, match=message):
            baseline(model, data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: NoiseFlips(levels=(0.1,)),
            r"noise.levels must be a list of two sizes or more, got \(0.1,\)",
        ),
        (lambda: NoiseFlips(levels=0.1), "baselines.noise.levels must be a list"),  # pyright: ignore
        (lambda: NoiseFlips(levels=(0.0, 1.0)), "baselines.noise.levels must be > 0"),
        (lambda: NoiseFlips(levels=(0.2, 0.1)), r"baselines.noise.levels must increase, got \[0.2, 0.1\]; sort them"),
        (lambda: AdversarialFlips(levels=(0.1, 0.1)), "baselines.adversarial.levels must increase"),
        (lambda: NoiseFlips(draws=0), "baselines.noise.draws must be >= 1"),
        (lambda: NoiseFlips(seed=-1), "baselines.noise.seed must be >= 0"),
        (lambda: AdversarialFlips(steps=0), "baselines.adversarial.steps must be >= 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_levels_in_yaml_are_those_of_the_code() -> None:
    composed = config("baselines=perturbations").baselines
    assert tuple(composed.noise.levels) == NoiseFlips().levels
    assert tuple(composed.adversarial.levels) == AdversarialFlips().levels
