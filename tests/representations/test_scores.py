import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import flipped
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from losskernel import Data, Training, fit
from losskernel.data import digits, stack
from losskernel.errors import InputError, TraceError
from losskernel.losses import cross_entropy, squared_error
from losskernel.models import MLP, SmallCNN
from losskernel.representations import scores
from losskernel.representations.evaluation import History
from losskernel.representations.scores import (
    EL2N,
    AreaUnderMargin,
    ConfidentLearning,
    GraNd,
    Margin,
    SelfInfluence,
    Uncertainty,
    stratified,
)
from losskernel.representations.scores import gradient_norms as norms_of
from losskernel.training import checkpoints, retrain

AT_THE_END = (Margin(), Margin("probability"), Uncertainty())
ALONG = (EL2N(), GraNd(), SelfInfluence(), AreaUnderMargin())


def _never(data: Data, seed: int) -> nn.Module:
    raise AssertionError("nothing is to be trained")


def _history(networks: dict[int, nn.Module], folder: Path = Path("nowhere"), train: Any = _never) -> History:
    return History(train, lambda: iter(networks.items()), folder)


def _linear(seed: int, inputs: int = 3, classes: int = 2) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, classes)


def _points(count: int = 7, classes: int = 2, inputs: int = 3) -> Data:
    generator = torch.Generator().manual_seed(0)
    held = TensorDataset(torch.randn(count, inputs, generator=generator), torch.arange(count) % classes)
    return Data(held, held, cross_entropy, train_ids=range(count))


def _asked(baseline: Any, model: nn.Module, data: Data, networks: dict[int, nn.Module]) -> np.ndarray:
    return baseline(model, data, _history(networks)) if baseline in ALONG else baseline(model, data)


def _two_classes(model: nn.Linear, data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins, probabilities of the given class, and gradient norms of a linear softmax, by hand."""
    inputs, given = (part.numpy() for part in stack(data.probes))
    weight, bias = model.weight.detach().numpy().astype(float), model.bias.detach().numpy().astype(float)
    margin = (inputs @ (weight[1] - weight[0]) + bias[1] - bias[0]) * (2 * given - 1)
    probability = 1 / (1 + np.exp(-margin))
    # the gradient in the weights is (p - onehot) x', in the bias p - onehot
    return margin, probability, np.sqrt(2) * (1 - probability) * np.sqrt(np.square(inputs).sum(1) + 1)


# --- scores of kept networks


def test_scores_of_a_linear_softmax_are_those_by_hand() -> None:
    model, data = _linear(0), _points()
    kept = {0: _linear(9), 2: _linear(1), 10: _linear(2), 100: _linear(3)}
    hand = {step: _two_classes(network, data) for step, network in kept.items()}
    margin, probability, _ = _two_classes(model, data)
    expected = {
        Margin(): -margin,
        Margin("probability"): 1 - 2 * probability,
        Uncertainty(): -np.abs(margin),
        # of 100 steps, those kept after 2 and 10 lie in the first fifth
        EL2N(): np.sqrt(2) * ((1 - hand[2][1]) + (1 - hand[10][1])) / 2,
        EL2N(until=0.05): np.sqrt(2) * (1 - hand[2][1]),
        EL2N(until=1): np.sqrt(2) * sum(1 - hand[step][1] for step in (2, 10, 100)) / 3,
        GraNd(): (hand[2][2] + hand[10][2]) / 2,
        SelfInfluence(): sum(hand[step][2] ** 2 for step in (2, 10, 100)),
        AreaUnderMargin(): -sum(hand[step][0] for step in (2, 10, 100)) / 3,
    }
    for baseline, values in expected.items():
        needs = getattr(baseline, "needs_history", False)
        result = baseline(model, data, _history(kept)) if needs else baseline(model, data)
        assert result.shape == (7, 1)
        np.testing.assert_allclose(result[:, 0], values, rtol=1e-5, err_msg=repr(baseline))


def test_self_influence_of_a_loaded_network_is_that_of_its_weights() -> None:
    model, data = _linear(0), _points()
    result = SelfInfluence()(model, data, _history({}))
    np.testing.assert_allclose(result[:, 0], _two_classes(model, data)[2] ** 2, rtol=1e-5)


@torch.no_grad()
def test_the_margin_is_over_the_best_other_class() -> None:
    model, data = _linear(0, classes=5), _points(20, classes=5)
    logits, given = model(stack(data.probes)[0]).numpy(), stack(data.probes)[1].numpy()
    for row, probability, result, unsure in zip(
        logits, given, Margin()(model, data)[:, 0], Uncertainty()(model, data)[:, 0], strict=True
    ):
        assert result == pytest.approx(max(np.delete(row, probability)) - row[probability], abs=1e-6)
        assert unsure == pytest.approx(np.diff(np.sort(row)[-2:])[0] * -1, abs=1e-6)


@pytest.mark.parametrize("baseline", [*AT_THE_END, *ALONG], ids=repr)
def test_scores_follow_the_probes_and_leave_the_network_alone(baseline: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 4)).train()
    data = _points(70, classes=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = _asked(baseline, model, data, {1: model, 5: model})
    order = np.random.default_rng(0).permutation(70)
    turned = Data(data.train, Subset(data.probes, order.tolist()), cross_entropy)
    np.testing.assert_allclose(_asked(baseline, model, turned, {1: model, 5: model}), result[order], rtol=1e-4)
    assert result.dtype == np.float64
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def _plainly(model: nn.Module, data: Data) -> np.ndarray:
    rows = []
    for sample, target in zip(*stack(data.probes), strict=True):
        model.eval().zero_grad()
        data.loss(model(sample[None]), target[None]).sum().backward()
        rows.append(np.sqrt(sum(float(weight.grad.square().sum()) for weight in model.parameters())))
    return np.array(rows)


@pytest.mark.parametrize("together", [2**20, 3 * 131, 0], ids=["side by side", "three at a time", "one by one"])
def test_gradient_norms_are_exact_whichever_way(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, data = MLP(6, 5, [6, 6]), _points(7, classes=5, inputs=6)
    monkeypatch.setattr(scores, "_NUMBERS", together)
    np.testing.assert_allclose(norms_of(model, data).numpy(), _plainly(model, data), rtol=1e-5)


def test_gradient_norms_of_convolutions_are_those_of_evaluation_mode() -> None:
    torch.manual_seed(0)
    model = SmallCNN(widths=(4, 6)).train()
    images = TensorDataset(3 + torch.randn(5, 1, 8, 8), torch.arange(5))
    data = Data(images, images, cross_entropy)
    np.testing.assert_allclose(norms_of(model, data).numpy(), _plainly(model.train(), data), rtol=1e-4)


def test_gradient_norms_need_no_classes() -> None:
    data = Data(*[TensorDataset(torch.randn(4, 3), torch.randn(4, 2))] * 2, squared_error)
    model = _linear(0)
    np.testing.assert_allclose(norms_of(model, data).numpy(), _plainly(model, data), rtol=1e-5)


# --- what does not suit


@pytest.mark.parametrize("baseline", [*AT_THE_END, EL2N(), AreaUnderMargin()], ids=repr)
def test_what_is_no_classifier_is_refused(baseline: Any) -> None:
    model = _linear(0)
    inputs, classes = torch.randn(4, 3), torch.zeros(4).long()
    for targets, network, message in [
        (torch.randn(4, 2), model, r"targets must be whole numbers from 0 to 1, one per probe, got torch.float32"),
        (classes + 2, model, r"targets must be whole numbers from 0 to 1, .* got torch.int64 of shape \(4,\); drop"),
        (classes, _linear(0, classes=1), r"must return logits \[probes, classes >= 2\], got shape \(4, 1\); drop"),
    ]:
        data = Data(*[TensorDataset(inputs, targets)] * 2, cross_entropy)
        with pytest.raises(InputError, match=message):
            _asked(baseline, network, data, {1: network, 5: network})


@pytest.mark.parametrize("baseline", [EL2N(), GraNd(), AreaUnderMargin()], ids=repr)
def test_without_kept_weights_there_is_a_remedy(baseline: Any) -> None:
    with pytest.raises(InputError, match=r"no weights were kept .* set training.checkpoints=8 and train"):
        baseline(_linear(0), _points(), _history({}))
    # the untrained network is not one of them
    with pytest.raises(InputError, match="no weights were kept"):
        baseline(_linear(0), _points(), _history({0: _linear(0)}))


def test_weights_kept_too_late_are_named_so() -> None:
    with pytest.raises(InputError, match=r"no weights were kept in the first 20% of training"):
        EL2N()(_linear(0), _points(), _history({0: _linear(0), 100: _linear(1)}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EL2N(until=0), "baselines.el2n.until must be > 0"),
        (lambda: GraNd(until=1.5), "baselines.grand.until must be <= 1, got 1.5"),
        (lambda: EL2N(until="early"), "baselines.el2n.until must be a number"),  # pyright: ignore
        (lambda: Margin("odds"), "baselines.margin.of must be one of logit, probability, got 'odds'"),
        (lambda: ConfidentLearning(folds=1), "baselines.confident_learning.folds must be >= 2, got 1"),
        (lambda: ConfidentLearning(seed=-1), "baselines.confident_learning.seed must be >= 0"),
        (lambda: ConfidentLearning(method="loss"), "confident_learning.method must be one of normalized_margin, self_"),
        (lambda: norms_of(nn.Flatten(), _points()), "Flatten has no weights; drop this baseline"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


# --- confident learning


class Memory(nn.Module):
    """Says class 1 of inputs that it was trained on, class 0 of all others, as far as its sureness goes."""

    def __init__(self, seen: Tensor, sureness: float) -> None:
        super().__init__()
        self.seen, self.sureness = seen, sureness

    def forward(self, inputs: Tensor) -> Tensor:
        known = (inputs[:, None] == self.seen).all(2).any(1).float()
        return self.sureness * torch.stack([1 - known, known, torch.zeros_like(known)], dim=1)


def _remember(calls: list[int], data: Data, seed: int) -> nn.Module:
    calls.append(seed)
    return Memory(stack(data.train)[0], 1.0 + seed)


def _some_probed(given: int) -> Data:
    """Thirty training samples; the probes are ten of them and two others, all of one given class."""
    inputs = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(32) % 3
    probes = TensorDataset(inputs[20:], torch.full((12,), given))
    train = TensorDataset(inputs[:30], targets[:30])
    return Data(train, probes, cross_entropy, ids=range(20, 32), train_ids=range(30))


def test_every_probe_is_judged_by_networks_that_have_not_seen_it(tmp_path: Path) -> None:
    calls: list[int] = []
    data = _some_probed(given=0)
    learner = ConfidentLearning(folds=3, method="self_confidence", seed=5)
    result = learner(Memory(torch.zeros(1, 3), 1.0), data, _history({}, tmp_path, partial(_remember, calls)))
    assert calls == [5, 6, 7]
    sure = {seed: np.exp(1.0 + seed) / (np.exp(1.0 + seed) + 2) for seed in calls}
    fold = stratified(stack(data.train)[1].numpy(), 3, seed=5)
    expected = [1 - sure[5 + fold[number]] for number in range(20, 30)]
    np.testing.assert_allclose(result[:10, 0], expected, rtol=1e-5)
    # probes that no network was trained on: the mean over all
    np.testing.assert_allclose(result[10:, 0], 1 - np.mean(list(sure.values())), rtol=1e-5)


@pytest.mark.parametrize("method", ["normalized_margin", "self_confidence", "confidence_weighted_entropy"])
def test_scores_are_cleanlabs(method: str, tmp_path: Path) -> None:
    history = _history({}, tmp_path, lambda data, seed: Memory(torch.zeros(1, 3), 2.0))
    wrong, right = (
        ConfidentLearning(2, method)(Memory(torch.zeros(1, 3), 2.0), _some_probed(given), history)[:, 0]
        for given in (1, 0)
    )
    low, high = 1 / (np.exp(2) + 2), np.exp(2) / (np.exp(2) + 2)
    assert (wrong > right).all()
    assert 0 <= right.min() <= wrong.max() <= 1
    if method == "normalized_margin":
        np.testing.assert_allclose(wrong, 1 - (low - high + 1) / 2, rtol=1e-6)
        np.testing.assert_allclose(right, 1 - (high - low + 1) / 2, rtol=1e-6)
    if method == "self_confidence":
        np.testing.assert_allclose(wrong, 1 - low, rtol=1e-6)


@pytest.mark.parametrize(("samples", "folds"), [(100, 5), (101, 7), (5, 5)])
def test_folds_have_equal_shares_of_every_class(samples: int, folds: int) -> None:
    classes = np.random.default_rng(0).integers(4, size=samples)
    fold = stratified(classes, folds, seed=3)
    table = np.array([[np.sum((fold == f) & (classes == c)) for f in range(folds)] for c in range(4)])
    assert np.ptp(table, axis=1).max() <= 1
    assert np.ptp(table.sum(0)) <= 1
    np.testing.assert_array_equal(fold, stratified(classes, folds, seed=3))
    assert samples == 5 or not np.array_equal(fold, stratified(classes, folds, seed=4))


def _die_at_the_third(log: Path, data: Data, seed: int) -> nn.Module:
    with log.open("a") as file:
        file.write(f"{seed}\n")
    if seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return Memory(stack(data.train)[0], 1.0 + seed)


def test_a_run_that_is_killed_between_folds_goes_on_where_it_was(tmp_path: Path) -> None:
    model, data, learner = Memory(torch.zeros(1, 3), 1.0), _some_probed(given=0), ConfidentLearning(folds=4)
    whole = learner(model, data, _history({}, tmp_path / "whole", partial(_remember, [])))
    dying = _history({}, tmp_path / "killed", partial(_die_at_the_third, tmp_path / "log"))
    process = multiprocessing.get_context("fork").Process(target=learner, args=(model, data, dying))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2"]
    folder = tmp_path / "killed" / scores.FOLDS / "4-seed-0"
    assert sorted(path.name for path in folder.iterdir()) == ["fold-0.npz", "fold-1.npz"]
    (folder / "fold-2.npz.0.partial").write_bytes(b"half a file")
    calls: list[int] = []
    again = learner(model, data, _history({}, tmp_path / "killed", partial(_remember, calls)))
    assert calls == [2, 3]
    np.testing.assert_array_equal(again, whole)
    flipped(folder / "fold-1.npz")
    with pytest.raises(TraceError, match=r"fold-1.npz is damaged: .*; remove it, and the same command makes it again"):
        learner(model, data, _history({}, tmp_path / "killed", partial(_remember, [])))
    # other folds are other networks
    ConfidentLearning(folds=2)(model, data, _history({}, tmp_path / "killed", partial(_remember, calls)))
    assert calls == [2, 3, 0, 1]


class OnDisk(Dataset):
    def __init__(self, held: Any) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: int) -> Any:
        return self._held[index]


def test_a_training_set_on_disk_gives_the_same_folds(tmp_path: Path) -> None:
    model, data = Memory(torch.zeros(1, 3), 1.0), _some_probed(given=0)
    streamed = Data(OnDisk(data.train), data.probes, cross_entropy, ids=data.ids, train_ids=data.train_ids)
    result = [
        ConfidentLearning(folds=3)(model, item, _history({}, tmp_path / name, partial(_remember, [])))
        for name, item in (("held", data), ("streamed", streamed))
    ]
    np.testing.assert_array_equal(*result)


def test_more_folds_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folds must be <= the 30 training samples, got 31; lower it"):
        ConfidentLearning(folds=31)(Memory(torch.zeros(1, 3), 1.0), _some_probed(0), _history({}, tmp_path))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / scores.FOLDS).write_text("in the way")
    history = _history({}, tmp_path, partial(_remember, []))
    with pytest.raises(TraceError, match=r"cannot write .*fold-0.npz"):
        ConfidentLearning(folds=2)(Memory(torch.zeros(1, 3), 1.0), _some_probed(0), history)


def test_without_cleanlab_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs cleanlab, which is not installed; pip install losskernel\[cleanlab\]"):
        ConfidentLearning()


# --- planted errors


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Data, History, np.ndarray]:
    """A network trained on digits of which a tenth have a wrong label, and which."""
    torch.set_num_threads(1)
    inputs, true = stack(digits(probes=200).train)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(true)) < 0.1
    given = torch.as_tensor(np.where(wrong, (true.numpy() + rng.integers(1, 10, len(true))) % 10, true.numpy()))
    chosen = rng.permutation(len(true))[:400]
    probes = TensorDataset(inputs[chosen], given[chosen])
    data = Data(TensorDataset(inputs, given), probes, cross_entropy, ids=chosen, train_ids=range(len(true)))
    torch.manual_seed(0)
    model, folder = MLP(64, 10), tmp_path_factory.mktemp("noisy")
    training = Training(steps=300, optimizer=partial(torch.optim.Adam, lr=3e-3))
    trained = fit(model, data, training, checkpoints=folder / "checkpoints", progress=False)
    history = History(partial(retrain, model, training), partial(checkpoints, model, folder / "checkpoints"), folder)
    return trained, data, history, wrong[chosen]


@pytest.mark.parametrize(
    "baseline",
    [
        *(Margin(), EL2N(), GraNd(), SelfInfluence(), AreaUnderMargin()),
        pytest.param(ConfidentLearning(folds=2), marks=pytest.mark.slow),  # trains two networks more
    ],
    ids=repr,
)
def test_planted_errors_are_found(baseline: Any, noisy: tuple[nn.Module, Data, History, np.ndarray]) -> None:
    model, data, history, wrong = noisy
    needs = getattr(baseline, "needs_history", False)
    result = baseline(model, data, history) if needs else baseline(model, data)
    assert roc_auc_score(wrong, result[:, 0]) > 0.97
