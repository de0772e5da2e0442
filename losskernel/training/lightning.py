"""Lightning Trainers for chains and for training: quiet, on one device, with a progress bar of our own."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch.utils.data import DataLoader

from losskernel.signals import reinstall_handler
from losskernel.training.progress import MINUTE, Pace, in_a_log, lasting, log_line

TrainerFactory = Callable[..., pl.Trainer]


class Progress(TQDMProgressBar):
    """Progress with the mean loss, without Lightning's per-batch logging machinery: a bar; in a log a line a minute.

    Another callback with a true attribute `speaks` writes its own lines, and silences these.
    """

    def __init__(self, name: str) -> None:
        self._log = in_a_log()
        super().__init__(refresh_rate=0 if self._log else 20)
        self._name = name
        self._loss: float | None = None

    def on_train_start(self, *_: Any) -> None:
        """Start the clock."""
        super().on_train_start(*_)
        others: list[pl.Callback] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        self._log = self._log and not any(getattr(other, "speaks", False) for other in others)
        self._pace, self._began = Pace(), time.monotonic()
        self._last_batch = self._last_line = self._began
        if self._log:
            log_line(f"{self._name} begins")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the bar or the log."""
        # Reading a loss makes an accelerator wait, so it is read only where it will be shown.
        if self.is_enabled and (batch_idx + 1) % self.refresh_rate == 0:
            self._read_loss(outputs)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._log:
            self._write_line(outputs, batch_idx + 1)

    def on_train_end(self, *_: Any) -> None:
        """Say how long it took."""
        super().on_train_end(*_)
        if self._log:
            log_line(f"{self._name} ended after {lasting(time.monotonic() - self._began)}")

    def _write_line(self, outputs: Any, done: int) -> None:
        """Write a line if the last is a minute old."""
        now, total = time.monotonic(), self.total_train_batches
        self._pace.note(now - self._last_batch, 1)
        self._last_batch = now
        if now - self._last_line >= MINUTE:
            self._last_line = now
            self._read_loss(outputs)
            left = lasting((total - done) * (self._pace.seconds_per_unit or 0.0))
            loss = "" if self._loss is None else f", loss {self._loss:.3g}"
            log_line(f"{self._name}: {done / total:.0%}, {left} left{loss}")

    def _read_loss(self, outputs: Any) -> None:
        loss = outputs.get("train_loss", outputs.get("loss"))
        self._loss = self._loss if loss is None else float(loss.mean())

    def init_train_tqdm(self) -> Tqdm:
        """Name the bar after what runs; on standard error, which leaves standard output to results."""
        return Tqdm(desc=self._name, disable=self.is_disabled, dynamic_ncols=True, file=sys.stderr, smoothing=0)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count from zero, without the epoch that Lightning would write in front."""
        self.train_progress_bar.reset(self.total_train_batches)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the text behind the bar: the loss, once it is known."""
        return {} if self._loss is None else {"loss": f"{self._loss:.3g}"}


class KeepSignalHandlers(pl.Callback):
    """Keeps this package's signal handlers, which ask for a stop between two steps; Lightning's end the process."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install them again: Lightning has just put its own before them."""
        reinstall_handler()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's advice (workers, devices, SLURM), which does not fit one batch per draw."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)")
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def quiet_settings() -> dict[str, Any]:
    """Return Trainer settings that every fit here shares.

    LightningEnvironment, because under SLURM each job is one independent task: Lightning's own SLURM
    environment would join jobs into one and requeue them by itself.
    """
    return {
        "devices": 1,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "logger": False,
        "num_sanity_val_steps": 0,
        "plugins": [LightningEnvironment()],
    }


def fit_once(
    trainer: pl.Trainer, module: pl.LightningModule, batches: Sequence[Any], callbacks: Sequence[pl.Callback]
) -> None:
    """Run one pass over a list of batches with further callbacks, on a fresh or a used Trainer."""
    installed: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    callbacks = [KeepSignalHandlers(), *callbacks]
    installed.extend(callbacks)
    epochs = trainer.fit_loop.max_epochs
    # One epoch more than a used Trainer has done; the caller's Trainer gets its own settings back.
    trainer.fit_loop.max_epochs = trainer.current_epoch + 1
    try:
        if batches:
            with quiet():
                trainer.fit(module, DataLoader(list(batches), batch_size=None))  # pyright: ignore[reportArgumentType]
    finally:
        trainer.fit_loop.max_epochs = epochs
        for callback in callbacks:
            installed.remove(callback)
