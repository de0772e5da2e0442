"""What the tests of W&B's records share: a home without login, an interruption, a run read back."""

import logging
import os
import signal
from pathlib import Path
from typing import Any

import wandb
from wandb_reader import Run, read_runs

from losskernel.errors import Interrupted
from losskernel.runs.tracking import WandbTracker
from losskernel.runs.tracking.tracker import CLOCK, LogDraws


def alone(home: Path, monkeypatch: Any) -> None:
    """A home in which nobody has logged in, and W&B's own folders inside it."""
    home.mkdir()
    os.environ.pop("WANDB_SERVICE", None)  # put back, it would name a process that has ended
    for name in [each for each in os.environ if each.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))


def one(folder: Path) -> Run:
    (run,) = read_runs(folder)
    return run


def draws(run: Run) -> list[dict[str, Any]]:
    """Rows of the history that hold draws; what lies before is burn-in."""
    return [row for row in run.history if row.get("draw", 0) > 0]


def said(caplog: Any) -> list[str]:
    """What the user is told; what a run is at goes into its own log alone."""
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [record.getMessage() for record in told if record.name.startswith("losskernel")]


def stop_at(step: int, patch: Any, *, number: int = signal.SIGTERM) -> None:
    """Interrupt sampling after the row of a step."""
    log = LogDraws.on_train_batch_end

    def interrupted(self: LogDraws, trainer: Any, module: Any, *rest: Any) -> None:
        log(self, trainer, module, *rest)
        if module.step == step:
            raise Interrupted("stopped", number)

    patch.setattr(LogDraws, "on_train_batch_end", interrupted)


def attempt(folder: Path, first: int, last: int, state: str) -> WandbTracker:
    """Record some rows of curves, as a run does from one start to its end."""
    wandb.teardown()  # W&B reads its variables once
    tracker = WandbTracker(folder, name="x")
    tracker.start({})
    for step in range(first, last + 1):
        tracker.loggers()[0].log_metrics({"draw": step, CLOCK: step / 10}, step=step)
    tracker.finish(state)
    wandb.teardown()
    return tracker
