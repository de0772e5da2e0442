"""Weights & Biases: γ in the config, results in the summary, figures, tables, maps and artifacts."""

import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger

from losskernel.errors import InputError, require, require_number
from losskernel.tracking import Tracker

LARGEST_TABLE = 10_000


class WandbTracker(Tracker):
    """One W&B run.

    Args:
        folder: the run folder; W&B keeps its files there.
        name: run name.
        group: sweep that the run belongs to; None for a single run.
        job_type: "run" or "compare".
        project: W&B project.
        entity: W&B user or team; None for the default.
        mode: "online", "offline", or "auto": online where somebody is logged in.
        tags: W&B tags.
        artifact_mb: traces and kernel are uploaded as artifacts up to this size; 0 uploads none.

    Raises:
        InputError: an unknown mode.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        group: str | None = None,
        job_type: str = "run",
        project: str = "losskernel",
        entity: str | None = None,
        mode: str = "auto",
        tags: Sequence[str] = (),
        artifact_mb: float = 200.0,
    ) -> None:
        known = ("auto", "online", "offline")
        require(mode in known, f"logger.mode must be one of {known}, got {mode!r}")
        require_number("logger.artifact_mb", artifact_mb, at_least=0)
        self._largest = artifact_mb * 2**20
        # W&B's own variable wins, for it may say "disabled" as well.
        mode = os.environ.get("WANDB_MODE", mode)
        self.mode = ("online" if logged_in() else "offline") if mode == "auto" else mode
        self._started = False
        settings = wandb.Settings(console="off", x_disable_stats=True, silent=True)
        self._logger = WandbLogger(
            name=name,
            save_dir=folder,
            project=project,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=list(tags),
            mode=self.mode,
            log_model=False,
            settings=settings,
            # A one-process multirun would otherwise go on writing into the run before.
            reinit="finish_previous",
        )

    @property
    def run(self) -> Any:
        """The W&B run itself."""
        return self._logger.experiment

    def loggers(self) -> list[Logger]:
        """Return Lightning's W&B logger."""
        return [self._logger]

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the run and record the resolved configuration as its config.

        Raises:
            InputError: W&B cannot open a run.
        """
        try:
            self.run.define_metric("draw")
        except wandb.Error as error:
            raise InputError(f"W&B cannot open a run: {error}; use logger.mode=offline or logger=csv") from error
        self._started = True
        self.run.config.update(dict(config), allow_val_change=True)
        self.run.define_metric("chain_*", step_metric="draw")

    def summarise(self, metrics: Mapping[str, Any]) -> None:
        """Record the final numbers in the run's summary."""
        self.run.summary.update(dict(metrics))

    def show(self, pictures: Mapping[str, Path], tables: Mapping[str, pd.DataFrame], pages: Mapping[str, Path]) -> None:
        """Log figures as images, animations as videos, tables as W&B tables, interactive pages as HTML panels."""
        logged: dict[str, Any] = {f"figures/{name}": _picture(path) for name, path in pictures.items()}
        for name, table in tables.items():
            logged[f"tables/{name}"] = wandb.Table(dataframe=table.head(LARGEST_TABLE))
        for name, path in pages.items():
            logged[f"interactive/{name}"] = wandb.Html(path.read_text(encoding="utf-8"), inject=False)
        if logged:
            self.run.log(logged)

    def keep(self, name: str, kind: str, path: Path) -> None:
        """Upload a file or folder as an artifact, if it is within the size limit."""
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if sum(each.stat().st_size for each in files) > self._largest:
            return
        artifact = wandb.Artifact(f"{name}-{self.run.id}", type=kind)
        for each in files:
            artifact.add_file(str(each), name=str(each.relative_to(path.parent)))
        self.run.log_artifact(artifact)

    def finish(self, state: str) -> None:
        """Close the run; an open one would swallow the next run of this process."""
        if self._started:
            self.run.finish(exit_code=0 if state == "finished" else 1)


def _picture(path: Path) -> Any:
    return wandb.Video(str(path), format="gif") if path.suffix == ".gif" else wandb.Image(str(path))


def logged_in() -> bool:
    """Whether W&B has a key to use: in the environment or the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
