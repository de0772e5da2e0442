"""What sweeps around one finished run have in common: their jobs, the metrics of their traces, their kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from losskernel.analyses.result import MetricPanel
from losskernel.config_keys import Use, with_use
from losskernel.errors import TraceError
from losskernel.figures.shared.style import INK, OKABE_ITO
from losskernel.kernel.error_bars import batch_means
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sweeps.compare import Comparison, compare_runs
from losskernel.sweeps.comparison_page import Finding
from losskernel.sweeps.metric_panels import panels_for
from losskernel.sweeps.read_runs import Run, find_runs, read_run
from losskernel.traces.loss_traces import LossTraces, open_traces

# Metrics of the traces themselves, which are comparable where all jobs have one network.
TRACE_PANELS = (
    MetricPanel("probe loss", (("trace/start_loss", "at w*", INK), ("trace/mean_loss", "sampled", OKABE_ITO[2]))),
    MetricPanel("mean self-coupling K(z, z)", (("trace/self_coupling", "", INK),)),
)


@dataclass(frozen=True)
class JobKernel:
    """The kernel of one finished job.

    Attributes:
        number: of its run.
        kernel: over evenly spaced probes, at most a given number.
    """

    number: int
    kernel: LossKernel


def read_jobs(folder: Path, key: str, value: Callable[[Path], Any], order: Callable[[Any], Any]) -> list[Run]:
    """Return the jobs in a folder as runs that differ in one key, unfinished and failed ones included.

    Args:
        folder: of the sweep.
        key: name of the key.
        value: job folder -> its value.
        order: value -> sort key.

    Raises:
        InputError: there is no job.
        TraceError: a job's files are damaged.
    """
    runs = [(value(path), read_run(path)) for path in find_runs(folder)]
    kept = with_use(Use.HEADING)  # all other settings are the run's, and equal in all jobs
    return [
        replace(run, config={name: run.config[name] for name in kept if name in run.config} | {key: swept})
        for swept, run in sorted(runs, key=lambda pair: order(pair[0]))
    ]


def compare_jobs(
    name: str,
    runs: list[Run],
    folder: Path,
    questions: Sequence[Callable[[Comparison, list[JobKernel]], Finding]],
    *,
    limit: int,
    metrics: Sequence[str] | str | None,
    alike: float,
    tracker: Tracker | None,
) -> Comparison:
    """Compare the jobs of a sweep, answer further questions about them, and write report.html, figures and tables.

    Args:
        name: of the sweep, in the title and in `<name>.json`, which holds the numbers.
        runs: its jobs, which differ in one key.
        folder: where to write.
        questions: (comparison, kernels of the finished jobs) -> answer.
        limit: probes of these kernels at most.
        metrics: what to draw; None for the usual metrics that the jobs have.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two jobs have a result, or a metric is not there.
        TraceError: `folder` cannot be written.
    """
    runs, kernels = _with_traces(runs, limit)
    panels = panels_for(runs, metrics, TRACE_PANELS)

    def bound(question: Callable[[Comparison, list[JobKernel]], Finding]) -> Callable[[Comparison], Finding]:
        return lambda comparison: question(comparison, kernels)

    return compare_runs(
        runs,
        folder,
        lambda: panels,
        title=f"{runs[0].config.get('name', folder.parent.name)}: {name}",
        name=name,
        questions=[bound(question) for question in questions],
        alike=alike,
        tracker=tracker,
    )


def _with_traces(runs: list[Run], limit: int) -> tuple[list[Run], list[JobKernel]]:
    """Return the runs with the metrics of their traces added, and the kernels of those that have a finished trace.

    `trace/start_loss` is the probes' mean loss at w*, `trace/mean_loss` that along the chains, `trace/self_coupling`
    the mean of K's diagonal, `trace/moving` the number of weights that move.
    """
    extended, kernels = list(runs), []
    for number, run in enumerate(runs):
        if run.missing:
            continue
        try:
            traces = open_traces(run.folder)
        except TraceError:  # unfinished; the comparison of kernels reports it
            continue
        extended[number] = replace(run, metrics=run.metrics | _trace_metrics(traces))
        kernels.append(JobKernel(number, LossKernel.from_traces(traces).evenly(limit)))
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
