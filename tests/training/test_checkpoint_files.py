"""Interrupted trainings: killed at random moments and stopped by signals, continued to bit-identical weights."""

import functools
import itertools
import multiprocessing
import os
import pickle
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from command import MAIN, TINY, Forked, call, config
from damage import flipped
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import losskernel as lk
from losskernel.cli.build import build
from losskernel.data import FlipAndCrop, arithmetic
from losskernel.data.base import Data, size
from losskernel.errors import InputError, Interrupted, TraceError
from losskernel.losses import cross_entropy
from losskernel.models import MultitaskMLP, SmallCNN
from losskernel.representations.baselines import retraining
from losskernel.runs.folder import RunFolder
from losskernel.runs.run import Study, preflight, run, trained
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.torch_files import atomic_save
from losskernel.training import Training, checkpoint_files, fit, retrain
from losskernel.training.checkpoint_files import STATE, drop_state

STEPPED = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4)
SGLD = functools.partial(lk.SGLD, step_size=1e-3, nbeta=1.0, localization=1.0)
ADAM = functools.partial(torch.optim.Adam, lr=0.02)


class Noisy(Dataset):
    """Samples that draw random numbers of their own, as torchvision's transforms do."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __len__(self) -> int:
        return size(self._data.train)

    def __getitem__(self, index: int) -> Any:
        inputs, target = self._data.train[index]
        return inputs + 0.1 * torch.randn(inputs.shape), target


def forgetful() -> nn.Module:
    """A network with all that training changes beside weights: BatchNorm's statistics, and dropout's random numbers."""
    layers = [SmallCNN(outputs=10, widths=(4,)), nn.ReLU(), nn.Dropout(0.3), nn.Linear(10, 10)]
    return nn.Sequential(*layers)


def recipe(kind: str) -> tuple[nn.Module, Data, Training]:
    """The trainings that the tests here repeat."""
    torch.manual_seed(0)
    if kind == "adam":
        return MultitaskMLP(2), arithmetic(probes_per_task=5), Training(800, 32, ADAM)
    pictures = TensorDataset(torch.randn(200, 1, 8, 8), torch.arange(200) % 10)
    data = Data(pictures, pictures, cross_entropy)
    if kind == "augmented":
        return forgetful(), data, Training(400, 32, STEPPED, milestones=[0.5, 0.75], augment=FlipAndCrop(1))
    return forgetful(), Data(Noisy(data), data.probes, data.loss), Training(40, 32, STEPPED, milestones=[0.5])


def train(kind: str, folder: Path | None, *callbacks: pl.Callback, **options: Any) -> nn.Module:
    """Train with states, where there is a folder for them."""
    model, data, training = recipe(kind)
    every = None if folder is None else options.pop("state_every", 1000.0)
    return fit(
        model, data, training, progress=False, checkpoints=folder, callbacks=callbacks, state_every=every, **options
    )


@functools.cache
def undisturbed(kind: str) -> nn.Module:
    return train(kind, None)


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


class Signal(pl.Callback):
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self._step, self._number = step, number

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.step == self._step:
            os.kill(os.getpid(), self._number)


def child(kind: str, folder: Path) -> None:
    """Train in a process of its own, with states as often as they may be written."""
    torch.set_num_threads(1)
    train(kind, folder, state_every=0.0)


def written(folder: Path) -> int:
    """When the state was last written; 0 where there is none."""
    try:
        return (folder / STATE).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("kind", [pytest.param("adam", marks=pytest.mark.slow), "augmented"])
def test_a_training_killed_at_random_moments_ends_bit_identical(kind: str, tmp_path: Path) -> None:
    server = multiprocessing.get_context("forkserver")
    rng, kills = random.Random(0), 0
    while True:
        process, before = server.Process(target=child, args=(kind, tmp_path)), written(tmp_path)
        process.start()
        if kills < 2:
            process.join(rng.uniform(0.05, 0.4))  # any moment, those before the first step included
        elif kills < 6:
            while process.is_alive() and written(tmp_path) == before:
                process.join(0.005)
            process.join(rng.uniform(0.0, 0.06))  # any moment in training
        else:
            process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode is None, "the training failed by itself"
        process.kill()
        process.join()
        kills += 1
    assert kills >= 4
    model, _, training = recipe(kind)
    kept = [tmp_path / f"step-{step:07d}.pt" for step in training.checkpoint_steps()]
    assert same(lk.training.load_weights(model, kept[-1]), undisturbed(kind))
    whole = tmp_path / "whole"
    train(kind, whole)
    assert [path.read_bytes() for path in kept] == [(whole / path.name).read_bytes() for path in kept]
    drop_state(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*(path.name for path in kept), "whole"])


@pytest.mark.parametrize("kind", ["adam", "augmented", "own random numbers"])
def test_a_training_stopped_at_any_step_goes_on_as_if_nothing_had_been(kind: str, tmp_path: Path) -> None:
    steps = recipe(kind)[2].steps
    for step in (1, 2, steps // 2 - 1, steps // 2, steps // 2 + 1, steps - 1, steps):
        with pytest.raises(Interrupted) as stopped:
            train(kind, tmp_path, Signal(step))
        said = (
            f"stopped after {step} of {steps} training steps (SIGTERM); the same call resumes from {tmp_path}/{STATE}"
        )
        assert (str(stopped.value), stopped.value.number) == (said, signal.SIGTERM)
    assert same(train(kind, tmp_path), undisturbed(kind))


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1", "SIGUSR2"])
def test_every_signal_of_a_scheduler_and_ctrl_c_stop_a_training(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    handler = signal.getsignal(number)
    said = "Ctrl-C" if name == "SIGINT" else name
    with pytest.raises(Interrupted, match=rf"after 7 of 800 training steps \({said}\)") as stopped:
        train("adam", tmp_path, Signal(7, number))
    assert stopped.value.number == number
    assert signal.getsignal(number) == handler
    with pytest.raises(Interrupted, match=r"after 5 of 800 training steps \(.*\); no state is saved"):
        train("adam", None, Signal(5, number))


def test_a_training_without_states_leaves_none_and_heeds_none(tmp_path: Path) -> None:
    model, data, training = recipe("adam")
    with pytest.raises(Interrupted):
        train("adam", tmp_path, Signal(3))
    other = Training(20, 32, ADAM, checkpoints=2)
    fit(model, data, other, progress=False, checkpoints=tmp_path)  # another training, as ever
    (tmp_path / STATE).unlink()
    fit(model, data, other, progress=False, checkpoints=tmp_path)
    assert not (tmp_path / STATE).exists()
    with pytest.raises(InputError, match="state_every must be >= 0, got -1"):
        fit(model, data, training, progress=False, checkpoints=tmp_path, state_every=-1)


def test_networks_that_are_trained_again_leave_no_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, data, _ = recipe("adam")
    monkeypatch.setattr(checkpoint_files.StateFile, "write", lambda *_: pytest.fail("a state is written"))
    retrain(model, Training(10, 32, ADAM), data, 1)
    assert list(tmp_path.iterdir()) == []


def unmoved() -> None:
    """What a process that retrains does when signals come while it trains, and when they come otherwise."""
    retraining._start_worker(pickle.dumps(None))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    with pytest.raises(Interrupted, match="after 3 of 800 training steps"):
        train("adam", None, Signal(3))
    os.kill(os.getpid(), signal.SIGTERM)


def test_processes_that_retrain_heed_signals_in_training_alone() -> None:
    server = multiprocessing.get_context("forkserver")
    process = server.Process(target=unmoved)
    process.start()
    process.join()
    assert process.exitcode == 0


class Dying(Dataset):
    """Samples whose reader has died of the signal that reached this process too."""

    def __init__(self, data: Data, number: int | None) -> None:
        self._data, self._number, self._left = data, number, 100

    def __len__(self) -> int:
        return size(self._data.train)

    def identity(self) -> list[Any]:
        """Nothing: its digest must not read the samples, which are counted."""
        return []

    def __getitem__(self, index: int) -> Any:
        self._left -= 1
        if self._left < 0:
            if self._number is not None:
                os.kill(os.getpid(), self._number)
            raise RuntimeError("DataLoader worker (pid(s) 17) exited unexpectedly")
        return self._data.train[index]


def test_what_a_signal_did_to_those_that_load_samples_is_no_fault(tmp_path: Path) -> None:
    model, data, training = recipe("adam")
    for number, error in ((signal.SIGTERM, Interrupted), (None, RuntimeError)):
        dying = Data(Dying(data, number), data.probes, data.loss)
        with pytest.raises(error, match=r"stopped after 3 of 800" if number else "exited unexpectedly"):
            fit(model, dying, training, progress=False, checkpoints=tmp_path, state_every=0.0)
    (tmp_path / STATE).unlink()
    dying = Data(Dying(data, signal.SIGTERM), data.probes, data.loss)
    with pytest.raises(Interrupted, match=r"stopped after 3 of 800 .*; no state is saved"):  # none was due yet
        fit(model, dying, training, progress=False, checkpoints=tmp_path, state_every=1000.0)


# --- states that do not fit


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"seed": 1}, r"seed: stored 0, asked 1"),
        ({"training": Training(900, 32, ADAM)}, r"training\.steps: stored 800, asked 900"),
        ({"training": Training(800, 32, STEPPED)}, r"training\.optimizer: stored .*Adam.*asked .*SGD"),
        (
            {"training": Training(800, 32, ADAM, milestones=[0.5])},
            r"milestones: stored None, asked '\[0\.5\]'",
        ),
        ({"training": Training(800, 32, ADAM, augment=FlipAndCrop(1))}, r"augment: stored None, asked 'FlipAndCrop\("),
        ({"model": MultitaskMLP(2, width=8)}, r"model\.weights: stored "),
        ({"model": nn.Linear(4, 1)}, r"model\.class: stored 'MultitaskMLP', asked 'Linear'"),
        ({"data": arithmetic(seed=3)}, r"data\.train: stored '1000 samples, .*asked '1000 samples, "),
    ],
)
def test_a_state_of_another_training_is_refused(changed: dict[str, Any], difference: str, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train("adam", tmp_path, Signal(2))
    model, data, training = recipe("adam")
    given = {"model": model, "data": data, "training": training} | changed
    before = (tmp_path / STATE).read_bytes()
    with pytest.raises(TraceError, match=f"{STATE} is the state of another training: .*{difference}.*; repeat its"):
        fit(**given, checkpoints=tmp_path, state_every=1.0, progress=False)
    assert (tmp_path / STATE).read_bytes() == before


def test_functions_are_the_same_in_every_process() -> None:
    def augment(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return inputs

    settings = Training(augment=augment, milestones=(0.5,)).settings()
    assert "0x" not in str(settings)
    assert "augment" in settings["augment"]
    assert settings["milestones"] == Training(milestones=[0.5]).settings()["milestones"] == "[0.5]"
    assert (settings["steps"], Training().settings()["augment"]) == (3000, None)


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train("adam", tmp_path, Signal(2))
    whole = (tmp_path / STATE).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not a state"):
        (tmp_path / STATE).write_bytes(content)
        with pytest.raises(
            TraceError, match=rf"{tmp_path}/{STATE}, the state .*cannot be read: it is no state \(.*\); remove it"
        ) as messages:
            train("adam", tmp_path)
        assert "\n" not in str(messages.value)
    atomic_save({"step": 3}, tmp_path / STATE)
    with pytest.raises(TraceError, match=r"cannot be read: 'settings'; remove it"):
        train("adam", tmp_path)
    (tmp_path / STATE).write_bytes(whole)
    flipped(tmp_path / STATE)
    with pytest.raises(TraceError, match=r"cannot be read: its content has changed since it was written; remove it"):
        train("adam", tmp_path)
    (tmp_path / STATE).unlink()
    assert same(train("adam", tmp_path), undisturbed("adam"))


def test_damaged_weights_end_a_continued_run_before_anything_is_computed(tmp_path: Path) -> None:
    files = RunFolder(tmp_path)
    trained(study(), files)
    path = tmp_path / "checkpoints" / "trained.pt"
    flipped(path)
    for given in (study(), study(checkpoint=str(path))):
        with pytest.raises(InputError, match=rf"checkpoint {path} cannot be read: its content has changed since it "):
            run(given, tmp_path)
    with pytest.raises(InputError, match=rf"checkpoint {path} cannot be read: its content has changed since it was"):
        preflight(study(checkpoint=str(path)))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: dict[str, Any], path: Path) -> None:
        if path.name == STATE:  # weights along the way are written by the same function
            raise OSError(28, "No space left on device")
        atomic_save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "atomic_save", full)
        for given, watching in (({"state_every": 0.0}, []), ({}, [Signal(3)])):
            with pytest.raises(TraceError, match=rf"cannot write .*{STATE}: No space left on device; free space or"):
                train("adam", tmp_path, *watching, **given)
    assert same(train("adam", tmp_path), undisturbed("adam"))


def test_a_state_that_takes_long_to_write_is_written_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, times = [0.0], []
    monkeypatch.setattr(checkpoint_files.time, "monotonic", lambda: now[0])

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            now[0] += 1.0  # a second a step

    def slow(*_: Any) -> None:
        times.append(now[0])
        now[0] += cost

    monkeypatch.setattr(checkpoint_files.StateFile, "write", slow)
    for cost, gap in ((0.1, 5), (2.0, 20)):
        now[0] = 0.0
        times.clear()
        train("adam", tmp_path, Clock(), state_every=4.5)
        assert {round(late - early - cost) for early, late in itertools.pairwise(times)} <= {gap, gap + 1}


# --- within a run


def study(**given: Any) -> Study:
    model, data, training = recipe("adam")
    return Study(model, data, SGLD, None, training, progress=False, **given)


def test_the_state_goes_once_the_weights_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, folder = checkpoint_files.atomic_save, tmp_path / "checkpoints"
    seen: list[bool] = []

    def full(state: dict[str, Any], path: Path) -> None:
        if path.name == "trained.pt":
            seen.append((folder / STATE).exists())
            raise OSError(28, "No space left on device")
        saved(state, path)

    files = RunFolder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("losskernel.training.checkpoint_files.atomic_save", full)
        with pytest.raises(TraceError, match="No space left on device"):
            trained(study(state_every=0.0), files)
    assert seen == [True]
    assert (folder / STATE).is_file()
    assert same(trained(study(), files), undisturbed("adam"))
    assert not (folder / STATE).exists()
    (folder / STATE).write_bytes(b"left by a kill between the two")
    assert same(trained(study(), files), undisturbed("adam"))
    assert not (folder / STATE).exists()


def test_a_run_says_that_its_training_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(Tracker, "finish", lambda self, state: ended.append(state))

    def signalling(**given: Any) -> pl.Trainer:
        return pl.Trainer(**given | {"callbacks": [Signal(9), *given["callbacks"]]})

    with pytest.raises(Interrupted, match="stopped after 9 of 800 training steps"):
        run(study(trainer=signalling), tmp_path)
    assert ended == ["interrupted"]


def test_sigterm_ends_a_command_in_training_and_the_same_words_continue(tmp_path: Path) -> None:
    words = ("analysis=[complexity]", "logger=none", *TINY[1:], "training.steps=1500", "threads=1", "state_every=0.1")
    process = Forked(MAIN, *words, f"paths.run={tmp_path / 'run'}", cwd=tmp_path)
    while process.returncode is None and not (tmp_path / "run" / "checkpoints" / STATE).exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    done = process.wait()
    assert done.returncode == 128 + signal.SIGTERM
    assert re.fullmatch(
        r"losskernel: stopped after \d+ of 1500 training steps \(SIGTERM\); the same command with .*\n", done.stderr
    ), done.stderr
    assert not (tmp_path / "run" / "checkpoints" / "trained.pt").exists()
    assert call(*words, f"paths.run={tmp_path / 'run'}") == 0
    assert not (tmp_path / "run" / "checkpoints" / STATE).exists()
    whole = trained(build(config(*words)), RunFolder(tmp_path / "whole"))
    assert same(lk.training.load_weights(whole, tmp_path / "run" / "checkpoints" / "trained.pt"), whole)
