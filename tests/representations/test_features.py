from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from losskernel import Data, LossKernel
from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.models import MLP, SmallCNN
from losskernel.representations import evaluation
from losskernel.representations.baselines.features import Gradients, Layers, Logits, Penultimate


class OnDisk(Dataset):
    def __init__(self, held: TensorDataset) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._held[index]


def _images(count: int = 7, streamed: bool = False) -> Data:
    generator = torch.Generator().manual_seed(0)
    held = TensorDataset(torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 10)
    return Data(OnDisk(held) if streamed else held, OnDisk(held) if streamed else held, cross_entropy)


def _network() -> SmallCNN:
    torch.manual_seed(0)
    model = SmallCNN(widths=(4, 6))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics unlike those of a batch
            nn.init.uniform_(module.running_mean)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(module.running_var, 1, 2)  # pyright: ignore[reportArgumentType]
    return model


EVERY = (Penultimate(), Logits(), Layers(), Gradients(size=64))


@pytest.mark.parametrize("baseline", EVERY, ids=lambda item: type(item).__name__)
def test_a_baseline_gives_rows_and_leaves_the_network_alone(baseline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = _network().train(), _images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = baseline(model, data)
    assert rows.dtype == np.float32
    assert rows.shape[0] == 7
    assert np.isfinite(rows).all()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    monkeypatch.setattr(evaluation, "_BLOCK", 3)
    np.testing.assert_allclose(baseline(model.eval(), _images(streamed=True)), rows, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_penultimate_features_are_what_the_head_sees() -> None:
    model, data = _network().eval(), _images()
    expected = model.features(data.probes.tensors[0]).mean((2, 3))  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(Penultimate()(model, data), expected.numpy(), rtol=1e-5)


@torch.no_grad()
def test_penultimate_features_of_tokens_are_averaged_over_their_places() -> None:
    torch.manual_seed(0)
    # written in another order than evaluated, with a linear layer that is not evaluated at all
    model = _Tokens()
    data = _tokens()
    inputs = data.probes.tensors[0]  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(Penultimate()(model, data), model.first(inputs).relu().mean(1).numpy(), rtol=1e-5)


class _Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 2)
        self.first = nn.Linear(3, 6)
        self.idle = nn.Linear(3, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).relu()).mean(1)


def _tokens() -> Data:
    held = TensorDataset(torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(5).long())
    return Data(held, held, cross_entropy)


@torch.no_grad()
def test_penultimate_features_of_a_convolutional_classifier_are_what_its_last_convolution_sees() -> None:
    model, data = (
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        _images(),
    )
    expected = model[0](data.probes.tensors[0]).mean((2, 3))  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(Penultimate()(model, data), expected.numpy(), rtol=1e-5, atol=1e-7)


def test_penultimate_features_need_a_head() -> None:
    shortcut = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten(), nn.MaxPool1d(72))  # 216 units become 3 outputs
    for model in (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), shortcut):
        with pytest.raises(
            InputError,
            match=r"Sequential evaluates no linear layer, and no convolution to its \d+ outputs; use losskernel\.",
        ):
            Penultimate()(model, _images())


class _Gated(nn.Module):
    """A linear gate before a convolutional head, and an auxiliary convolution that is evaluated last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head, self.auxiliary = (
            nn.Conv2d(1, 6, 3), nn.Linear(6, 6), nn.Conv2d(6, 3, 1), nn.Conv2d(1, 2, 1)
        )  # fmt: skip

    def features(self, inputs: Tensor) -> Tensor:
        maps = self.stem(inputs)
        return maps * self.gate(maps.mean((2, 3))).sigmoid()[:, :, None, None]

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.head(self.features(inputs)).mean((2, 3))
        self.auxiliary(inputs)
        return outputs


@torch.no_grad()
def test_penultimate_features_are_those_of_the_head_among_gates_and_auxiliary_branches() -> None:
    model, data = _Gated(), _images()
    expected = model.features(data.probes.tensors[0]).mean((2, 3))  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(Penultimate()(model, data), expected.numpy(), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_logits_have_no_mean() -> None:
    model, data = _network().eval(), _images()
    outputs = model(data.probes.tensors[0]).numpy()  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(Logits()(model, data), outputs - outputs.mean(1, keepdims=True), atol=1e-6)
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    assert np.abs(Logits()(single, data)).min() > 0


@torch.no_grad()
def test_layers_are_centred_and_weigh_alike() -> None:
    model, data = _network().eval(), _images()
    rows = Layers(["features.*"])(model, data)
    values: Tensor = data.probes.tensors[0]  # pyright: ignore[reportAttributeAccessIssue]
    expected = []
    for module in model.features:
        values = module(values)
        pooled = values.mean((2, 3)).numpy()
        centred = pooled - pooled.mean(0)
        expected.append(centred / np.sqrt(np.square(centred).sum(1).mean()))
    np.testing.assert_allclose(rows, np.concatenate(expected, axis=1), atol=1e-5)
    # the kernel is the mean of the layers' kernels, up to scale
    grams = sum(item @ item.T for item in expected)
    np.testing.assert_allclose(LossKernel.from_features(rows).covariance(), grams, atol=1e-4)


def test_layers_are_named_by_patterns_that_stop_at_dots() -> None:
    model, data = _network(), _images()
    assert Layers()(model, data).shape[1] == 6 + 10  # features and head
    assert Layers(["head"])(model, data).shape[1] == 10
    assert Layers(["features.[03]"])(model, data).shape[1] == 4 + 4
    assert Layers(["*.7", "head"])(model, data).shape[1] == 6 + 10
    with pytest.raises(InputError, match=r"names: 'body.\*' matches no module; the outermost are features, head"):
        Layers(["head", "body.*"])(model, data)
    with pytest.raises(InputError, match=r"baselines.layers.names must be a list of patterns or null, got '\*'"):
        Layers("*")
    with pytest.raises(InputError, match="matches no module that returns a tensor; name others"):
        Layers(["idle"])(
            _Tokens(), Data(*[TensorDataset(torch.ones(2, 4, 3), torch.ones(2).long())] * 2, cross_entropy)
        )


def _gradients(model: nn.Module, data: Data) -> np.ndarray:
    """The gradients themselves, by plain autograd."""
    rows = []
    for sample, target in data.probes:  # pyright: ignore[reportGeneralTypeIssues]
        model.zero_grad()
        data.loss(model.eval()(sample[None]), target[None]).sum().backward()
        rows.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]).numpy())
    return np.array(rows)


def test_sketches_of_gradients_have_their_inner_products_on_average() -> None:
    model, data = _network(), _images()
    exact = _gradients(model, data)
    grams = np.array([_gram(Gradients(size=128, seed=seed)(model, data)) for seed in range(40)])
    lengths = np.linalg.norm(exact, axis=1)
    scale = np.outer(lengths, lengths)
    spread = grams.std(0, ddof=1)
    assert np.abs((grams.mean(0) - exact @ exact.T) / (spread / np.sqrt(40))).max() < 4
    assert (spread / scale).max() < 3 / np.sqrt(128)
    assert (spread / scale).min() > 0.1 / np.sqrt(128)


def test_a_sketch_that_has_a_column_for_every_weight_moves_them_about() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    data = Data(*[TensorDataset(torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 0]))] * 2, cross_entropy)
    result = Gradients(size=10_000)(model, data)
    assert (result != 0).sum(1).tolist() == [6] * 5  # no two of the six weights share a column
    np.testing.assert_allclose(_gram(result), _gram(_gradients(model, data)), rtol=1e-4)
    np.testing.assert_array_equal(result, Gradients(size=10_000)(model, data))
    assert not np.array_equal(result, Gradients(size=10_000, seed=1)(model, data))


def _gram(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) @ rows.T


def test_weights_that_are_not_evaluated_have_no_gradient() -> None:
    assert np.isfinite(Gradients(size=16)(_Tokens(), _tokens())).all()


def test_baselines_of_plain_networks() -> None:
    data = Data(*[TensorDataset(torch.randn(6, 4), torch.zeros(6).long())] * 2, cross_entropy)
    model = MLP(4, 3, [5])
    assert Penultimate()(model, data).shape == (6, 5)
    assert Logits()(model, data).shape == (6, 3)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"baselines.gradients.size must be >= 2, got 1"):
        Gradients(size=1)
    with pytest.raises(InputError, match=r"baselines.gradients.seed must be >= 0, got -1"):
        Gradients(seed=-1)
    with pytest.raises(InputError, match="Flatten has no weights; drop the baseline gradients"):
        Gradients()(nn.Flatten(), _images())
