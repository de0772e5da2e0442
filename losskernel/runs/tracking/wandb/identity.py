"""One run folder, one W&B run: its id kept beside the results, and only whole files of it."""

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from losskernel.errors import TraceError
from losskernel.runs.folder import RunFolder


def recall(folder: Path, job_type: str) -> dict[str, Any]:
    """Return what was noted of the folder's W&B run (id, name, seconds, ...); nothing where it has none."""
    try:
        found = json.loads((folder / _file(job_type)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note(folder: Path, job_type: str, **facts: Any) -> None:
    """Note facts of the folder's W&B run; that they cannot be written harms nobody."""
    with suppress(TraceError):
        RunFolder(folder).write_json(_file(job_type), recall(folder, job_type) | facts)


def put_aside(folder: Path, run_id: str, closed: Collection[str]) -> None:
    """Take what killed processes left of an offline run out of the way of `wandb sync`.

    A file that a kill has cut short stops `wandb sync` before those that follow it, and an empty one stops it
    altogether; what they held was logged again.

    Args:
        folder: of the run.
        run_id: of the W&B run.
        closed: names of the folders of W&B files that ended in order.
    """
    for file in unsent(folder, run_id):
        if file.parent.name not in closed:
            with suppress(OSError):
                file.rename(file.with_name(f"{file.name}.unended"))


def unsent(folder: Path, run_id: str | None) -> list[Path]:
    """Return the files of an offline run that `wandb sync` has not sent."""
    found = folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    return [file for file in found if not file.with_name(f"{file.name}.synced").exists()]


def _file(job_type: str) -> str:
    return "wandb.json" if job_type == "run" else f"wandb-{job_type}.json"
