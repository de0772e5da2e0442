"""Where a training stands, on disk: what an interrupted one needs to end as if nothing had been."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from losskernel.data.base import Data
from losskernel.data.fingerprint import digest, fingerprint
from losskernel.errors import TraceError
from losskernel.storage.torch_files import restored
from losskernel.traces.zarr_store import atomic_save, differences, guard
from losskernel.training.settings import Training

STATE = "training.pt"
# The next state waits this many times as long as the last took to write, so that writing takes a tenth of the time at
# most, however large the network and slow the disk.
_SPARING = 10


class StateFile:
    """The state of one training.

    Args:
        folder: of the file.
        settings: what must agree for two trainings to be the same, JSON-ready.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path, self._settings = folder / STATE, settings

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, or None where training has not begun.

        Raises:
            TraceError: the file is damaged, or another training's.
        """
        if not self.path.exists():
            return None
        try:
            state = restored(self.path.read_bytes())
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
        """Replace the state in one step, so that a kill leaves the old one or the new one."""
        guard(self.path, self.path.parent.mkdir, 0o777, True, True)
        guard(self.path, atomic_save, state | {"settings": self._settings}, self.path)


def drop_state(folder: Path) -> None:
    """Remove the state of a training whose result is on disk."""
    for name in (STATE, f"{STATE}.partial"):
        guard(folder / name, (folder / name).unlink, True)


def settings_of(model: nn.Module, data: Data, training: Training, seed: int) -> dict[str, Any]:
    """Return what must agree for two trainings to be the same, JSON-ready."""
    return {
        "model": {"class": type(model).__name__, "weights": digest(model.state_dict().values())},
        "data": {"loss": getattr(data.loss, "__name__", str(data.loss)), "train": fingerprint(data.train)},
        "training": training.settings(),
        "seed": seed,
    }


class KeepState(pl.Callback):
    """Writes the state from time to time; ends training after a step, with its state written, where that is asked for.

    Args:
        file: where to; None keeps no state.
        every: seconds between states, the most that a kill can cost.
        stop: asked after each step; anything but 0 ends training.
        random: step -> where all random numbers stand before it.
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
        """Write the state when its time has come."""
        stopping = self._stop()
        if self._file is not None and (stopping or time.monotonic() > self._due):
            began = time.monotonic()
            self._file.write(self._state(trainer, pl_module))
            ended = time.monotonic()
            self._due = ended + max(self._every, _SPARING * (ended - began))
        if stopping:
            trainer.should_stop = True

    def _state(self, trainer: pl.Trainer, module: Any) -> dict[str, Any]:
        return {
            "step": module.step,
            "weights": module.model.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "decay": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "random": self._random(module.step),
        }
