"""fit(): conventional training with Lightning, keeping checkpoints along the way."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from losskernel.data.base import Data, size, stack
from losskernel.errors import DivergenceError, Interrupted, TraceError, require, require_number
from losskernel.models.memory_format import choose_layout
from losskernel.models.weights import fill, read_file
from losskernel.signals import name_of, stop_on_signal
from losskernel.traces.zarr_store import atomic_save, guard
from losskernel.training.lightning import OwnSignals, Progress, TrainerFactory, quiet, quiet_settings
from losskernel.training.module import Minibatches, Supervised
from losskernel.training.resume import KeepState, StateFile, settings_of
from losskernel.training.settings import Training


class KeepCheckpoints(pl.Callback):
    """Saves the weights at chosen steps."""

    def __init__(self, folder: Path, steps: Sequence[int]) -> None:
        self._folder, self._steps = folder, set(steps)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the untrained weights."""
        self._keep(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the weights after this step, if it is one of the chosen."""
        self._keep(pl_module)

    def _keep(self, module: Supervised) -> None:
        if module.step in self._steps:
            save_weights(module.model, self._folder / f"step-{module.step:07d}.pt", {"step": module.step})


def fit(
    model: nn.Module,
    data: Data,
    training: Training,
    *,
    seed: int = 0,
    trainer: TrainerFactory | None = None,
    checkpoints: Path | None = None,
    progress: bool = True,
    callbacks: Sequence[pl.Callback] = (),
    state_every: float | None = None,
) -> nn.Module:
    """Return a trained copy of the model, in evaluation mode on the CPU.

    Args:
        model: initial weights; not changed.
        data: training set and loss.
        training: steps, batch size, optimiser and the like.
        seed: fixes the order of the minibatches, and the augmentation.
        trainer: a function that builds a Lightning Trainer.
        checkpoints: folder for weights along the way; None keeps none.
        progress: show a progress bar.
        callbacks: further Lightning callbacks; `pl_module.step` counts the steps done.
        state_every: seconds between states in `checkpoints`, the most that a kill can cost: the same call goes on from
            the last. It stays there until `drop_state`, for whoever has put the result on disk. None keeps none.

    Raises:
        InputError: the batch is larger than the training set, or the trainer ends early.
        DivergenceError: the loss becomes non-finite.
        TraceError: the state there is another training's or damaged, or the folder cannot be written.
        Interrupted: Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2; what was done is on disk if states are kept.
    """
    if training.steps == 0:
        return copy.deepcopy(model).cpu().eval()
    samples = size(data.train)
    require(
        training.batch_size <= samples,
        f"training.batch_size must be <= the {samples} training samples, got {training.batch_size}; lower it",
    )
    file = None
    if state_every is not None and checkpoints is not None:
        require_number("state_every", state_every, at_least=0)
        file = StateFile(checkpoints, settings_of(model, data, training, seed))
    state = None if file is None else file.read()
    trained = _arranged(model, data)
    module = Supervised(trained.train(), data, training, state)
    keep = [] if checkpoints is None else [KeepCheckpoints(checkpoints, training.checkpoint_steps())]
    bar = [Progress("Training")] if progress else []
    batches = Minibatches(data, training, seed, state)
    with stop_on_signal() as stop:
        watch = KeepState(file, state_every or 0.0, stop, batches.random_before)
        callbacks = [OwnSignals(), *keep, *bar, *callbacks, watch]
        _train(module, batches, training.steps - module.step, trainer or pl.Trainer, progress, callbacks, stop)
        if stop():
            raise _interrupted(module.step, training.steps, stop(), file)
    require(
        module.step == training.steps,
        f"the trainer ended training after {module.step} of {training.steps} steps; remove what stops it early "
        "(max_steps, max_time, callbacks)",
    )
    if not all(weight.isfinite().all() for weight in trained.parameters()):
        raise DivergenceError("training ended with non-finite weights; lower training.optimizer.lr")
    return trained.cpu().to(memory_format=torch.contiguous_format).eval()


def _arranged(model: nn.Module, data: Data) -> nn.Module:
    """Return a copy on the CPU, channels innermost where its convolutions can read that: up to twice as fast."""
    copied = copy.deepcopy(model).cpu().eval()
    with torch.random.fork_rng(devices=[]):  # samples may draw random numbers of their own
        two = stack(Subset(data.train, range(min(2, size(data.train)))), workers=0)
    layout = choose_layout(copied, data.loss, *two)
    for weight in copied.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=layout)
    return copied


def _train(
    module: Supervised,
    batches: Minibatches,
    steps: int,
    build: TrainerFactory,
    progress: bool,
    callbacks: Sequence[pl.Callback],
    stop: Callable[[], int],
) -> None:
    """Take the steps that are left, or as many as there are before something asks for a stop."""
    if steps == 0:
        return
    with quiet():
        trainer = build(
            **quiet_settings(),
            max_epochs=1,
            limit_train_batches=steps,
            enable_progress_bar=progress,
            callbacks=list(callbacks),
        )
        try:
            trainer.fit(module, DataLoader(batches, batch_size=None))
        except RuntimeError as error:
            # A scheduler's signal reaches the processes that load samples too, and may end them before us.
            if isinstance(error, (DivergenceError, TraceError)) or not stop():
                raise
        finally:
            batches.close()


def _interrupted(done: int, steps: int, number: int, file: StateFile | None) -> Interrupted:
    words = "no state of it is kept"
    if file is not None and file.path.is_file():
        words = f"the same call goes on from {file.path}"
    return Interrupted(f"stopped after {done} of {steps} training steps ({name_of(number)})", number, words)


def retrain(model: nn.Module, training: Training, data: Data, seed: int) -> nn.Module:
    """Return a network trained the same way on other data, with initial weights and minibatches of the seed.

    Modules that have `reset_parameters`, as torch's layers do, draw their initial weights anew; others keep the
    model's. Modules that hold others come after these, and so have the last word.
    """
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = list(fresh.modules())
        layers = [module for module in modules if not list(module.children())]
        wholes = [module for module in reversed(modules) if list(module.children())]  # the innermost first
        for module in (*layers, *wholes):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        return fit(fresh, data, training, seed=seed, progress=False)  # dropout draws from the same stream


def checkpoints(model: nn.Module, folder: Path) -> Iterator[tuple[int, nn.Module]]:
    """Yield (step, network) of the weights kept along training, in order."""
    for step, path in sorted((int(path.stem.removeprefix("step-")), path) for path in folder.glob("step-*.pt")):
        yield step, load_weights(model, path)


def save_weights(model: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write the weights, whole or not at all."""
    guard(path, path.parent.mkdir, 0o777, True, True)
    guard(path, atomic_save, {"state_dict": model.state_dict(), "about": about}, path)


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Return a copy of the model with the weights of a checkpoint: ours, Lightning's, or a bare state dict.

    Raises:
        InputError: the file is missing, damaged, or holds other weights.
    """
    stored = read_file(path, f"checkpoint {path}")
    weights = stored.get("state_dict", stored) if isinstance(stored, dict) else None
    weights = weights if isinstance(weights, dict) else {}
    wrapped = all(str(name).startswith("model.") for name in weights)
    if wrapped and weights.keys() != model.state_dict().keys():
        weights = {name.removeprefix("model."): value for name, value in weights.items()}
    return fill(copy.deepcopy(model), weights, f"checkpoint {path}").eval()
