"""The jobs of a sweep around a run, and what each one's trace says by itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from losskernel.config_keys import Use, with_use
from losskernel.errors import TraceError
from losskernel.kernel.error_bars import batch_means
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.sweeps.read_runs import Run, find_runs, read_run
from losskernel.traces.loss_traces import LossTraces, open_traces

# In the folder of the jobs: name -> value of the swept key, in their order.
JOBS = "jobs.json"


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
