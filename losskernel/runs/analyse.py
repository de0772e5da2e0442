"""Ask every analysis of a trace; write and record the answers, and say first whether they may be trusted."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses import Convergence
from losskernel.analyses.result import Analysis, PointAnalysis, Presentation, Result, is_of_points, meaning_of
from losskernel.errors import InputError, require
from losskernel.figures import stamp, stamp_page
from losskernel.figures.shared.presentation import is_number
from losskernel.kernel.diagnosis.diagnose import Diagnosis, diagnose
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.representations.baselines.collect import settings_of
from losskernel.representations.points import LOSS_KERNEL, TRAINED, NamedPoint, PointSet, sampled_point
from losskernel.runs.folder import RunFolder
from losskernel.runs.presentation import (
    COMPARED_METRICS,
    PRESENTATION,
    compared_metrics,
    presentations,
    read_presentations,
    stored,
)
from losskernel.runs.report import is_beside, meanings_of, write_report
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import guard
from losskernel.traces.loss_traces import LossTraces

# The companion at nbeta = 0, in the run's folder; its numbers are called `control/...`.
CONTROL = "control.zarr"
# What the run itself sampled, in its folder.
TRACES = "traces.zarr"
# What each analysis was asked, in its folder: name -> settings.
ASKED = "analyses.json"


@dataclass(frozen=True)
class Outcome:
    """What a run ends with: its numbers, whether they may be trusted, and where everything lies."""

    metrics: dict[str, float]
    diagnosis: Diagnosis | None  # None where nothing was sampled
    folder: Path
    replaced: tuple[str, ...] = ()  # analyses that had been asked with other settings
    before: bool = False  # all of it was there before: nothing was done now
    shown: Mapping[str, Presentation] = field(default_factory=dict)  # how each analysis shows its metrics


def analyse(
    traces: LossTraces | None,
    analyses: Mapping[str, Analysis | PointAnalysis],
    files: RunFolder,
    tracker: Tracker,
    control: LossTraces | str | None = None,
    points: PointSet | None = None,
    says: Callable[[str], None] | None = None,
) -> Outcome:
    """Ask every question of the kernel of some traces, and of points; write and record the answers.

    An analysis that breaks does not take the others' answers with it: its error is raised after all.

    Args:
        traces: what was sampled; None where nothing was.
        analyses: name -> analysis.
        files: the run's folder.
        tracker: where else to record.
        control: traces of the companion at nbeta = 0, or why there are none. Analyses of which its numbers mean
            something are asked again.
        points: layers, labels and kernels of the run; what was sampled joins them.
        says: is told the name of each analysis before it is asked.

    Raises:
        InputError: one or more analyses failed.
        TraceError: what was answered before is damaged, or the folder cannot be written.
    """
    kernel = None if traces is None else LossKernel.from_traces(traces)
    diagnosis = None if traces is None else diagnose(traces)
    if diagnosis is not None:
        files.write_json("diagnosis.json", asdict(diagnosis) | _control_diagnosis(control))
    if points is not None and traces is not None:
        points = points.extended([_placed(traces)])
    metrics, asked = _known_metrics(files, analyses), files.read_json(ASKED)
    broken: list[tuple[str, Exception]] = []
    for name, analysis in analyses.items():
        if says is not None:
            says(name)
        try:
            result = _answer(analysis, kernel, traces, points)
            metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
            if isinstance(control, LossTraces) and getattr(analysis, "controlled", False):
                idle = _answer(analysis, LossKernel.from_traces(control), control, points).metrics
                metrics |= {f"control/{name}/{key}": value for key, value in idle.items()}
        except Exception as error:  # whatever one analysis does, the others' answers are kept
            broken.append((name, error))
            continue
        _record(name, _stamped(result, diagnosis), files, tracker)
    now = {name: settings_of(analysis) for name, analysis in analyses.items()}
    replaced = tuple(f"{name}, asked before: {asked[name]}" for name in now if asked.get(name, now[name]) != now[name])
    files.write_json(ASKED, asked | now)
    files.write_json("metrics.json", metrics)
    shown = read_presentations(files.path) | presentations(analyses)
    files.write_json(PRESENTATION, stored(shown))
    said = {} if diagnosis is None else _said(diagnosis)
    tracker.summarise(metrics | said | {COMPARED_METRICS: compared_metrics(shown)})
    _explain(metrics, diagnosis, analyses, files, tracker)
    if kernel is not None and kernel.probes <= 2000:
        matrices = {"covariance": kernel.covariance(), "correlation": kernel.correlation(), "ids": kernel.ids}
        tracker.keep("kernel", "kernel", files.write("kernel.npz", lambda path: _save_matrices(path, matrices)))
    guard(files.path / "report.html", write_report, files.path)
    if broken:
        names = ", ".join(f"{name} ({type(error).__name__}: {error})" for name, error in broken)
        raise InputError(f"these analyses failed, all others are written: {names}") from broken[0][1]
    return Outcome(metrics, diagnosis, files.path, replaced, shown=shown)


def _answer(analysis: Any, kernel: LossKernel | None, traces: LossTraces | None, points: PointSet | None) -> Result:
    """Ask one question of what it is about.

    Raises:
        InputError: that is not there.
    """
    if is_of_points(analysis):
        require(points is not None, "it is asked of points, and the run has none; choose some: points=[layers,targets]")
        return analysis(points)
    require(kernel is not None, "it is asked of a loss kernel, and nothing was sampled (schedule=none)")
    return analysis(kernel, traces)


def _placed(traces: LossTraces) -> NamedPoint:
    """Return what was sampled as a point among others."""
    asked = traces.meta.get("identity", {}).get("sampler", {})
    settings = {name: float(asked[name]) for name in ("localization", "nbeta") if is_number(asked.get(name))}
    return NamedPoint(LOSS_KERNEL, sampled_point(traces), "loss_kernel", TRAINED, settings=settings, traces=TRACES)


def _said(diagnosis: Diagnosis) -> dict[str, str]:
    return {"verdict": diagnosis.verdict, "reasons": "; ".join(diagnosis.reasons), "remedy": diagnosis.remedy}


def _control_diagnosis(control: LossTraces | str | None) -> dict[str, Any]:
    """Return what is known of the companion, to stand in diagnosis.json."""
    if control is None:
        return {}
    if isinstance(control, str):
        return {"control": {"verdict": "none", "reasons": [control]}}
    found = diagnose(control)
    return {"control": {"verdict": found.verdict, "reasons": found.reasons}}


def _stamped(result: Result, diagnosis: Diagnosis | None) -> Result:
    """Return the result with a warning on every figure and page, if the kernel failed."""
    if diagnosis is None or diagnosis.verdict != "fail":
        return result
    text = f"FAILED diagnosis: {diagnosis.reasons[0].split(';')[0]}"
    for figure in result.figures.values():
        stamp(figure, text)
    pages = {name: stamp_page(page, text) for name, page in result.pages.items()}
    return replace(result, pages=pages)


def _save_matrices(path: Path, matrices: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add its own ending
        np.savez_compressed(file, **matrices)  # pyright: ignore[reportArgumentType]


def _explain(
    metrics: Mapping[str, float],
    diagnosis: Diagnosis | None,
    analyses: Mapping[str, Any],
    files: RunFolder,
    tracker: Tracker,
) -> None:
    """Write and record what each number means; of analyses that were not asked now, what was said before."""
    measured = {} if diagnosis is None else diagnosis.metrics
    told = {f"diagnosis/{name}": meaning_of(name, Convergence) for name in measured}
    before = meanings_of(files.path)
    for key in [key for key in metrics if not is_beside(key, metrics)]:
        name, _, metric = key.removeprefix("control/").partition("/")
        told[key] = meaning_of(metric, analyses[name]) if name in analyses else before.get(key, "")
        if told[key] and name in analyses and key.startswith("control/"):
            told[key] += " (of the companion at nbeta = 0)"
    rows = [each for each in told.items() if each[1]]
    if rows:
        table = pd.DataFrame(rows, columns=["metric", "meaning"])
        files.write_result(Result(tables={"meanings": table}))
        tracker.show({}, {"meanings": table}, {})


def _known_metrics(files: RunFolder, analyses: Mapping[str, Any]) -> dict[str, float]:
    """Return the folder's metrics of other analyses, so that asking one more question keeps the rest."""
    known = files.read_json("metrics.json")
    return {key: value for key, value in known.items() if key.removeprefix("control/").split("/")[0] not in analyses}


def _record(name: str, result: Result, files: RunFolder, tracker: Tracker) -> None:
    pictures = files.write_result(result)
    pages = {page: files.path / "figures" / f"{page}.html" for page in result.pages}
    tracker.show(pictures, {f"{name}_{table}": value for table, value in result.tables.items()}, pages)
