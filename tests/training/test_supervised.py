import copy
import pickle
import random
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from command import config
from damage import flipped
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from losskernel import Data, fit
from losskernel.data import FlipAndCrop, arithmetic, stack
from losskernel.errors import DivergenceError, InputError, TraceError
from losskernel.losses import squared_error
from losskernel.models import MLP, MultitaskMLP, SmallCNN
from losskernel.storage.settings_diff import differences
from losskernel.training import Training, checkpoints, load_weights, retrain, save_weights

DATA = arithmetic(samples_per_task=60, probes_per_task=10)
SHORT = Training(steps=40, batch_size=20, optimizer=partial(torch.optim.Adam, lr=0.02), checkpoints=3)
quick = partial(fit, progress=False, trainer=partial(pl.Trainer, accelerator="cpu"))


def _model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MultitaskMLP(2, width=16)


def _loss(model: nn.Module) -> float:
    inputs, targets = stack(DATA.train)
    with torch.no_grad():
        return DATA.loss(model(inputs), targets).mean().item()


def _same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


class OnDisk(Dataset):
    """The training set one sample at a time."""

    def __len__(self) -> int:
        return len(DATA.train)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return DATA.train[index]


class Wrapped(nn.Module):
    """A network whose weights are all named `model.…`, as in many a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 1)


# --- fit


def test_training_lowers_the_loss_and_leaves_the_callers_model_alone() -> None:
    model = _model().train()
    before = copy.deepcopy(model)
    trained = quick(model, DATA, Training(steps=300, batch_size=30, optimizer=partial(torch.optim.Adam, lr=0.02)))
    assert _loss(trained) < 0.05 * _loss(model)
    assert _same(model, before)
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert not trained.training


def test_the_seed_fixes_the_weights() -> None:
    first, same, other = (quick(_model(), DATA, SHORT, seed=seed) for seed in (0, 0, 1))
    assert _same(first, same)
    assert not _same(first, other)


def test_a_training_set_on_disk_is_trained_on_alike() -> None:
    data = Data(train=OnDisk(), probes=DATA.probes, loss=DATA.loss)
    assert _same(quick(_model(), data, SHORT), quick(_model(), DATA, SHORT))


def test_batchnorm_learns_its_statistics_in_training_mode() -> None:
    torch.manual_seed(0)
    images = TensorDataset(5 + torch.randn(40, 1, 8, 8), torch.randn(40))
    data = Data(train=images, probes=images, loss=squared_error)
    trained = quick(SmallCNN(outputs=1, widths=(4,)), data, Training(steps=5, batch_size=20))
    assert trained.features[1].num_batches_tracked == 5
    assert trained.features[1].running_mean.abs().max() > 0


class Viewing(nn.Module):
    """A network that views activations as if channels came first, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).view(len(images), -1)).squeeze(1)


@pytest.mark.parametrize("kind", ["pictures that are viewed", "volumes"])
def test_networks_that_need_channels_first_are_trained(kind: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv3d(3, 1, 3), nn.Flatten(), nn.Linear(6**3, 1), nn.Flatten(0)]
    model, shape = (nn.Sequential(*layers), (8, 8, 8)) if kind == "volumes" else (Viewing(), (8, 8))
    inputs = TensorDataset(torch.randn(20, 3, *shape), torch.randn(20))
    trained = quick(model, Data(inputs, inputs, squared_error), Training(steps=2, batch_size=5))
    assert not _same(trained, model)


def test_convolutions_are_trained_with_channels_innermost() -> None:
    seen = []

    class Watch(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            weight = pl_module.model[0].weight
            seen.append(weight.is_contiguous(memory_format=torch.channels_last))

    images = TensorDataset(torch.randn(20, 3, 8, 8), torch.randn(20))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 1), nn.Flatten(0))
    trained = quick(model, Data(images, images, squared_error), Training(2, 5), callbacks=[Watch()])
    assert seen == [True]
    assert trained[0].weight.is_contiguous()


@pytest.mark.parametrize("limit", [{"max_steps": 5}, {"max_time": {"seconds": 0}}, {"fast_dev_run": True}])
def test_a_trainer_that_ends_early_is_not_taken_for_trained(limit: dict[str, Any]) -> None:
    early = partial(pl.Trainer, accelerator="cpu", **limit)
    with pytest.raises(
        InputError, match=r"the trainer ended training after \d of 40 steps; remove what stops it early"
    ):
        fit(_model(), DATA, SHORT, progress=False, trainer=early)


def test_the_learning_rate_decays_to_zero() -> None:
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    quick(_model(), DATA, SHORT, callbacks=[Watch()])
    assert len(rates) == 40
    assert rates[19] == pytest.approx(0.01, rel=0.01)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("milestones", "falls"), [([0.5, 0.75], [20, 30]), ((0.1, 0.33, 0.99), [4, 13]), ([0.3], [12])]
)
def test_the_learning_rate_falls_tenfold_after_each_milestone(milestones: Any, falls: list[int]) -> None:
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    quick(_model(), DATA, replace(SHORT, milestones=milestones), callbacks=[Watch()])
    assert rates == pytest.approx([0.02 * 0.1 ** sum(step >= fall for fall in falls) for step in range(40)])


def test_no_steps_return_the_initial_weights(tmp_path: Path) -> None:
    model = _model()
    result = quick(model, DATA, Training(steps=0), checkpoints=tmp_path)
    assert _same(result, model)
    assert result is not model
    assert not result.training
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_lie_along_the_way(tmp_path: Path) -> None:
    model = _model()
    trained = quick(model, DATA, SHORT, checkpoints=tmp_path / "checkpoints")
    steps = SHORT.checkpoint_steps()
    assert steps == [0, 1, 6, 40]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{step:07d}.pt" for step in steps]
    kept = [load_weights(model, tmp_path / "checkpoints" / name) for name in names]
    assert _same(kept[0], model)
    assert _same(kept[-1], trained)
    assert not _same(kept[1], kept[2])
    stored = torch.load(tmp_path / "checkpoints" / names[2], weights_only=True)
    assert stored["about"] == {"step": 6}
    # the first steps do not depend on how long training goes on, but for the decay: the kept weights are theirs
    assert _loss(kept[0]) > _loss(kept[2]) > _loss(kept[3])


def test_kept_weights_come_back_in_order(tmp_path: Path) -> None:
    model = _model()
    trained = quick(model, DATA, SHORT, checkpoints=tmp_path)
    save_weights(trained, tmp_path / "trained.pt", {})  # which is none of them
    result = dict(checkpoints(model, tmp_path))
    assert list(result) == SHORT.checkpoint_steps()
    assert _same(result[0], model)
    assert _same(result[40], trained)
    assert not any(network.training for network in result.values())
    assert list(checkpoints(model, tmp_path / "none")) == []
    for step in (10**7 - 1, 10**7):
        save_weights(model, tmp_path / f"step-{step:07d}.pt", {})
    assert [step for step, _ in checkpoints(model, tmp_path)][-2:] == [10**7 - 1, 10**7]


@pytest.mark.parametrize(
    ("steps", "checkpoints", "expected"),
    [(3000, 4, [0, 1, 14, 208, 3000]), (3, 8, [0, 1, 2, 3]), (100, 1, [0, 1]), (100, 0, []), (0, 5, [])],
)
def test_checkpoint_steps_are_spaced_logarithmically(steps: int, checkpoints: int, expected: list[int]) -> None:
    assert Training(steps=steps, checkpoints=checkpoints).checkpoint_steps() == expected


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (200, "the training loss is (nan|inf) at step 50; lower training.optimizer.lr"),
        (10, "ended with non-finite weights"),
    ],
)
def test_an_absurd_learning_rate_is_an_error(steps: int, message: str) -> None:
    training = Training(steps=steps, batch_size=20, optimizer=partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(DivergenceError, match=message):
        quick(_model(), DATA, training)


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"training.batch_size must be <= the 120 training samples, got 128; lower it"):
        quick(_model(), DATA, Training(steps=5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": -1}, "training.steps must be >= 0"),
        ({"steps": 1.5}, "training.steps must be a whole number"),
        ({"batch_size": 0}, "training.batch_size must be >= 1"),
        ({"checkpoints": -1}, "training.checkpoints must be >= 0"),
        ({"optimizer": "adam"}, "training.optimizer must build an optimiser, got 'adam'"),
        ({"augment": "flip"}, r"training.augment must be null or a function of \(inputs, generator\), got 'flip'"),
        ({"milestones": 0.5}, r"training.milestones must be null or a list of parts of training, got 0.5; e.g. \["),
        ({"milestones": []}, r"must be null or a list of parts of training, got \[\]"),
        ({"milestones": ["half"]}, "training.milestones must be a number, got 'half'"),
        ({"milestones": [0, 0.5]}, "training.milestones must be > 0, got 0"),
        (
            {"milestones": [0.75, 0.5]},
            r"training.milestones must rise and be < 1, got \[0.75, 0.5\]; e.g. \[0.5,0.75\]",
        ),
        ({"milestones": [80, 120]}, r"training.milestones must rise and be < 1, got \[80, 120\]"),
    ],
)
def test_a_training_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Training(**given)


# --- augmentation


def jitter(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def test_every_draw_of_a_training_sample_is_augmented() -> None:
    seen = []

    def blank(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(inputs)
        return torch.zeros_like(inputs)

    model = nn.Linear(4, 1)
    trained = quick(model, DATA, replace(SHORT, augment=blank))
    # No weight that an input passes has a gradient, at any step; the bias has.
    assert torch.equal(trained.weight, model.weight)
    assert not torch.equal(trained.bias, model.bias)
    drawn, samples = torch.cat(seen[:6]), stack(DATA.train)[0]  # an epoch
    assert sorted(drawn.tolist()) == sorted(samples.tolist())


def test_augmentation_leaves_the_data_and_the_probes_alone() -> None:
    before = [stack(dataset) for dataset in (DATA.train, DATA.probes)]
    before = [tuple(tensor.clone() for tensor in pair) for pair in before]

    def spoil(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return inputs.zero_()  # in place

    quick(_model(), DATA, replace(SHORT, augment=spoil))
    for pair, dataset in zip(before, (DATA.train, DATA.probes), strict=True):
        assert all(torch.equal(old, new) for old, new in zip(pair, stack(dataset), strict=True))


def test_the_seed_fixes_the_augmentation() -> None:
    changed = replace(SHORT, augment=jitter)
    first, same, plain = (quick(_model(), DATA, item, seed=3) for item in (changed, changed, SHORT))
    assert _same(first, same)
    assert not _same(first, plain)
    torch.manual_seed(7)
    torch.rand(5)  # the caller's random numbers have no part in it
    assert _same(quick(_model(), DATA, changed, seed=3), first)
    numbers = []

    def note(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        numbers.append(torch.rand(1, generator=generator).item())
        return inputs

    for seed in (0, 1):
        quick(_model(), DATA, replace(SHORT, augment=note), seed=seed)
    assert len(set(numbers)) >= 80  # fresh at every step, and others for another seed


def test_no_augmentation_is_that_which_changes_nothing() -> None:
    kept = replace(SHORT, augment=lambda inputs, generator: inputs)
    assert _same(quick(_model(), DATA, kept), quick(_model(), DATA, SHORT))


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_on_disk_are_augmented_alike(workers: int) -> None:
    data = Data(train=OnDisk(), probes=DATA.probes, loss=DATA.loss, workers=workers)
    changed = replace(SHORT, augment=jitter)
    assert _same(quick(_model(), data, changed), quick(_model(), DATA, changed))


def test_a_training_without_the_newer_settings_is_described_as_ever() -> None:
    # Kept retrainings are found by this.
    old = "Training(steps=5, batch_size=128, optimizer=<class 'torch.optim.adam.Adam'>, checkpoints=8)"
    assert repr(Training(steps=5)) == old
    newer = Training(steps=5, milestones=[0.5], augment=FlipAndCrop(2))
    assert repr(newer) == f"{old[:-1]}, milestones=[0.5], augment=FlipAndCrop(padding=2, flip=True))"


def test_a_run_of_before_the_newer_settings_is_the_same_run() -> None:
    requested = OmegaConf.to_container(config("training=adam").training)
    stored = {key: value for key, value in requested.items() if key not in ("milestones", "augment")}
    assert differences(stored, requested) == []
    assert len(differences(stored, OmegaConf.to_container(config("training=stepped_sgd").training))) > 2


# --- training again


def test_a_network_that_is_trained_again_has_weights_of_its_own() -> None:
    model = _model()
    before = copy.deepcopy(model)
    first, same, other = (retrain(model, SHORT, DATA, seed) for seed in (1, 1, 2))
    assert _same(model, before)
    assert _same(first, same)
    assert not _same(first, other)
    assert not first.training
    # nothing of the model's own weights is left: another start gives the same
    assert _same(retrain(_model(5), SHORT, DATA, 1), first)
    assert not _same(quick(model, DATA, SHORT, seed=1), first)


def test_its_initial_weights_are_the_seeds() -> None:
    model, state = _model(), torch.get_rng_state()
    start = retrain(model, Training(steps=0), DATA, 4)
    assert torch.equal(torch.get_rng_state(), state)
    drawn = copy.deepcopy(_model(9))
    torch.manual_seed(4)
    for module in drawn.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    assert _same(start, drawn)
    # running statistics begin anew too
    network = SmallCNN(outputs=1, widths=(4,))
    network.features[1].running_mean.fill_(3.0)
    assert retrain(network, Training(steps=0), DATA, 0).features[1].running_mean.abs().max() == 0
    assert network.features[1].running_mean.min() == 3


def test_a_network_is_trained_again_on_other_data_and_in_another_process() -> None:
    half = Data(train=Subset(DATA.train, range(60)), probes=DATA.probes, loss=DATA.loss)
    work = partial(retrain, _model(), SHORT)
    result = work(half, 1)
    assert not _same(result, work(DATA, 1))
    assert _same(pickle.loads(pickle.dumps(work))(half, 1), result)


def test_an_augmented_training_is_repeated_in_another_process() -> None:
    work = partial(retrain, _model(), replace(SHORT, augment=jitter, milestones=[0.5]))
    assert _same(pickle.loads(pickle.dumps(work))(DATA, 1), work(DATA, 1))


class Own(nn.Module):
    """Draws its weights in its own way, over what its layers drew."""

    def __init__(self, inner: nn.Module, value: float) -> None:
        super().__init__()
        self.inner, self.value = inner, value

    def reset_parameters(self) -> None:
        for weight in self.parameters():
            nn.init.constant_(weight, self.value)


def test_a_network_that_draws_its_own_weights_has_the_last_word() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    again = retrain(nn.Sequential(Own(nn.Sequential(first, Own(second, 3.0)), 5.0)), Training(steps=0), DATA, 0)
    assert all((weight == 5).all() for weight in again.parameters())
    inside = retrain(nn.Sequential(first, Own(second, 3.0)), Training(steps=0), DATA, 0)
    assert (inside[1].inner.weight == 3).all()  # pyright: ignore[reportAttributeAccessIssue]
    assert not (inside[0].weight == 3).any()  # pyright: ignore[reportAttributeAccessIssue]


class Free(nn.Module):
    """A layer that cannot draw its weights anew."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))


def test_layers_that_cannot_draw_anew_keep_their_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 1), Free())
    again = retrain(model, Training(steps=0), DATA, 0)
    assert torch.equal(again[1].scale, model[1].scale)  # pyright: ignore[reportArgumentType]
    assert not torch.equal(again[0].weight, model[0].weight)  # pyright: ignore[reportArgumentType]


# --- weights on disk


def test_saved_weights_come_back(tmp_path: Path) -> None:
    save_weights(_model(1), tmp_path / "new" / "weights.pt", {"step": 7})
    template = _model(0)
    loaded = load_weights(template, tmp_path / "new" / "weights.pt")
    assert _same(loaded, _model(1))
    assert _same(template, _model(0))
    assert not loaded.training
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("kind", ["bare", "Lightning", "of old"])
def test_other_peoples_checkpoints_can_be_read(tmp_path: Path, kind: str) -> None:
    weights = _model(1).state_dict()
    if kind == "Lightning":
        weights = {"state_dict": {f"model.{name}": value for name, value in weights.items()}, "epoch": 3}
    torch.save(weights, tmp_path / "other.ckpt", _use_new_zipfile_serialization=kind != "of old")
    assert _same(load_weights(_model(0), str(tmp_path / "other.ckpt")), _model(1))


def test_a_network_whose_own_names_begin_with_model_can_be_read(tmp_path: Path) -> None:
    wrapped = Wrapped()
    save_weights(wrapped, tmp_path / "weights.pt", {})
    assert _same(load_weights(Wrapped(), tmp_path / "weights.pt"), wrapped)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(InputError, match=f"checkpoint {path} does not exist; give the path of a saved state dict"):
            load_weights(_model(), path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half an archive"])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint .*weights.pt cannot be read: it is no state \(.*\); restore it"):
        load_weights(_model(), tmp_path / "weights.pt")


def test_a_bit_that_has_flipped_since_weights_were_saved_is_seen(tmp_path: Path) -> None:
    path, rng = tmp_path / "step-0000007.pt", random.Random(0)
    save_weights(_model(), path, {"step": 7})
    whole, said = path.read_bytes(), []
    for position in rng.sample(range(len(whole)), 100):
        content = bytearray(whole)
        content[position] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            assert _same(load_weights(_model(1), path), _model())  # what fell is the checksum's own name
        except InputError as error:
            said.append(str(error))
    assert len(said) > 95
    wanted = (
        rf"checkpoint {path} cannot be read: .*; restore it from a copy, save it again, or train again in another.*"
    )
    assert all(re.fullmatch(wanted, item) for item in said)
    flipped(path)
    with pytest.raises(InputError, match=r"step-0000007.pt cannot be read: its content has changed since it was wri"):
        list(checkpoints(_model(), tmp_path))


def test_a_checkpoint_of_a_disk_that_fails_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    save_weights(_model(), tmp_path / "weights.pt", {})
    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(InputError, match=r"weights.pt cannot be read: \[Errno 5\] Input/output error; restore it"):
        load_weights(_model(), tmp_path / "weights.pt")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save(_model(), tmp_path / "weights.pt")  # a pickled module, not its weights
    with pytest.raises(InputError, match="holds more than weights"):
        load_weights(_model(), tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "stored",
    [
        MLP(4, 1, (3,)).state_dict(),
        MultitaskMLP(2, width=17).state_dict(),
        {},
        [1, 2, 3],
        {"state_dict": {"x": 1}},
        {"state_dict": torch.ones(2)},
    ],
    ids=["other names", "other shapes", "empty", "list", "no tensors", "a tensor"],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, stored: Any) -> None:
    torch.save(stored, tmp_path / "weights.pt")
    refused = r"checkpoint .*weights.pt (does not fit MultitaskMLP: \d+ |holds no state dict)"
    with pytest.raises(InputError, match=refused) as caught:
        load_weights(_model(), tmp_path / "weights.pt")
    assert "\n" not in str(caught.value)


def test_weights_without_names_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"checkpoint .*weights.pt holds no state dict"):
        load_weights(_model(), tmp_path / "weights.pt")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TraceError, match=r"cannot write .*weights.pt: .*; free space or choose another folder"):
        save_weights(_model(), tmp_path / "file" / "weights.pt", {})
