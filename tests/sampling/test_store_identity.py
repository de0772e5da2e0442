"""A store that is asked again returns its traces for the same network, data and loss, and for nothing else."""

import functools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import losskernel as lk
from losskernel.errors import DivergenceError, InputError, TraceError

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(1))
ROWS = TensorDataset(X, Y)
SAMPLER = functools.partial(lk.SGLD, step_size=1e-3, nbeta=10.0, localization=100.0)
SCHEDULE = lk.Schedule(chains=2, burn_in=2, draws=6, thinning=1, batch_size=8)


class Net(nn.Module):
    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.relu, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last, self.activation, self.scale = nn.Linear(5, 8), nn.Linear(8, 3), activation, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.last(self.activation(self.first(x)))


class Other(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-3


class Held(Dataset[Any]):
    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> Any:
        return self.inputs[row], Y[row]


def smoothed(smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none", label_smoothing=smoothing)


BASE: dict[str, Callable[[], Any]] = {
    "model": Net,
    "train": lambda: ROWS,
    "probes": lambda: ROWS,
    "loss": lambda: lk.losses.cross_entropy,
}
CHANGED: dict[str, dict[str, Callable[[], Any]]] = {
    "the activation": {"model": lambda: Net(torch.tanh)},
    "a constant of the network": {"model": lambda: Net(scale=2.0)},
    "the forward code": {"model": Other},
    "frozen weights": {"model": lambda: _frozen()},
    "another loss": {"loss": lambda: functools.partial(F.cross_entropy, reduction="none")},
    "content of the probes": {"probes": lambda: TensorDataset(X + 1, Y)},
    "targets of the probes": {"probes": lambda: TensorDataset(X, (Y + 1) % 3)},
    "content of the training set": {"train": lambda: TensorDataset(X + 1, Y)},
}
PAIRS: dict[str, tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]] = {
    "a closure's number": ({"loss": lambda: smoothed(0.1)}, {"loss": lambda: smoothed(0.2)}),
    "a partial's keyword": (
        {"loss": lambda: functools.partial(F.cross_entropy, reduction="none")},
        {"loss": lambda: functools.partial(F.cross_entropy, reduction="none", label_smoothing=0.1)},
    ),
    "a loss module's state": (
        {"loss": lambda: nn.CrossEntropyLoss(reduction="none")},
        {"loss": lambda: nn.CrossEntropyLoss(reduction="none", label_smoothing=0.3)},
    ),
    "a data set of one's own": ({"train": lambda: Held(X)}, {"train": lambda: Held(5 * X)}),
    "probes of one's own": ({"probes": lambda: Held(X)}, {"probes": lambda: Held(5 * X)}),
}


def _frozen() -> nn.Module:
    network = Net()
    network.first.requires_grad_(False)
    return network


def draw(out: Path, parts: dict[str, Callable[[], Any]], **options: Any) -> lk.LossTraces:
    made = {name: build() for name, build in (BASE | parts).items()}
    data = lk.Data(train=made["train"], probes=made["probes"], loss=made["loss"])
    return lk.sample(made["model"], data, SAMPLER, SCHEDULE, progress=False, out=out, **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "base.zarr"
    draw(out, {})
    return out


@pytest.mark.parametrize("change", CHANGED)
def test_a_store_of_something_else_is_refused(change: str, base: Path) -> None:
    with pytest.raises(TraceError, match="was sampled with other settings"):
        draw(base, CHANGED[change])


def test_the_same_built_anew_is_recognised(base: Path) -> None:
    assert draw(base, {}).losses.shape == (2, 6, 40)


@pytest.mark.parametrize("change", PAIRS)
def test_what_a_user_builds_is_recognised_and_its_change_refused(change: str, tmp_path: Path) -> None:
    first, second = PAIRS[change]
    traces = draw(tmp_path / "t.zarr", first)
    assert draw(tmp_path / "t.zarr", first).losses.equals(traces.losses)
    with pytest.raises(TraceError, match="was sampled with other settings"):
        draw(tmp_path / "t.zarr", second)


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    lock = threading.Lock()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        with lock:
            return lk.losses.cross_entropy(outputs, targets)

    draw(tmp_path / "t.zarr", {"loss": lambda: loss})
    with pytest.raises(TraceError, match=r"cannot tell whether data\.loss_code is the same: \(_thread\.lock"):
        draw(tmp_path / "t.zarr", {"loss": lambda: loss})


def test_stores_of_earlier_versions_are_compared_by_what_they_hold(tmp_path: Path) -> None:
    from losskernel.storage.settings_diff import differences

    draw(tmp_path / "t.zarr", {})
    identity = json.loads(json.dumps(lk.open_traces(tmp_path / "t.zarr").meta["identity"]))
    earlier = json.loads(json.dumps(identity))
    for part, key in (("model", "code"), ("data", "loss_code"), ("data", "train_content"), ("data", "probe_content")):
        del earlier[part][key]
    assert differences(earlier, identity) == []
    assert len(differences(earlier | {"seed": 1}, identity)) == 1


def test_frozen_weights_stand_still_unless_they_are_named() -> None:
    data = lk.Data(train=ROWS, probes=ROWS, loss=lk.losses.cross_entropy)

    def moved(network: nn.Module, **options: Any) -> int:
        sampler = functools.partial(SAMPLER, **options)
        return lk.sample(network, data, sampler, SCHEDULE, progress=False).meta["parameters"]["moving"]

    assert moved(Net()) == 75
    assert moved(_frozen()) == 27
    assert moved(_frozen(), parameters=["*"]) == 75
    assert moved(_frozen(), parameters=["first.*"]) == 48
    with pytest.raises(InputError, match=r"all weights of Net have requires_grad=False; name those that move"):
        moved(Net().requires_grad_(False))


def test_complex_weights_are_refused_by_name() -> None:
    class Spectral(Net):
        def __init__(self) -> None:
            super().__init__()
            self.wave = nn.Parameter(torch.ones(3, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.wave.abs()

    data = lk.Data(train=ROWS, probes=ROWS, loss=lk.losses.cross_entropy)
    with pytest.raises(InputError, match=r"wave of Spectral are complex, and only real weights are sampled"):
        lk.sample(Spectral(), data, SAMPLER, SCHEDULE, progress=False)
    only = functools.partial(SAMPLER, parameters=["first.*", "last.*"])
    assert lk.sample(Spectral(), data, only, SCHEDULE, progress=False).meta["parameters"]["moving"] == 75


def test_a_training_sample_without_a_loss_is_named_where_a_chain_meets_it() -> None:
    inputs = torch.randn(12_000, 5)
    seen = set(np.random.default_rng(0).permutation(12_000)[:10_000].tolist())
    bad = next(row for row in range(12_000) if row not in seen)
    inputs[bad] = float("nan")
    data = lk.Data(train=TensorDataset(inputs, torch.zeros(12_000).long()), probes=ROWS, loss=lk.losses.cross_entropy)
    schedule = lk.Schedule(chains=1, burn_in=0, draws=120, thinning=1, batch_size=128)
    with pytest.raises(DivergenceError, match=rf"the loss of training sample {bad} at the trained weights is nan"):
        lk.sample(Net(), data, SAMPLER, schedule, progress=False)
