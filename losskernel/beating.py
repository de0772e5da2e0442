"""A run's sign of life while it samples: draws done, and how long the rest will take."""

import time
from typing import Any

import pytorch_lightning as pl

from losskernel.heartbeat import Heartbeat
from losskernel.schedule import Schedule


class Beat(pl.Callback):
    """Says after each batch how far the chains of one stack have come.

    Args:
        heart: where to say it.
        schedule: lengths of the run.
        kernel: which of the run's kernels is sampled; "" for its own.
    """

    def __init__(self, heart: Heartbeat, schedule: Schedule, kernel: str = "") -> None:
        self._heart, self._schedule, self._kernel = heart, schedule, kernel

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin to measure the speed, where an interrupted run goes on."""
        self._began, self._first = time.monotonic(), pl_module.step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Say it."""
        schedule = self._schedule
        draws = max(0, (pl_module.step - schedule.burn_in) // schedule.thinning)
        speed = (pl_module.step - self._first) / max(time.monotonic() - self._began, 1e-9)  # steps a second
        chains = pl_module.chain_numbers
        self._heart.beats(
            kernel=self._kernel,
            chains=[chains[0], chains[-1]],
            draws=draws,
            of=schedule.draws,
            seconds_left=(schedule.steps - pl_module.step) / speed if speed else None,
        )
