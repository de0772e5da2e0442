"""Curves along the draws: logged while chains are sampled, and once more where a killed run is continued."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger

from losskernel.config_keys import Use, with_use
from losskernel.sampling.schedule import Schedule
from losskernel.storage.atomic import write_whole

CURVES = "curves.jsonl"  # in a run's folder, a row a line
# Seconds of sampling up to a row, over all stacks of chains and all restarts.
CLOCK = "sampling_seconds"
# Of one stack of chains, a few hundred calls being cheap.
_MOST_DRAWS, _MOST_OF_BURN_IN = 200, 50
# Of every chain, `distance/chain_0`: W&B makes a section of what stands before the slash. The first at draws alone.
CURVED = ("probe_loss", "train_loss", "distance")


class Curves(Logger):
    """Logs rows of numbers, and keeps them in the run's folder: what only a logger knows is lost with its process.

    Rows of an earlier process are logged again with the first row of this one, and those that come anew are left out.

    Args:
        folder: of the run.
        log: (row, step) -> logs it.
        settle: takes the sampler's settings, as numbers.
    """

    def __init__(
        self,
        folder: Path,
        log: Callable[[dict[str, float], int], Any],
        settle: Callable[[Mapping[str, Any]], Any] = lambda _: None,
    ) -> None:
        super().__init__()
        self._path, self._log, self._settle = folder / CURVES, log, settle
        self._known = False  # whether the rows of earlier processes were logged
        self._before = 0.0  # seconds that these had sampled

    @property
    def name(self) -> str:
        """Lightning's name for the kind of logger."""
        return "curves"

    @property
    def version(self) -> str:
        """Lightning's number of the experiment; there is but one to a folder."""
        return ""

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Note the sampler's settings."""
        self._settle(dict(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log and keep a row; steps rise, but for those of a run that went back to its last state."""
        step = 0 if step is None else step
        self.catch_up(before=step)
        row = dict(metrics) | {CLOCK: metrics.get(CLOCK, 0.0) + self._before}
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | row) + "\n")
        self._log(row, step)

    def catch_up(self, before: float = math.inf) -> None:
        """Log what earlier processes logged below a step, and forget the rest; nothing the second time."""
        if self._known:
            return
        self._known = True
        kept = [row for row in self.rows() if row["step"] < before]
        if self._path.is_file():  # a torn line would swallow the next
            with suppress(OSError):
                write_whole(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._before = max((row.get(CLOCK, 0.0) for row in kept), default=0.0)
        self._log_all(kept)

    def again(self) -> None:
        """Log all that is kept once more, for a logger that has lost it."""
        self._log_all(self.rows())

    def rows(self) -> list[dict[str, float]]:
        """Return the rows that are kept; a kill may have torn the last."""
        rows: list[dict[str, float]] = []
        with suppress(OSError, ValueError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                rows.append(json.loads(line))
        return rows

    def speed(self) -> dict[str, float]:
        """Return the seconds of sampling and the draws a second, of all chains and restarts; nothing before a draw."""
        rows = self.rows()
        drawn = {name: row["draw"] for row in rows for name in row if name.startswith(CURVED[0])}
        seconds = max((row[CLOCK] for row in rows), default=0.0)
        if not drawn or not seconds:
            return {}
        return {CLOCK: seconds, "draws_per_second": sum(drawn.values()) / seconds}

    def _log_all(self, rows: Sequence[dict[str, float]]) -> None:
        for row in rows:
            self._log({name: value for name, value in row.items() if name != "step"}, int(row["step"]))


class LogDraws(pl.Callback):
    """Logs the chains' mean probe loss, training loss and distance against the draw; draws up to 0 are burn-in.

    Args:
        loggers: Lightning loggers; burn-in goes to `Curves` alone.
        schedule: lengths of the run.
    """

    def __init__(self, loggers: Sequence[Logger], schedule: Schedule) -> None:
        self._loggers, self._schedule = loggers, schedule
        self._every = max(1, schedule.draws // _MOST_DRAWS)
        self._every_of_burn_in = max(1, schedule.burn_in // schedule.thinning // _MOST_OF_BURN_IN)
        self._seconds, self._began = 0.0, time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clock, and log the sampler's settings, in which nbeta is a number."""
        self._began = time.monotonic() - self._seconds
        sampler = trainer.optimizers[0]
        swept = [key.removeprefix("sampler.") for key in with_use(Use.SHORT_NAME, below="sampler.")]
        settings = {name: getattr(sampler, name) for name in swept if hasattr(sampler, name)}
        for logger in self._loggers:
            logger.log_hyperparams(settings)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log this draw or stride of burn-in, if its turn has come."""
        self._seconds = time.monotonic() - self._began
        schedule, chains = self._schedule, pl_module.chain_numbers
        # From the chains' own step, so that a continued run goes on counting where it was stopped.
        draw = (pl_module.step - schedule.burn_in) // schedule.thinning
        recorded = "losses" in outputs
        every = self._every if recorded else self._every_of_burn_in
        if draw % every or not (recorded or (draw <= 0 and "distance" in outputs)):
            return
        values: dict[str, float] = {"draw": draw, CLOCK: round(self._seconds, 3)}
        for place, chain in enumerate(chains):
            if recorded:
                values[f"probe_loss/chain_{chain}"] = float(outputs["losses"][place].mean())
            values[f"train_loss/chain_{chain}"] = float(outputs["train_loss"][place])
            values[f"distance/chain_{chain}"] = float(outputs["distance"][place])
        for logger in self._loggers:
            if recorded or isinstance(logger, Curves):
                # Stacks follow one another, and no two of their rows have the same step.
                logger.log_metrics(values, step=chains[0] * schedule.steps + pl_module.step)
