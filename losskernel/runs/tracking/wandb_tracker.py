"""Records runs in Weights & Biases: settings, metrics, verdict, curves, figures, tables, artifacts."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from pytorch_lightning.loggers.logger import Logger

from losskernel.config_keys import Use, flat, with_use
from losskernel.errors import require, require_number
from losskernel.figures.shared.presentation import VERDICTS, is_number, number
from losskernel.runs.folder import CAPTIONS, RunFolder
from losskernel.runs.report import template
from losskernel.runs.tracking.tracker import CLOCK, CURVED, Curves, Tracker
from losskernel.runs.tracking.wandb_connection import Connection

LARGEST_TABLE = 10_000
_LONGEST, _LONGEST_TAG = 128, 64  # characters of a name or group, and of a tag, that W&B accepts
# Longer lists are recorded by their length: W&B shows a column for every setting.
_LONGEST_LIST = 50
_WORDS = {"pass": "Passed", "warn": "Warning", "fail": "FAILED"}
# Numbers of the diagnosis that are useful for sorting runs; the verdict panel shows all of them.
_SORTED_BY = ("rhat", "ess", "ess_tail", "ess_kernel", "split_agreement", "trend_share", "stiffness", "step_inflation")


class WandbTracker(Tracker):
    """One W&B run.

    Args:
        folder: the run folder; it holds W&B's files, and wandb.json with the run's id and, online, its URL.
        name: run name.
        group: sweep of the run; None for a single run.
        job_type: "run", "compare", or the kind of sweep around a run.
        project: W&B project.
        entity: W&B user or team; None for the default.
        mode: "online", "offline", or "auto": online where somebody is logged in and W&B can be reached.
        tags: W&B tags; those of WANDB_TAGS and the verdict join them.
        artifact_mb: traces and kernel are uploaded as artifacts up to this size; 0 uploads none.

    Raises:
        InputError: an unknown mode, or a bad setting.
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
        require(not isinstance(tags, str), f"logger.tags must be a list, got {tags!r}; write logger.tags=[{tags}]")
        self._folder, self._largest = Path(folder), artifact_mb * 2**20
        tags = [*map(str, tags), *os.environ.get("WANDB_TAGS", "").split(",")]
        self._tags = list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags if tag))
        if job_type == "compare" and "compar" not in str(name):
            name = f"{name}: comparison"
        # Hydra parses a name of digits as a number.
        identity = {
            "project": None if project is None else str(project),
            "entity": None if entity is None else str(entity),
            "name": _shortened(str(name)),
            "group": group and _shortened(group),
            "job_type": job_type,
            "tags": self._tags,
        }
        self._config: dict[str, Any] = {}
        self._curves = Curves(self._folder, lambda row, step: self._connection.log(row, step), self._log_settings)
        self._connection = Connection(self._folder, identity, mode, self._prepare, self._curves.replay)

    @property
    def run(self) -> Any:
        """The open W&B run, or None."""
        return self._connection.run

    @property
    def mode(self) -> str:
        """The mode of the record: "online", "offline", or another mode of W&B."""
        return self._connection.mode

    def loggers(self) -> list[Logger]:
        """Return the logger of curves along the draws."""
        return [self._curves]

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the folder's W&B run, and record the resolved configuration as its config.

        Raises:
            InputError: W&B cannot open a run.
        """
        self._config = recorded(config)
        self._connection.open()

    def summarise(self, metrics: Mapping[str, Any]) -> None:
        """Record the final numbers in the run's summary, and the verdict also as a tag and as panels."""
        numbers = {name: value for name, value in metrics.items() if value is not None}
        self._connection.call(lambda run: run.summary.update(numbers))
        if "verdict" in metrics:
            self._connection.call(lambda run: self._show_verdict(run, str(metrics["verdict"])))

    def show(self, pictures: Mapping[str, Path], tables: Mapping[str, pd.DataFrame], pages: Mapping[str, Path]) -> None:
        """Log figures as images, animations as videos, tables as W&B tables, interactive pages as HTML panels."""

        def log(run: Any) -> None:
            captions = RunFolder(self._folder).read_json(CAPTIONS)
            logged = {f"figures/{name}": _picture(path, captions.get(name)) for name, path in pictures.items()}
            shown = {name: table.head(LARGEST_TABLE) for name, table in tables.items()}
            logged |= {f"tables/{name}": wandb.Table(dataframe=table) for name, table in shown.items()}
            texts = {name: path.read_text(encoding="utf-8", errors="replace") for name, path in pages.items()}
            logged |= {f"interactive/{name}": wandb.Html(text, inject=False) for name, text in texts.items()}
            if logged:
                self._connection.append(run, logged)

        self._connection.call(log)

    def keep(self, name: str, kind: str, path: Path) -> None:
        """Upload a file or folder as an artifact, if it is within the size limit."""

        def upload(run: Any) -> None:
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            if sum(file.stat().st_size for file in files) > self._largest:
                return
            artifact = wandb.Artifact(f"{name}-{run.id}", type=kind)
            for file in files:
                artifact.add_file(str(file), name=str(file.relative_to(path.parent)))
            run.log_artifact(artifact)

        self._connection.call(upload)

    def finish(self, state: str) -> None:
        """Close the run; the next run of this process would be recorded into an open one."""
        if self.run is None:
            return
        self._curves.catch_up()
        duration = {"seconds": self._connection.seconds} | self._curves.speed()
        self._connection.call(lambda run: run.summary.update(duration))
        self._connection.close(state)

    def _prepare(self, run: Any) -> None:
        run.tags = list(dict.fromkeys([*(run.tags or ()), *self._tags]))
        run.define_metric("draw", hidden=True)
        run.define_metric(CLOCK, step_metric="draw")
        for curves in CURVED:
            run.define_metric(f"{curves}/*", step_metric="draw", summary="none")
        run.config.update(self._config, allow_val_change=True)

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        self._connection.call(lambda run: run.config.update(dict(settings), allow_val_change=True))

    def _show_verdict(self, run: Any, verdict: str) -> None:
        run.tags = [*(tag for tag in run.tags if tag not in _WORDS), verdict]
        diagnosis = RunFolder(self._folder).read_json("diagnosis.json")
        numbers = {name: diagnosis.get("metrics", {}).get(name) for name in _SORTED_BY}
        run.summary.update({f"diagnosis/{name}": value for name, value in numbers.items() if value is not None})
        logged: dict[str, Any] = {"trust/verdict": wandb.Html(verdict_panel(diagnosis), inject=False)}
        if diagnosis.get("screens"):
            logged["trust/screens"] = wandb.Table(dataframe=pd.DataFrame(diagnosis["screens"]))
        self._connection.append(run, logged)


def _shortened(text: str) -> str:
    """Return a name that W&B accepts; the end stays, because it distinguishes the jobs of a sweep."""
    half = (_LONGEST - 3) // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}...{text[-half:]}"


def _picture(path: Path, caption: str | None) -> Any:
    moving = path.suffix == ".gif"
    return wandb.Video(str(path), caption, format="gif") if moving else wandb.Image(str(path), caption=caption)


def verdict_panel(diagnosis: Mapping[str, Any]) -> str:
    """Return a page of HTML from a run's diagnosis.json: verdict, reasons, remedy, screens, the worst first."""
    order = {"fail": 0, "warn": 1}
    screens = sorted(diagnosis.get("screens") or (), key=lambda screen: order.get(screen["verdict"], 2))
    page = template(Path(__file__).with_name("verdict_panel.jinja"))
    return page.render(diagnosis=diagnosis, screens=screens, looks=VERDICTS, words=_WORDS, number=number)


# The configuration of a W&B run: all settings, nested, and the swept ones by short names.


def recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration for the record: nested, without long lists, with short names added.

    nbeta is among these only where it is a number; the conventions "batch" and "train" become one when sampling starts.
    """
    return {key: _short(value) for key, value in config.items()} | short_names(config)


def short_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are usually swept, by the last word of their key."""
    every = flat(config)
    numbers = {key.rsplit(".", 1)[-1]: every.get(key) for key in with_use(Use.SHORT_NAME)}
    names: dict[str, Any] = {name: value for name, value in numbers.items() if is_number(value)}
    classes = {key: _mapping(config, key).get("_target_") for key in with_use(Use.CLASS_NAME)}
    names |= {f"{key}_name": str(target).rpartition(".")[2] for key, target in classes.items() if target}
    if "wrapper" in config:
        names["wrapper_name"] = "+".join(map(str, _mapping(config, "wrapper"))) or "none"
    return names


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = config.get(key)
    return part if isinstance(part, Mapping) else {}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return f"{len(value)} values" if len(value) > _LONGEST_LIST else [_short(item) for item in value]
    return value
