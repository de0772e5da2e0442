"""Trackers record a run besides its folder: nowhere, as CSV files, or with a service."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.logger import Logger

from losskernel.runs.tracking.curves import Curves
from losskernel.storage.locations import guard
from losskernel.training.lightning import quiet


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
