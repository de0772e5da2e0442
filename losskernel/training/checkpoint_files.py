"""What training writes: weights along the way, and the state from which an interrupted training resumes."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from losskernel.data.base import Data, loss_name
from losskernel.data.identity import dataset_digest
from losskernel.data.recombined import digest, fingerprint
from losskernel.errors import TraceError
from losskernel.models.evaluation_copy import evaluation_copy
from losskernel.models.pretrained import read_file
from losskernel.models.state_dicts import find_state, load_state
from losskernel.storage.locations import guard
from losskernel.storage.object_digest import stored_digest
from losskernel.storage.settings_diff import differences
from losskernel.storage.torch_files import atomic_save, state_from_bytes
from losskernel.training.training_settings import Training

STATE = "training.pt"
# The next state waits this many times as long as the last took to write, so that writing takes a tenth of the time at
# most, however large the network and slow the disk.
_WAIT_PER_WRITE = 10


def save_weights(model: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write the weights, whole or not at all."""
    guard(path, path.parent.mkdir, 0o777, True, True)
    guard(path, atomic_save, {"state_dict": model.state_dict(), "about": about}, path)


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Return a copy of the model with the weights of a checkpoint, as any tool wrote it (see `models.state_dicts`).

    Raises:
        InputError: the file is missing, damaged, or holds other weights.
    """
    stored = read_file(path, f"checkpoint {path}")
    copied = evaluation_copy(model)
    return load_state(copied, find_state(stored, copied, f"checkpoint {path}"), f"checkpoint {path}")


def checkpoints(model: nn.Module, folder: Path) -> Iterator[tuple[int, nn.Module]]:
    """Yield (step, network) of the weights kept along training, in order."""
    for step, path in sorted((int(path.stem.removeprefix("step-")), path) for path in folder.glob("step-*.pt")):
        yield step, load_weights(model, path)


class KeepCheckpoints(pl.Callback):
    """Saves the weights at chosen steps, 0 (untrained) among them."""

    def __init__(self, folder: Path, steps: Sequence[int]) -> None:
        self._folder, self._steps = folder, set(steps)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save the initial weights."""
        self._save(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save the weights after this step, if it is one of the chosen."""
        self._save(pl_module)

    def _save(self, module: Any) -> None:
        if module.step in self._steps:
            save_weights(module.model, self._folder / f"step-{module.step:07d}.pt", {"step": module.step})


class StateFile:
    """The state of one training, in a file.

    Args:
        folder: of the file.
        settings: what must agree for two trainings to be the same, JSON-ready.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path, self._settings = folder / STATE, settings

    def read(self) -> dict[str, Any] | None:
        """Return the state written last, or None where training has not begun.

        Raises:
            TraceError: the file is damaged, or another training's.
        """
        if not self.path.exists():
            return None
        try:
            state = state_from_bytes(self.path.read_bytes())
            lines = differences(state["settings"], self._settings)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise TraceError(
                f"{self.path}, the state of an interrupted training, cannot be read: {error}; remove it, and the "
                "training begins anew"
            ) from error
        if lines:
            raise TraceError(
                f"{self.path} is the state of another training: {'; '.join(lines)}; repeat its settings, choose "
                "another folder, or remove it"
            )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state atomically, so that a kill leaves the old one or the new one."""
        guard(self.path, self.path.parent.mkdir, 0o777, True, True)
        guard(self.path, atomic_save, state | {"settings": self._settings}, self.path)


def drop_state(folder: Path) -> None:
    """Remove the state of a training whose result is on disk."""
    for name in (STATE, f"{STATE}.partial"):
        guard(folder / name, (folder / name).unlink, True)


def settings_of(model: nn.Module, data: Data, training: Training, seed: int) -> dict[str, Any]:
    """Return what must agree for two trainings to be the same, JSON-ready."""
    return {
        "model": {
            "class": type(model).__name__,
            "weights": digest(model.state_dict().values()),
            "code": stored_digest(model),
        },
        "data": {
            "loss": loss_name(data.loss),
            "loss_code": stored_digest(data.loss),
            "train": fingerprint(data.train),
            "train_content": dataset_digest(data.train),
        },
        "training": training.settings(),
        "seed": seed,
    }


class KeepState(pl.Callback):
    """Saves the state from time to time; on a stop request saves it and ends training after the current step.

    Args:
        file: where to; None saves no state.
        every: seconds between states, the most that a kill can cost.
        stop: called after each step; any other number than 0 ends training.
        random: step -> the states of all generators before it.
    """

    def __init__(
        self,
        file: StateFile | None,
        every: float,
        stop: Callable[[], int],
        random: Callable[[int], dict[str, Tensor]],
    ) -> None:
        self._file, self._every, self._stop, self._random = file, every, stop, random
        self._due = time.monotonic() + every

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save the state if it is due."""
        stopping = self._stop()
        if self._file is not None and (stopping or time.monotonic() > self._due):
            began = time.monotonic()
            state = {
                "step": pl_module.step,
                "weights": pl_module.model.state_dict(),
                "optimizer": trainer.optimizers[0].state_dict(),
                "decay": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
                "random": self._random(pl_module.step),
            }
            self._file.write(state)
            ended = time.monotonic()
            self._due = ended + max(self._every, _WAIT_PER_WRITE * (ended - began))
        if stopping:
            trainer.should_stop = True
