"""fit(): conventional training with Lightning, keeping checkpoints along the way."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from losskernel.data.augmentation import Augmented
from losskernel.data.base import Data, size
from losskernel.data.loading import MinibatchLoader
from losskernel.errors import DivergenceError, InputError, require
from losskernel.recipe import Training
from losskernel.store import atomic_save, guard
from losskernel.streams import NOISE, TRAINING_STREAM, MinibatchIndices, generator
from losskernel.trainers import OwnSignals, Progress, TrainerFactory, quiet, quiet_settings


class Supervised(pl.LightningModule):
    """A model, its mean loss, and an optimiser whose learning rate falls."""

    def __init__(self, model: nn.Module, data: Data, training: Training) -> None:
        super().__init__()
        self.model, self._data, self._training = model, data, training

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped once a batch."""
        optimizer = self._training.optimizer(self.model.parameters())
        decay = self._training.decay(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """Return the minibatch's mean loss."""
        loss = self._data.loss(self.model(batch[0]), batch[1]).mean()
        if step % 50 == 0 and not loss.isfinite():
            raise DivergenceError(
                f"the training loss is {loss.item()} at step {step}; lower training.optimizer.lr or check the data"
            )
        return loss


class Minibatches(IterableDataset[Any]):
    """Reshuffled minibatches without end, changed by the augmentation if there is one."""

    def __init__(self, data: Data, training: Training, seed: int) -> None:
        indices = MinibatchIndices(seed, [TRAINING_STREAM], size(data.train), training.batch_size)
        if training.augment is not None:
            noise = generator(seed, NOISE, TRAINING_STREAM)
            data = replace(data, train=Augmented(data.train, training.augment, noise), train_ids=None)
        self._load = MinibatchLoader(data, indices, torch.device("cpu"))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            inputs, targets = self._load()
            yield inputs[0], targets[0]

    def close(self) -> None:
        """End the processes that load samples; Lightning's own references would keep them for long."""
        self._load.close()


class KeepCheckpoints(pl.Callback):
    """Saves the weights at chosen steps."""

    def __init__(self, folder: Path, steps: Sequence[int]) -> None:
        self._folder, self._steps = folder, set(steps)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the untrained weights."""
        self._keep(pl_module, 0)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the weights after this step, if it is one of the chosen."""
        self._keep(pl_module, trainer.global_step)

    def _keep(self, module: Supervised, step: int) -> None:
        if step in self._steps:
            save_weights(module.model, self._folder / f"step-{step:07d}.pt", {"step": step})


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
        callbacks: further Lightning callbacks.

    Raises:
        InputError: the batch is larger than the training set.
        DivergenceError: the loss becomes non-finite.
    """
    # Convolutions are up to twice as fast with the channels innermost; for anything else the layout is the usual one.
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    if training.steps == 0:
        return model.eval()
    samples = size(data.train)
    require(
        training.batch_size <= samples,
        f"training.batch_size must be <= the {samples} training samples, got {training.batch_size}; lower it",
    )
    keep = [] if checkpoints is None else [KeepCheckpoints(checkpoints, training.checkpoint_steps())]
    bar = [Progress("Training")] if progress else []
    build = trainer or pl.Trainer
    module = Supervised(model.train(), data, training)
    with quiet():
        own = build(
            **quiet_settings(),
            max_epochs=1,
            limit_train_batches=training.steps,
            enable_progress_bar=progress,
            callbacks=[OwnSignals(), *keep, *bar, *callbacks],
        )
        batches = Minibatches(data, training, seed)
        own.fit(module, DataLoader(batches, batch_size=None))
        batches.close()
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise DivergenceError("training ended with non-finite weights; lower training.optimizer.lr")
    return model.cpu().to(memory_format=torch.contiguous_format).eval()


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
    for path in sorted(folder.glob("step-*.pt")):
        yield int(path.stem.removeprefix("step-")), load_weights(model, path)


def save_weights(model: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write the weights, whole or not at all."""
    guard(path, path.parent.mkdir, 0o777, True, True)
    guard(path, atomic_save, {"state_dict": model.state_dict(), "about": about}, path)


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Return a copy of the model with the weights of a checkpoint: ours, Lightning's, or a bare state dict.

    Raises:
        InputError: the file is missing, unreadable, or holds other weights.
    """
    path = Path(path)
    require(path.is_file(), f"checkpoint {path} does not exist; give the path of a saved state dict")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for every way a file can be broken
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"checkpoint {path} cannot be read ({reason}); save it again") from error
    weights = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    wrapped = weights and all(name.startswith("model.") for name in weights)
    if wrapped and weights.keys() != model.state_dict().keys():
        weights = {name.removeprefix("model."): value for name, value in weights.items()}
    model = copy.deepcopy(model)
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        lines = " ".join(str(error).split())[:300]
        raise InputError(f"checkpoint {path} does not fit {type(model).__name__}: {lines}") from error
    return model.eval()
