"""Run folders as a comparison reads them; a run without result is kept, with the reason."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import yaml

from losskernel.analyses.result import Presentation
from losskernel.config_keys import current_classes, flat, with_absent
from losskernel.errors import InputError, TraceError, require
from losskernel.figures.shared.presentation import is_finite
from losskernel.runs.analyse import SETTINGS
from losskernel.runs.report import read_presentations
from losskernel.traces.zarr_store import TraceStore

# In a sweep's folder: the folder of kernels whose chains its jobs sampled.
HOME = "joined"
# In the folder of a failed job: {"error": text, "config": resolved}. Ignored where there are results.
FAILURE = "failure.json"
# In the folder of a sweep around a run: job -> value of the swept key, in their order.
JOBS = "jobs.json"
# The verdict of a run that samples nothing.
UNSAMPLED = "unsampled"


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: its path.
        config: its resolved configuration, flat: dotted key -> value.
        metrics: name -> finite number; those of the diagnosis are called `diagnosis/...`.
        verdict: "pass", "warn" or "fail"; "unsampled" for a run of points alone; None where there is no result.
        reasons: the diagnosis' sentences.
        missing: why there is no result; "" where there is one.
        control: verdict of its control run at nβ = 0; "" where there is none.
        settings: analysis -> its settings.
        shown: analysis -> how it shows its metrics.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    verdict: str | None = None
    reasons: list[str] = field(default_factory=list)
    missing: str = ""
    control: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    shown: dict[str, Presentation] = field(default_factory=dict)


def find_runs(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the run folders in run folders, folders of sweeps, patterns with *, or a list of these.

    Raises:
        InputError: there is no such folder, or no run in it.
    """
    if not isinstance(given, (str, Path)):
        require(len(given) > 0, "runs=[] names no run; give run folders or a sweep's folder")
        return list(dict.fromkeys(folder for part in given for folder in find_runs(part)))
    remedy = "give run folders or a sweep's folder, such as runs=outputs/multitask/..."
    if any(sign in str(given) for sign in "*?["):
        matches = [Path(path) for path in sorted(glob(str(given)), key=_order) if Path(path).is_dir()]
        if Path(given).name != HOME:
            # Joined kernels repeat the chains of the runs beside them, so they count only if the pattern names them.
            matches = [path for path in matches if path.name != HOME or _is_run(path)]
        require(len(matches) > 0, f"runs={given}: no folder matches the pattern; {remedy}")
        folders = [folder for path in matches for folder in _runs_in(path)]
    else:
        require(Path(given).is_dir(), f"runs={given} is not a folder; {remedy}")
        folders = _runs_in(Path(given))
    require(len(folders) > 0, f"runs={given} holds no run; {remedy}")
    return folders


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        TraceError: one of its files is damaged.
    """
    failure = _json(folder / FAILURE) if (folder / FAILURE).is_file() else {}
    config = _settings(_yaml(folder / "config.yaml") or failure.get("config") or {})
    if not (folder / "metrics.json").is_file():
        return Run(folder, config or _composed(folder), missing=str(failure.get("error", "")) or _state(folder))
    diagnosed, sampled = (folder / "diagnosis.json").is_file(), (folder / "traces.zarr").exists()
    diagnosis = _json(folder / "diagnosis.json") if diagnosed else {}
    measured = _json(folder / "metrics.json")
    measured |= {f"diagnosis/{name}": value for name, value in (diagnosis.get("metrics") or {}).items()}
    return Run(
        folder,
        config,
        {name: float(value) for name, value in measured.items() if is_finite(value)},
        str(diagnosis.get("verdict", "none")) if diagnosed or sampled else UNSAMPLED,
        [str(reason) for reason in diagnosis.get("reasons") or []],
        control=str((diagnosis.get("control") or {}).get("verdict", "")),
        settings=_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {},
        shown=read_presentations(folder),
    )


def short_names(runs: Sequence[Run]) -> list[str]:
    """Return the end of each folder's path, as much as distinguishes the runs; in a sweep the number of the job."""
    parts = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(path) for path in parts]


def _runs_in(folder: Path) -> list[Path]:
    """Return the folder itself if it is a run's, else the runs directly in it, ordered by number."""
    if _is_run(folder):
        return [folder]
    return sorted((path for path in folder.iterdir() if path.is_dir() and _is_run(path)), key=_order)


def _is_run(folder: Path) -> bool:
    if (folder / "calibration.json").exists():
        return False
    # Hydra makes .hydra first, so that a job that failed at once counts too.
    return any((folder / name).exists() for name in ("metrics.json", "traces.zarr", "config.yaml", FAILURE, ".hydra"))


def _order(path: str | Path) -> tuple[str, int, str]:
    name = Path(path).name
    return str(Path(path).parent), int(name) if name.isdecimal() else -1, name


def _state(folder: Path) -> str:
    """Return the progress of a run that left neither results nor an error."""
    try:
        store = TraceStore(folder / "traces.zarr")
        if not store.exists:
            return "it stopped before the first draw"
        state = store.load_state()
        if store.complete:
            return f"sampled, not analysed; losskernel-analyse run={folder}"
    except (TraceError, InputError) as error:
        return f"its trace cannot be read: {error}"
    return "unfinished" if state is None else f"unfinished, {state['summary']}"


def _composed(folder: Path) -> dict[str, Any]:
    """Return the configuration as Hydra composed it, without values that need to be resolved."""
    composed = _settings(_yaml(folder / ".hydra" / "config.yaml"))
    return {key: value for key, value in composed.items() if "${" not in str(value)}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration, flat, as this version would have written it."""
    return flat(with_absent(current_classes(config))) if config else {}


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise TraceError(f"{path} is no YAML; remove the run from runs=, or repeat it") from error
    return content if isinstance(content, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TraceError(f"{path} is no JSON; run losskernel-analyse on its folder") from error
    if not isinstance(content, dict):
        raise TraceError(f"{path} must hold an object of names; run losskernel-analyse on its folder")
    return content
