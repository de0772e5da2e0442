"""analyse(): run the analyses of a kernel and of points, and write and record their results and the diagnosis."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from losskernel.analyses import Convergence
from losskernel.analyses.result import Analysis, PointAnalysis, Presentation, Result, is_of_points, meaning_of
from losskernel.errors import InputError, require
from losskernel.figures import stamp, stamp_page
from losskernel.figures.shared.presentation import is_number
from losskernel.kernel.diagnosis.diagnose import Diagnosis, diagnose
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.representations.baselines.collect import settings_of
from losskernel.representations.points import LOSS_KERNEL, TRAINED, NamedPoint, PointSet, sampled_point
from losskernel.runs import report
from losskernel.runs.folder import RunFolder
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import guard
from losskernel.traces.loss_traces import LossTraces

# In a run's folder: the trace of the run's own kernel, and that of the control run at nbeta = 0.
TRACES, CONTROL = "traces.zarr", "control.zarr"
# In a run's folder: analysis -> its settings.
SETTINGS = "analyses.json"
_LARGEST_KERNEL = 2000  # probes up to which the kernel's matrices are written


@dataclass(frozen=True)
class Outcome:
    """The end of a run: its numbers, whether they can be trusted, and its folder."""

    metrics: dict[str, float]
    diagnosis: Diagnosis | None  # None where nothing was sampled
    folder: Path
    replaced: tuple[str, ...] = ()  # analyses whose earlier results had other settings
    before: bool = False  # the run was finished already, and nothing was done
    shown: Mapping[str, Presentation] = field(default_factory=dict)  # how each analysis shows its metrics


@dataclass(frozen=True)
class _Subject:
    """What the analyses of one kernel analyse."""

    kernel: LossKernel | None
    traces: LossTraces | None
    points: PointSet | None

    @classmethod
    def of(cls, traces: LossTraces | None, points: PointSet | None) -> "_Subject":
        if traces is None:
            return cls(None, None, points)
        if points is not None:
            points = points.extended([_sampled_kernel(traces)])
        return cls(LossKernel.from_traces(traces), traces, points)

    def result(self, analysis: Any) -> Result:
        """Return the result of an analysis of points or of a loss kernel; raise InputError if there are none."""
        if is_of_points(analysis):
            remedy = "choose some: points=[layers,targets]"
            require(self.points is not None, f"it is asked of points, and the run has none; {remedy}")
            return analysis(self.points)
        nothing = "it is asked of a loss kernel, and nothing was sampled (schedule=none)"
        require(self.kernel is not None, nothing)
        return analysis(self.kernel, self.traces)


def analyse(
    traces: LossTraces | None,
    analyses: Mapping[str, Analysis | PointAnalysis],
    files: RunFolder,
    tracker: Tracker,
    control: LossTraces | str | None = None,
    points: PointSet | None = None,
    begin: Callable[[str], None] | None = None,
    progress: bool = False,
) -> Outcome:
    """Run the analyses of a kernel and of points; write and record their results.

    An analysis that raises does not prevent the others: its error is raised at the end.

    Args:
        traces: of the kernel; None where nothing was sampled.
        analyses: name -> analysis.
        files: the run's folder.
        tracker: where else to record.
        control: traces of the control run at nbeta = 0, or why there are none. Analyses whose numbers mean something
            there are repeated for it.
        points: layers, labels and kernels of the run; the sampled kernel joins them.
        begin: called with the name of each analysis before it runs.
        progress: whether a bar in a terminal shows which one runs.

    Raises:
        InputError: one or more analyses failed.
        TraceError: earlier results are damaged, or the folder cannot be written.
    """
    diagnosis = None if traces is None else diagnose(traces)
    if diagnosis is not None:
        files.write_json("diagnosis.json", asdict(diagnosis) | _control_diagnosis(control))
    subject = _Subject.of(traces, points)
    metrics, settings = _metrics_of_others(files, analyses), files.read_json(SETTINGS)

    def record(name: str, result: Result) -> None:
        result = _stamped(result, diagnosis)
        pictures = files.write_result(result)
        pages = {page: files.path / "figures" / f"{page}.html" for page in result.pages}
        tracker.show(pictures, {f"{name}_{table}": value for table, value in result.tables.items()}, pages)

    with tqdm(analyses.items(), "analysing", leave=False, disable=None if progress else True) as bar:
        new, failed = _results(subject, bar, control, begin or (lambda _: None), record)
    metrics |= new
    now = {name: settings_of(analysis) for name, analysis in analyses.items()}
    changed = [name for name in now if settings.get(name, now[name]) != now[name]]
    files.write_json(SETTINGS, settings | now)
    files.write_json("metrics.json", metrics)
    shown = report.read_presentations(files.path) | report.presentations(analyses)
    files.write_json(report.PRESENTATION, {name: asdict(words) for name, words in shown.items()})
    compared = {report.COMPARED_METRICS: report.compared_metrics(shown)}
    tracker.summarise(metrics | _verdict(diagnosis) | compared)
    _write_meanings(metrics, diagnosis, analyses, files, tracker)
    _write_kernel(subject.kernel, files, tracker)
    guard(files.path / "report.html", report.write_report, files.path)
    if failed:
        names = ", ".join(f"{name} ({type(error).__name__}: {error})" for name, error in failed.items())
        raise InputError(f"these analyses failed, all others are written: {names}") from next(iter(failed.values()))
    replaced = tuple(f"{name}, asked before: {settings[name]}" for name in changed)
    return Outcome(metrics, diagnosis, files.path, replaced, shown=shown)


def _results(
    subject: _Subject,
    analyses: "tqdm[tuple[str, Analysis | PointAnalysis]]",
    control: LossTraces | str | None,
    begin: Callable[[str], None],
    record: Callable[[str, Result], None],
) -> tuple[dict[str, float], dict[str, Exception]]:
    """Run all analyses, and record their results. Return their metrics, and the errors of those that failed."""
    metrics: dict[str, float] = {}
    failed: dict[str, Exception] = {}
    for name, analysis in analyses:
        analyses.set_postfix_str(name)
        begin(name)
        try:
            result = subject.result(analysis)
            metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
            if isinstance(control, LossTraces) and getattr(analysis, "controlled", False):
                of_control = _Subject(LossKernel.from_traces(control), control, subject.points).result(analysis)
                metrics |= {f"control/{name}/{key}": value for key, value in of_control.metrics.items()}
        except Exception as error:  # an analysis may be the user's and raise anything; the results of others stay
            failed[name] = error
            continue
        record(name, result)
    return metrics, failed


def _sampled_kernel(traces: LossTraces) -> NamedPoint:
    """Return the sampled kernel as a point among others."""
    sampler = traces.meta.get("identity", {}).get("sampler", {})
    settings = {name: float(sampler[name]) for name in ("localization", "nbeta") if is_number(sampler.get(name))}
    return NamedPoint(LOSS_KERNEL, sampled_point(traces), "loss_kernel", TRAINED, settings=settings, traces=TRACES)


def _verdict(diagnosis: Diagnosis | None) -> dict[str, str]:
    if diagnosis is None:
        return {}
    return {"verdict": diagnosis.verdict, "reasons": "; ".join(diagnosis.reasons), "remedy": diagnosis.remedy}


def _control_diagnosis(control: LossTraces | str | None) -> dict[str, Any]:
    """Return the entry of the control run in diagnosis.json."""
    if control is None:
        return {}
    if isinstance(control, str):
        return {"control": {"verdict": "none", "reasons": [control]}}
    diagnosis = diagnose(control)
    return {"control": {"verdict": diagnosis.verdict, "reasons": diagnosis.reasons}}


def _stamped(result: Result, diagnosis: Diagnosis | None) -> Result:
    """Return the result with a warning on every figure and page, if the kernel failed its diagnosis."""
    if diagnosis is None or diagnosis.verdict != "fail":
        return result
    text = f"FAILED diagnosis: {diagnosis.reasons[0].split(';')[0]}"
    for figure in result.figures.values():
        stamp(figure, text)
    pages = {name: stamp_page(page, text) for name, page in result.pages.items()}
    return replace(result, pages=pages)


def _write_kernel(kernel: LossKernel | None, files: RunFolder, tracker: Tracker) -> None:
    if kernel is None or kernel.probes > _LARGEST_KERNEL:
        return
    matrices = {"covariance": kernel.covariance(), "correlation": kernel.correlation(), "ids": kernel.ids}

    def save(path: Path) -> None:
        with open(path, "wb") as file:  # given a name, numpy would add its own suffix
            np.savez_compressed(file, **matrices)  # pyright: ignore[reportArgumentType]

    tracker.keep("kernel", "kernel", files.write("kernel.npz", save))


def _write_meanings(
    metrics: Mapping[str, float],
    diagnosis: Diagnosis | None,
    analyses: Mapping[str, Any],
    files: RunFolder,
    tracker: Tracker,
) -> None:
    """Write and record the meaning of each metric; those of earlier analyses are kept."""
    measured, earlier = {} if diagnosis is None else diagnosis.metrics, report.meanings_of(files.path)
    meanings = {f"diagnosis/{name}": meaning_of(name, Convergence) for name in measured}
    for key in [key for key in metrics if not report.is_beside(key, metrics)]:
        name, _, metric = key.removeprefix("control/").partition("/")
        meanings[key] = meaning_of(metric, analyses[name]) if name in analyses else earlier.get(key, "")
        if meanings[key] and name in analyses and key.startswith("control/"):
            meanings[key] += " (of the control run at nbeta = 0)"
    rows = [row for row in meanings.items() if row[1]]
    if rows:
        table = pd.DataFrame(rows, columns=["metric", "meaning"])
        files.write_result(Result(tables={"meanings": table}))
        tracker.show({}, {"meanings": table}, {})


def _metrics_of_others(files: RunFolder, analyses: Mapping[str, Any]) -> dict[str, float]:
    """Return the folder's metrics of other analyses, which a further analysis must not remove."""
    known = files.read_json("metrics.json")
    return {key: value for key, value in known.items() if key.removeprefix("control/").split("/")[0] not in analyses}
