"""What the tests of W&B's records share: a home without login, an interruption, a run read back."""

import os
import signal
from pathlib import Path
from typing import Any

from wandb_reader import Run, read_runs

from losskernel.curves import LogDraws
from losskernel.errors import Interrupted


def alone(home: Path, monkeypatch: Any) -> None:
    """A home in which nobody has logged in, and W&B's own folders inside it."""
    home.mkdir()
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
    return [record.getMessage() for record in caplog.records if record.name.startswith("losskernel")]


def stop_at(step: int, patch: Any, *, number: int = signal.SIGTERM) -> None:
    """Interrupt sampling after the row of a step."""
    log = LogDraws.on_train_batch_end

    def interrupted(self: LogDraws, trainer: Any, module: Any, *rest: Any) -> None:
        log(self, trainer, module, *rest)
        if module.step == step:
            raise Interrupted("stopped", number)

    patch.setattr(LogDraws, "on_train_batch_end", interrupted)
