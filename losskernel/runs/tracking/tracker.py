"""Trackers record a run besides its folder: nowhere, as CSV files, or with a service; and the curves that they log.

Curves along the draws are kept in the run folder, so that a resumed run logs them in full.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.logger import Logger

from losskernel.config_keys import Use, with_use
from losskernel.sampling.setup import Schedule
from losskernel.storage.atomic import write_whole
from losskernel.storage.locations import guard
from losskernel.training.lightning import quiet

CURVES = "curves.jsonl"  # in the run folder, one row per line
# Seconds of sampling up to a row, over all stacks of chains and all restarts.
CLOCK = "sampling_seconds"
# Rows per stack of chains at most: a few hundred calls of a logger cost nothing beside sampling.
_MOST_DRAWS, _MOST_OF_BURN_IN = 200, 50
# Names of the curves; those of a chain are called `distance/chain_0`, because W&B groups panels by the prefix.
# The first has values at draws only, the others during burn-in too.
CURVED = ("probe_loss", "train_loss", "distance")


class Tracker:
    """Records nothing; subclasses override what they can show."""

    def loggers(self) -> list[Logger]:
        """Return Lightning loggers for curves along the draws."""
        return []

    def start(self, config: Mapping[str, Any]) -> None:
        """Record the resolved configuration."""

    def summarise(self, metrics: Mapping[str, Any]) -> None:
        """Record the run's final numbers."""

    def show(self, pictures: Mapping[str, Path], tables: Mapping[str, pd.DataFrame], pages: Mapping[str, Path]) -> None:
        """Record figures, tables and interactive pages."""

    def keep(self, name: str, kind: str, path: Path) -> None:
        """Record a file or folder as an artifact."""

    def finish(self, state: str) -> None:
        """Close the record of a run that is "finished", "failed" or "interrupted"; always called."""


class Curves(Logger):
    """A Lightning logger that writes rows of numbers to a file in the run folder and passes them on.

    When a run resumes, the rows of earlier processes are passed on again, since many loggers keep nothing across
    processes. Rows from the resumed step on are dropped: the resumed process computes them again.

    Args:
        folder: of the run.
        log: (row, step) -> logs it.
        log_settings: receives the sampler's settings, as numbers.
    """

    def __init__(
        self,
        folder: Path,
        log: Callable[[dict[str, float], int], Any],
        log_settings: Callable[[Mapping[str, Any]], Any] = lambda _: None,
    ) -> None:
        super().__init__()
        self._path, self._log, self._log_settings = folder / CURVES, log, log_settings
        self._caught_up = False  # whether the rows of earlier processes were logged
        self._earlier_seconds = 0.0  # of sampling, by earlier processes

    @property
    def name(self) -> str:
        """Lightning's name for the kind of logger."""
        return "curves"

    @property
    def version(self) -> str:
        """Lightning's version of the experiment; a folder has only one."""
        return ""

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Log the sampler's settings."""
        self._log_settings(dict(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log and keep a row; steps increase, except where a run resumes from its last checkpoint."""
        step = 0 if step is None else step
        self.catch_up(before=step)
        row = dict(metrics) | {CLOCK: metrics.get(CLOCK, 0.0) + self._earlier_seconds}
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | row) + "\n")
        self._log(row, step)

    def catch_up(self, before: float = math.inf) -> None:
        """Log the rows of earlier processes below a step, drop their later ones; only the first call does so."""
        if self._caught_up:
            return
        self._caught_up = True
        kept = [row for row in self.rows() if row["step"] < before]
        if self._path.is_file():  # a line cut short by a kill would merge with the next row
            with suppress(OSError):
                write_whole(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._earlier_seconds = max((row.get(CLOCK, 0.0) for row in kept), default=0.0)
        self._log_all(kept)

    def replay(self) -> None:
        """Log all rows of the file once more, for a logger that has lost them."""
        self._log_all(self.rows())

    def rows(self) -> list[dict[str, float]]:
        """Return the rows of the file."""
        rows: list[dict[str, float]] = []
        with suppress(OSError, ValueError):  # no file yet, or a last line cut short by a kill
            for line in self._path.read_text(encoding="utf-8").splitlines():
                rows.append(json.loads(line))
        return rows

    def speed(self) -> dict[str, float]:
        """Return seconds of sampling and draws per second, over all chains and restarts; {} before the first draw."""
        rows = self.rows()
        # Rows are in order, so that each chain keeps its last draw.
        drawn = {name: row["draw"] for row in rows for name in row if name.startswith(CURVED[0])}
        seconds = max((row[CLOCK] for row in rows), default=0.0)
        return {CLOCK: seconds, "draws_per_second": sum(drawn.values()) / seconds} if drawn and seconds else {}

    def _log_all(self, rows: Sequence[dict[str, float]]) -> None:
        for row in rows:
            self._log({name: value for name, value in row.items() if name != "step"}, int(row["step"]))


class LogDraws(pl.Callback):
    """Logs each chain's mean probe loss, training loss and distance from w* against the draw; burn-in has draws <= 0.

    Args:
        loggers: Lightning loggers; burn-in goes to `Curves` only.
        schedule: lengths of the run.
    """

    def __init__(self, loggers: Sequence[Logger], schedule: Schedule) -> None:
        self._loggers, self._schedule = loggers, schedule
        self._every = max(1, schedule.draws // _MOST_DRAWS)
        self._every_of_burn_in = max(1, schedule.burn_in // schedule.thinning // _MOST_OF_BURN_IN)
        self._seconds, self._began = 0.0, time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clock, and log the sampler's settings, in which nbeta is a number by now."""
        self._began = time.monotonic() - self._seconds
        sampler = trainer.optimizers[0]
        swept = [key.removeprefix("sampler.") for key in with_use(Use.SHORT_NAME, below="sampler.")]
        settings = {name: getattr(sampler, name) for name in swept if hasattr(sampler, name)}
        for logger in self._loggers:
            logger.log_hyperparams(settings)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log every n-th draw or stride of burn-in."""
        self._seconds = time.monotonic() - self._began
        schedule, chains = self._schedule, pl_module.chain_numbers
        # Counted from the chains' own step, so that a resumed run continues the count.
        draw = (pl_module.step - schedule.burn_in) // schedule.thinning
        recorded = "losses" in outputs
        every = self._every if recorded else self._every_of_burn_in
        if draw % every or not (recorded or (draw <= 0 and "distance" in outputs)):
            return
        values: dict[str, float] = {"draw": draw, CLOCK: round(self._seconds, 3)}
        for index, chain in enumerate(chains):
            if recorded:
                values[f"probe_loss/chain_{chain}"] = float(outputs["losses"][index].mean())
            values[f"train_loss/chain_{chain}"] = float(outputs["train_loss"][index])
            values[f"distance/chain_{chain}"] = float(outputs["distance"][index])
        for logger in self._loggers:
            if recorded or isinstance(logger, Curves):
                # Stacks run one after another; the offset keeps the steps of their rows distinct.
                logger.log_metrics(values, step=chains[0] * schedule.steps + pl_module.step)


class CSVTracker(Tracker):
    """Writes the curves along the draws as CSV files into the run folder.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logger = CSVLogger(folder, name="curves", version="")
        self._curves = Curves(folder, self._write)
        self._written = False

    def loggers(self) -> list[Logger]:
        """Return the CSV logger, which also has the rows of earlier processes."""
        return [self._curves]

    def finish(self, state: str) -> None:
        """Write the rows that are still buffered."""
        with quiet():  # Lightning warns that it replaces an older file; that file is written again in full
            self._curves.catch_up()
            if self._written:
                guard(self._folder, self._logger.save)

    def _write(self, row: dict[str, float], step: int) -> None:
        if row["draw"] > 0:
            self._logger.log_metrics({**row}, step)
            self._written = True
