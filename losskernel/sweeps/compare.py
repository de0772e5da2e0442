"""compare(): many runs side by side: metrics against the swept values, similarity of kernels, the stable region."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from losskernel import figures
from losskernel.analyses.result import MetricPanel, Result
from losskernel.config_keys import Use, with_use
from losskernel.errors import InputError, TraceError, require, require_number
from losskernel.figures import Figure
from losskernel.figures.shared.lettering import plain
from losskernel.figures.shared.style import INK, OKABE_ITO
from losskernel.geometry import classical_scaling
from losskernel.kernel.error_bars import batch_means
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.runs.folder import RunFolder
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import guard
from losskernel.sweeps import comparison_page as words
from losskernel.sweeps.design import Design, Finding, curves_of, lay_out, panels_for, repeated_over, verdict_rows
from losskernel.sweeps.read_runs import UNSAMPLED, Run, read_run, short_names
from losskernel.sweeps.similarity import Similarity, Stretch, all_tables, measure, paths, stable_stretch, whole_paths
from losskernel.traces.compatibility import shortened
from losskernel.traces.loss_traces import LossTraces, open_traces

ALIKE = 0.8
_LIMIT = 1000  # probes of the jobs' kernels at most; the distances of kernels use as many
# Metrics of the traces themselves, which are comparable where all jobs have one network.
TRACE_PANELS = (
    MetricPanel("probe loss", (("trace/start_loss", "at w*", INK), ("trace/mean_loss", "sampled", OKABE_ITO[2]))),
    MetricPanel("mean self-coupling K(z, z)", (("trace/self_coupling", "", INK),)),
)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        runs: all of them, also those without result.
        design: what was varied, and how it is drawn.
        panels: the metrics drawn.
        similarity: distances between kernels; None where they are not compared.
        unlike: why they cannot be compared; "" where they can.
        stable: the stable stretch of every curve, or None.
        alike: CKA from which two kernels count as alike.
        folder: of page, figures and tables.
    """

    runs: list[Run]
    design: Design
    panels: list[MetricPanel]
    similarity: Similarity | None
    unlike: str
    stable: list[Stretch | None]
    alike: float
    folder: Path

    def summary(self) -> dict[str, Any]:
        """Return the summarising numbers."""
        counts = {f"runs_{verdict}": count for verdict, count in words.counts(self.runs).items()}
        result: dict[str, Any] = {"runs": len(self.runs), **counts}
        for name, stretch in zip(self.design.curves, self.stable, strict=True):
            if stretch is not None:
                prefix, ticks = f"stable/{name}/" if name else "stable/", self.design.axis.names
                result |= {f"{prefix}from": float(ticks[stretch.first]), f"{prefix}to": float(ticks[stretch.last])}
                result[f"{prefix}cka"] = stretch.cka
        if self.similarity is not None and self.design.axis.values is not None:
            for name, path in paths(self.runs, self.design, self.similarity).items():
                steps = [self.similarity.distances[pair] for pair in pairwise(path)]
                result[f"path/{name}/length" if name else "path/length"] = float(sum(steps))
        return result

    def notes(self) -> list[str]:
        """Return the sentences for the top of the page; some are empty."""
        names = short_names(self.runs)
        left_out = self.similarity.left_out if self.similarity else {}
        return [
            words.stable_words(self.runs, self.design, self.similarity, self.stable),
            words.like_control(self.runs, self.design, self.similarity) if self.similarity else "",
            self.unlike,
            words.different_settings(self.runs, self.panels),
            *shortened([f"run {names[run]} is not among the kernels: {why}" for run, why in left_out.items()]),
        ]

    def overview(self) -> str:
        """Return the table for the terminal, the notes, and the path of the page."""
        lines = words.overview(self.runs, self.design, self.panels)
        notes = [f"  - {note}" for note in self.notes() if note]
        return "\n".join([*lines, *notes, f"  report.html   {self.folder / 'report.html'}"])


def compare(
    folders: Sequence[str | Path | Run],
    out: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    alike: float = ALIKE,
    tracker: Tracker | None = None,
    title: str | None = None,
) -> Comparison:
    """Compare runs, and leave report.html, figures and tables in a folder.

    Kernels over different probes are not compared with each other; the page then says so and shows the rest.

    Args:
        folders: run folders, see find_runs, or runs that were read.
        out: where to write, such as the sweep's folder.
        metrics: what to draw, such as separation/ari; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike, for the stable region.
        tracker: where else to record.
        title: of the page; None for the runs' common name.

    Raises:
        InputError: fewer than two runs have a result, or a metric is not there.
        TraceError: a run's files are damaged, or `out` cannot be written.
    """
    runs = [run if isinstance(run, Run) else read_run(Path(run)) for run in folders]
    return compare_runs(
        runs,
        out,
        metrics,
        title=title or _title(runs),
        questions=[lambda comparison: whole_paths(comparison.runs, comparison.design)],
        alike=alike,
        tracker=tracker,
    )


def compare_runs(
    runs: list[Run],
    out: str | Path,
    metrics: Sequence[str] | str | None,
    before: Sequence[MetricPanel] = (),
    *,
    title: str,
    name: str = "comparison",
    questions: Sequence[Callable[[Comparison], Finding]] = (),
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Compare runs that were read, as compare() does, and answer further questions about them.

    Args:
        runs: their configurations hold what differs between them.
        out, metrics, title, alike, tracker: as there.
        before: further panels, drawn first; given where all runs share one network.
        name: `<name>.json` holds the numbers.
        questions: comparison -> answer; answers come first on the page.

    Raises:
        InputError, TraceError: as there.
    """
    require_number("alike", alike, at_least=0)
    require(alike <= 1, f"alike must be <= 1, got {alike}; it is a CKA, such as 0.8")
    finished = [run for run in runs if not run.missing]
    if len(finished) < 2:
        why = "; ".join(f"run {run.folder.name}: {run.missing}" for run in runs if run.missing)
        raise InputError(f"{len(finished)} finished run: a comparison needs 2" + (f" ({why})" if why else ""))
    comparison = _compared(runs, panels_for(runs, metrics, before), alike, Path(out))
    findings = [*(question(comparison) for question in questions), _usual_finding(comparison)]
    _record(comparison, findings, tracker or Tracker(), title, name)
    return comparison


def _compared(runs: list[Run], panels: list[MetricPanel], alike: float, folder: Path) -> Comparison:
    design, similarity, unlike = lay_out(runs), None, ""
    try:
        similarity = measure(runs) if any(run.verdict != UNSAMPLED for run in runs if not run.missing) else None
    except InputError as error:  # other probes, or too few kernels: the metrics are compared all the same
        unlike = str(error)
    curves = range(len(design.curves))
    stable = [None if similarity is None else stable_stretch(runs, design, similarity, c, alike) for c in curves]
    return Comparison(runs, design, panels, similarity, unlike, stable, alike, folder)


def _record(comparison: Comparison, findings: Sequence[Finding], tracker: Tracker, title: str, name: str) -> None:
    """Write all files, then record them: the page must not depend on a network, and a tracker is always closed."""
    files, result = RunFolder(comparison.folder), _merged(findings)
    files.prepare()
    pictures = files.write_result(result)
    numbers = comparison.summary() | result.metrics
    files.write_json(f"{name}.json", numbers)
    captions, notes = _captions_by_file(findings), [note for finding in findings for note in finding.notes]
    runs, design, panels = comparison.runs, comparison.design, comparison.panels
    page = files.path / "report.html"
    guard(page, lambda: words.write_comparison(files.path, title, runs, design, panels, captions, notes))
    state = "failed"
    try:
        tracker.start(_config(comparison))
        tracker.show(pictures, result.tables, {})
        tracker.summarise(numbers)
        state = "finished"
    finally:
        tracker.finish(state)


def _merged(findings: Sequence[Finding]) -> Result:
    """Return all results as one."""
    result = Result()
    for finding in findings:
        for kind in ("metrics", "tables", "figures", "animations"):
            getattr(result, kind).update(getattr(finding.result, kind))
    return result


def _captions_by_file(findings: Sequence[Finding]) -> dict[str, str]:
    """Return file -> caption of all pictures on the page, in its order."""
    return {
        f"{name}.{'gif' if name in finding.result.animations else 'png'}": text
        for finding in findings
        for name, text in finding.captions.items()
    }


def _usual_finding(comparison: Comparison) -> Finding:
    """Return the tables, figures, captions and notes of every comparison."""
    design, runs, similarity = comparison.design, comparison.runs, comparison.similarity
    bars = f"range over {repeated_over(runs)}" if design.repeated else "90 % interval"
    curves, verdicts = curves_of(comparison.panels, runs, design), verdict_rows(runs, design, comparison.stable)
    drawn = {"comparison": figures.comparison(curves, design.axis, verdicts, bars)}
    rule = words.stable_rule(design, comparison.alike)
    captions = {"comparison": words.caption_of_metrics(runs, design, comparison.panels, rule)}
    if similarity is not None:
        drawn["kernel_similarity"] = _similarity_figure(runs, design, similarity)
        captions["kernel_similarity"] = words.caption_of_similarity(design, similarity)
    tables = all_tables(runs, design, comparison.stable, similarity)
    return Finding(Result({}, tables, drawn), captions, comparison.notes())


def _similarity_figure(runs: Sequence[Run], design: Design, similarity: Similarity) -> Figure:
    layout, lines = classical_scaling(similarity.distances), paths(runs, design, similarity)
    kernels = figures.Kernels(
        similarity.distances,
        similarity.floor(),
        similarity.to_control,
        layout.coordinates,
        layout.stress,
        [_printed(design, run) for run in similarity.members],
        [runs[run].verdict or "none" for run in similarity.members],
        [design.index[run] for run in similarity.members],
        list(lines.values()),
        list(lines),
    )
    return figures.kernel_similarity(kernels, design.axis)


def _title(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(str(run.config["name"]) for run in runs if run.config.get("name")))
    return f"{names[0]}: comparison of {len(runs)} runs" if len(names) == 1 else f"Comparison of {len(runs)} runs"


def _printed(design: Design, run: int) -> str:
    """Return a run's name as the figures print it."""
    index = design.index[run]
    alone = len(design.keys) == 1 and len(set(design.names)) == len(design.names)
    return design.axis.printed()[index] if alone and index is not None else plain(design.names[run])


def _config(comparison: Comparison) -> dict[str, Any]:
    """Return the swept values, as the configuration of the tracker's record."""
    swept = {key: [run.config.get(key) for run in comparison.runs] for key in comparison.design.keys}
    for key, values in swept.items():  # values may be lists, which no set can hold
        swept[key] = [value for number, value in enumerate(values) if value not in values[:number]]
    return {"swept": swept, "runs": [str(run.folder) for run in comparison.runs], "alike": comparison.alike}


# Sweeps around one finished run: their jobs, the metrics of their traces, their kernels.


# Number of a run -> its kernel, over evenly spaced probes, at most a given number.
JobKernels = Mapping[int, LossKernel]


def compare_jobs(
    name: str,
    folder: str | Path,
    key: str,
    jobs: Mapping[Path, Any],
    questions: Sequence[Callable[[Comparison, JobKernels], Finding]],
    *,
    metrics: Sequence[str] | str | None,
    alike: float,
    tracker: Tracker | None,
) -> Comparison:
    """Compare the jobs of a sweep, answer further questions about them, and write report.html, figures and tables.

    Args:
        name: of the sweep, in the title and in `<name>.json`, which holds the numbers.
        folder: of the sweep; where to write.
        key: name of the one key in which the jobs differ.
        jobs: folder of a job, unfinished and failed ones included -> its value of the key; in their order.
        questions: (comparison, kernels of the finished jobs) -> answer.
        metrics: what to draw; None for the usual metrics that the jobs have.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two jobs have a result, or a metric is not there.
        TraceError: a job's files are damaged, or `folder` cannot be written.
    """
    kept = with_use(Use.HEADING)  # all other settings are the run's, and equal in all jobs
    runs = [
        replace(run, config={name: run.config[name] for name in kept if name in run.config} | {key: value})
        for run, value in ((read_run(path), value) for path, value in jobs.items())
    ]
    runs, kernels = _with_traces(runs)
    return compare_runs(
        runs,
        folder,
        metrics,
        TRACE_PANELS,
        title=f"{runs[0].config.get('name', Path(folder).parent.name)}: {name}",
        name=name,
        questions=[lambda comparison, answer=question: answer(comparison, kernels) for question in questions],
        alike=alike,
        tracker=tracker,
    )


def _with_traces(runs: list[Run]) -> tuple[list[Run], JobKernels]:
    """Return the runs with the metrics of their traces added, and the kernels of those that have a finished trace.

    `trace/start_loss` is the probes' mean loss at w*, `trace/mean_loss` that along the chains, `trace/self_coupling`
    the mean of K's diagonal, `trace/moving` the number of weights that move.
    """
    extended, kernels = list(runs), dict[int, LossKernel]()
    for number, run in enumerate(runs):
        if run.missing:
            continue
        try:
            traces = open_traces(run.folder)
        except TraceError:  # unfinished; the comparison of kernels reports it
            continue
        extended[number] = replace(run, metrics=run.metrics | _trace_metrics(traces))
        kernels[number] = LossKernel.from_traces(traces).evenly(_LIMIT)
    return extended, kernels


def _trace_metrics(traces: LossTraces) -> dict[str, float]:
    losses = traces.losses.values.astype(np.float64)  # [C, D, N]
    draws = losses.shape[1]
    # Squared deviations, scaled so that their mean over draws is the unbiased variance: [C, D]
    variance = np.square(losses - losses.mean(axis=1, keepdims=True)).mean(2) * draws / (draws - 1)
    metrics = batch_means("trace/mean_loss", losses.mean(2)) | batch_means("trace/self_coupling", variance)
    start, moving = traces.record("start_losses"), traces.meta.get("parameters", {}).get("moving")
    if start is not None:
        metrics["trace/start_loss"] = float(start.mean())
    if moving is not None:
        metrics["trace/moving"] = float(moving)
    return metrics
