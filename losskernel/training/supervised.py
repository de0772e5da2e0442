"""fit(): conventional training with Lightning, with checkpoints along the way and from any step on."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from losskernel.data.base import Data, size, stack
from losskernel.data.global_state import with_own_state
from losskernel.data.loading import NOISE, TRAINING_STREAM, MinibatchIndices, MinibatchLoader, generator
from losskernel.data.recombined import Augmented
from losskernel.errors import DivergenceError, InputError, Interrupted, TraceError, require, require_number
from losskernel.models.memory_format import choose_layout
from losskernel.signals import signal_name, stop_on_signal
from losskernel.training.checkpoint_files import KeepCheckpoints, KeepState, StateFile, settings_of
from losskernel.training.lightning import KeepSignalHandlers, Progress, TrainerFactory, quiet, quiet_settings
from losskernel.training.training_settings import Training

_CHECK_EVERY = 50  # steps between two checks of the loss: reading it makes an accelerator wait


@with_own_state
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
        state_every: seconds between saved states in `checkpoints`, the most that a kill can cost: the same call
            resumes from the last. The state stays until `drop_state`, called once the result is on disk. None saves
            none.

    Raises:
        InputError: the batch is larger than the training set, or the trainer ends early.
        DivergenceError: the loss becomes non-finite.
        TraceError: the saved state is another training's or damaged, or the folder cannot be written.
        Interrupted: Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2; the steps done are on disk if states are saved.
    """
    if training.steps == 0:
        return copy.deepcopy(model).cpu().eval()
    samples = size(data.train)
    require(
        training.batch_size <= samples,
        f"training.batch_size must be <= the {samples} training samples, got {training.batch_size}; lower it",
    )
    require(
        any(weight.requires_grad for weight in model.parameters()),
        f"no weight of {type(model).__name__} has requires_grad=True, so nothing is trained; unfreeze some, or set "
        "training.steps=0",
    )
    file = None
    if state_every is not None and checkpoints is not None:
        require_number("state_every", state_every, at_least=0)
        file = StateFile(checkpoints, settings_of(model, data, training, seed))
    state = None if file is None else file.read()
    trained = _in_fast_layout(model, data)
    module = Supervised(trained.train(), data, training, state)
    batches = Minibatches(data, training, seed, state)
    keep = [] if checkpoints is None else [KeepCheckpoints(checkpoints, training.checkpoint_steps())]
    bar = [Progress("Training")] if progress else []
    with stop_on_signal() as stop:
        # The state is saved last, after callbacks that may change the module.
        save = KeepState(file, state_every or 0.0, stop, batches.random_before)
        callbacks = [KeepSignalHandlers(), *keep, *bar, *callbacks, save]
        settings = quiet_settings()
        settings |= {"max_epochs": 1, "limit_train_batches": training.steps - module.step}
        settings |= {"enable_progress_bar": progress, "callbacks": callbacks}
        with quiet():
            if module.step < training.steps:
                _train((trainer or pl.Trainer)(**settings), module, batches, stop)
        if number := stop():
            done = f"{module.step} of {training.steps} training steps ({signal_name(number)})"
            kept = None if file is None or not file.path.is_file() else f"the same call resumes from {file.path}"
            raise Interrupted(f"stopped after {done}", number, kept or "no state is saved")
    require(
        module.step == training.steps,
        f"the trainer ended training after {module.step} of {training.steps} steps; remove what stops it early "
        "(max_steps, max_time, callbacks)",
    )
    if not all(weight.isfinite().all() for weight in trained.parameters()):
        raise DivergenceError("training ended with non-finite weights; lower training.optimizer.lr")
    return trained.cpu().to(memory_format=torch.contiguous_format).eval()


@with_own_state
def retrain(model: nn.Module, training: Training, data: Data, seed: int) -> nn.Module:
    """Return a network trained the same way on other data, with initial weights and minibatches of the seed.

    Modules that have `reset_parameters`, as torch's layers do, draw their initial weights anew; others keep the
    model's. Modules that hold others come after these, so that their own initialisation prevails.
    """
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = list(fresh.modules())
        layers = [module for module in modules if not list(module.children())]
        containers = [module for module in reversed(modules) if list(module.children())]  # the innermost first
        for module in (*layers, *containers):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        return fit(fresh, data, training, seed=seed, progress=False)  # dropout draws from the same stream


class Supervised(pl.LightningModule):
    """A model, its mean loss, and an optimiser whose learning rate falls.

    Args:
        model: trained in place.
        data: has the loss.
        training: has the optimiser.
        state: of an interrupted training, to resume from.

    Attributes:
        step: steps done.
    """

    def __init__(self, model: nn.Module, data: Data, training: Training, state: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model, self._data, self._training, self._state = model, data, training, state
        self.step = 0
        if state is not None:
            model.load_state_dict(state["weights"])
            self.step = int(state["step"])

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped once a batch."""
        optimizer = self._training.optimizer(self.model.parameters())
        decay = self._training.decay(optimizer)
        if self._state is not None:
            optimizer.load_state_dict(self._state["optimizer"])
            decay.load_state_dict(self._state["decay"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the minibatch's mean loss."""
        try:
            loss = self._data.loss(self.model(batch[0]), batch[1]).mean()
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            if isinstance(error, (InputError, torch.OutOfMemoryError)):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"the model and the loss fail in training on a minibatch of inputs {tuple(batch[0].shape)} and targets "
                f"{tuple(batch[1].shape)} of {batch[1].dtype}: {reason}; check model, targets and data.loss, and in "
                "training mode what the model returns"
            ) from error
        if self.step % _CHECK_EVERY == 0 and not loss.isfinite():
            raise DivergenceError(
                f"the training loss is {loss.item()} at step {self.step}; lower training.optimizer.lr or check the data"
            )
        self.step += 1
        return loss


class Minibatches(IterableDataset[Any]):
    """Reshuffled minibatches without end, augmented if the training asks for it.

    Args:
        data: has the training set.
        training: has the batch size and the augmentation.
        seed: of order and augmentation.
        state: of an interrupted training, to resume from.
    """

    def __init__(self, data: Data, training: Training, seed: int, state: dict[str, Any] | None = None) -> None:
        self._next, self._random = (0, {}) if state is None else (int(state["step"]), state["random"])
        indices = MinibatchIndices(seed, [TRAINING_STREAM], size(data.train), training.batch_size, self._next)
        self._noise: Generator | None = None
        if training.augment is not None:
            self._noise = generator(seed, NOISE, TRAINING_STREAM)
            data = replace(data, train=Augmented(data.train, training.augment, self._noise), train_ids=None)
        self._before: dict[int, Tensor] = {}  # step -> state of the augmentation's generator before it
        self._load = MinibatchLoader(data, indices, torch.device("cpu"))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._restore()  # not earlier: Lightning draws random numbers between construction and the first minibatch
        while True:
            if self._noise is not None:
                # Lightning loads one minibatch ahead, so the states before two steps can be asked for.
                self._before[self._next] = self._noise.get_state()
                self._before.pop(self._next - 2, None)
            self._next += 1
            inputs, targets = self._load()
            yield inputs[0], targets[0]

    def random_before(self, step: int) -> dict[str, Tensor]:
        """Return the state of all generators before a step, whose minibatch may have been loaded already."""
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state()
        if self._noise is not None:
            states["augmentation"] = self._before[step] if step < self._next else self._noise.get_state()
        return states

    def _restore(self) -> None:
        """Restore the generators of a saved state: the augmentation's, and the global ones that dropout draws from."""
        if self._noise is not None and "augmentation" in self._random:
            self._noise.set_state(self._random["augmentation"])
        if "cpu" in self._random:
            torch.set_rng_state(self._random["cpu"])
        if "cuda" in self._random and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(self._random["cuda"])

    def close(self) -> None:
        """End the worker processes that load samples; references that Lightning holds would keep them alive."""
        self._load.close()


def _in_fast_layout(model: nn.Module, data: Data) -> nn.Module:
    """Return a copy on the CPU, channels last where its convolutions can read that: up to twice as fast."""
    copied = copy.deepcopy(model).cpu().eval()
    with torch.random.fork_rng(devices=[]):  # reading samples may draw from the global generator
        two = stack(Subset(data.train, range(min(2, size(data.train)))), workers=0)
    layout = choose_layout(copied, data.loss, *two)
    for weight in copied.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=layout)
    return copied


def _train(trainer: pl.Trainer, module: Supervised, batches: Minibatches, stop: Callable[[], int]) -> None:
    """Take the remaining steps, or fewer if a signal asks for a stop."""
    try:
        trainer.fit(module, DataLoader(batches, batch_size=None))
    except RuntimeError as error:
        # A scheduler's signal reaches the loaders' worker processes too, and may end them before this process.
        if isinstance(error, (DivergenceError, TraceError)) or not stop():
            raise
    finally:
        batches.close()
