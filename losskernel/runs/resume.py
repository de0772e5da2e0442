"""Whether a run folder holds the same run, which is resumed or left as it is, or another one, which is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from losskernel.config_keys import DONE, RESUMED, current_classes, part_of, with_absent
from losskernel.errors import TraceError
from losskernel.kernel.diagnosis.diagnose import Diagnosis
from losskernel.runs.analyse import TRACES, Outcome
from losskernel.runs.folder import RunFolder
from losskernel.runs.presentation import read_presentations
from losskernel.runs.status.status_file import read_status
from losskernel.storage.settings_diff import differences


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides the numbers."""
    return part_of(with_absent(config), RESUMED)


def claim(files: RunFolder, config: Mapping[str, Any]) -> None:
    """Write the configuration, or refuse a folder that holds results of another one.

    Raises:
        TraceError: it holds another run.
    """
    lines = differences(decisive(stored), decisive(config)) if (stored := _stored(files.path)) is not None else []
    if lines:
        raise TraceError(f"{files.path} holds another run: {'; '.join(lines)}; choose another folder")
    files.write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def finished(folder: Path, config: Mapping[str, Any] | None) -> Outcome | None:
    """Return the outcome of a run that finished with the same configuration; None where there is something to do.

    Raises:
        TraceError: a file of it is damaged.
    """
    stored, status = _stored(folder), read_status(folder)
    if not config or stored is None or status is None or status.get("state") != "finished":
        return None
    left = ["metrics.json", *["diagnosis.json", TRACES] * ("_target_" in (config.get("schedule") or {}))]
    if differences(part_of(with_absent(stored), DONE), part_of(with_absent(config), DONE)) or not all(
        (folder / name).exists() for name in left
    ):
        return None
    metrics, diagnosis = (RunFolder(folder).read_json(name) for name in ("metrics.json", "diagnosis.json"))
    known = {key: diagnosis[key] for key in ("verdict", "reasons", "metrics", "remedy") if key in diagnosis}
    return Outcome(
        metrics, Diagnosis(**known) if known else None, folder, before=True, shown=read_presentations(folder)
    )


def _stored(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        config = None
    if not isinstance(config, dict):
        reason = "it holds no configuration; restore it from a copy, or remove it"
        raise TraceError(f"{path} is damaged: {reason} if this is the same run: its traces know their own settings")
    return current_classes(config)
