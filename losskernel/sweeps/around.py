"""The jobs of a sweep around a run, and what each one's trace says by itself."""

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
from losskernel.sweeps.compare import Comparison
from losskernel.sweeps.compare import side_by_side as compared
from losskernel.sweeps.read_runs import Run, find_runs, read_run
from losskernel.sweeps.report import Finding as Finding
from losskernel.traces.loss_traces import LossTraces, open_traces

# The numbers of the traces themselves, which `look` adds: drawn where all runs share one network.
TRACE_PANELS = (
    MetricPanel("probe loss", (("trace/start_loss", "at w*", INK), ("trace/mean_loss", "sampled", OKABE_ITO[2]))),
    MetricPanel("mean self-coupling K(z, z)", (("trace/self_coupling", "", INK),)),
)


@dataclass(frozen=True)
class Look:
    """One finished job.

    Attributes:
        number: of its run.
        kernel: over at most so many probes, evenly spaced.
    """

    number: int
    kernel: LossKernel


def read_jobs(folder: Path, key: str, value: Callable[[Path], Any], order: Callable[[Any], Any]) -> list[Run]:
    """Return the jobs in a folder as runs that differ in one key, unfinished and failed ones among them.

    Args:
        folder: where the jobs lie.
        key: what to call what differs.
        value: job folder -> its value.
        order: value -> place among the jobs.

    Raises:
        InputError: there is no job.
        TraceError: a job's files are damaged.
    """
    runs = [(value(path), read_run(path)) for path in find_runs(folder)]
    runs = sorted(runs, key=lambda pair: order(pair[0]))
    return [
        replace(
            run, config={name: run.config[name] for name in with_use(Use.HEADING) if name in run.config} | {key: own}
        )
        for own, run in runs
    ]


def look(runs: list[Run], limit: int) -> tuple[list[Run], list[Look]]:
    """Return the runs with the numbers of their traces among their metrics, and the kernels of those that have one.

    `trace/start_loss` is the probes' mean loss at w*, `trace/mean_loss` that along the chains, `trace/self_coupling`
    the mean of K's diagonal, `trace/moving` how many weights move. A trace that is not finished is not read.
    """
    seen, looks = list(runs), []
    for number, run in enumerate(runs):
        if run.missing:
            continue
        try:
            traces = open_traces(run.folder)
        except TraceError:  # measure() says so
            continue
        seen[number] = replace(run, metrics=run.metrics | _numbers(traces))
        looks.append(Look(number, LossKernel.from_traces(traces).evenly(limit)))
    return seen, looks


def _numbers(traces: LossTraces) -> dict[str, float]:
    losses = traces.losses.values.astype(np.float64)  # [C, D, N]
    draws = losses.shape[1]
    variance = np.square(losses - losses.mean(axis=1, keepdims=True)).mean(2) * draws / (draws - 1)
    found = batch_means("trace/mean_loss", losses.mean(2)) | batch_means("trace/self_coupling", variance)
    start, moving = traces.record("start_losses"), traces.meta.get("parameters", {}).get("moving")
    if start is not None:
        found["trace/start_loss"] = float(start.mean())
    if moving is not None:
        found["trace/moving"] = float(moving)
    return found


def side_by_side(
    name: str,
    runs: list[Run],
    folder: Path,
    specs: list[MetricPanel],
    questions: Sequence[Callable[[Comparison], Finding]],
    *,
    alike: float,
    tracker: Tracker | None,
) -> Comparison:
    """Compare the jobs of a sweep, ask further questions of them, and leave report.html, figures and tables.

    Args:
        name: of the sweep, as in its title and `<name>.json`, which holds the numbers.
        runs: its jobs, with what was varied as the only key that differs.
        folder: where to write.
        specs: metrics to draw.
        questions: what else to ask.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two jobs have a result.
        TraceError: `folder` cannot be written.
    """
    return compared(
        runs,
        folder,
        lambda: specs,
        title=f"{runs[0].config.get('name', folder.parent.name)}: {name}",
        name=name,
        questions=questions,
        alike=alike,
        tracker=tracker,
    )
