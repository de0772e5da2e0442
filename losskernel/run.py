"""run(): train or load → sample → analyse → track. No Hydra inside."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from losskernel.analyses.result import Analysis, Result
from losskernel.data.base import Data
from losskernel.diagnosis import Diagnosis, diagnose
from losskernel.errors import InputError, TraceError
from losskernel.figures import stamp
from losskernel.kernel import LossKernel
from losskernel.preflight import faults_of
from losskernel.report import write_report
from losskernel.samplers import Sampler
from losskernel.sampling import sample
from losskernel.schedule import Schedule
from losskernel.store import TraceStore, differences, guard
from losskernel.traces import LossTraces
from losskernel.tracking import LogDraws, RunFolder, Tracker
from losskernel.training import Training, fit, load_weights, save_weights

TRAINED = "checkpoints/trained.pt"
# Parts of the configuration that decide the numbers; others (loggers, devices, analyses) may change.
DECISIVE = ("model", "dataset", "training", "checkpoint", "sampler", "schedule", "seed")


@dataclass(frozen=True)
class Study:
    """Everything that one run needs.

    Attributes:
        model: network with its initial weights.
        data: training set, probes, loss.
        sampler: builds the Sampler.
        schedule: lengths of sampling.
        training: how to train where no checkpoint is given.
        analyses: name -> analysis; its metrics are called `name/...`.
        checkpoint: trained weights to load in place of training.
        trainer: builds a Lightning Trainer.
        seed: of minibatches and noise.
        chains_per_fit: chains stacked in one fit; None decides by the model's size.
        on_fail: "warn" or "stop": what a kernel that fails its diagnosis does to the run.
        progress: show progress bars.
    """

    model: nn.Module
    data: Data
    sampler: Callable[..., Sampler]
    schedule: Schedule
    training: Training = field(default_factory=Training)
    analyses: Mapping[str, Analysis] = field(default_factory=dict)
    checkpoint: str | None = None
    trainer: Callable[..., Any] | None = None
    seed: int = 0
    chains_per_fit: int | None = None
    on_fail: str = "warn"
    progress: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a run ends with: its numbers, whether they may be trusted, and where everything lies."""

    metrics: dict[str, float]
    diagnosis: Diagnosis
    folder: Path


def preflight(study: Study) -> None:
    """Find what can be known before compute, and report all of it together.

    Raises:
        InputError: one line per fault.
    """
    faults = faults_of({each.name: getattr(study, each.name) for each in fields(study)})
    if faults:
        raise InputError("\n".join(faults))


def run(
    study: Study, folder: str | Path, *, config: Mapping[str, Any] | None = None, tracker: Tracker | None = None
) -> Outcome:
    """Train or load, sample, analyse, and leave everything in a folder.

    A folder that holds an interrupted run of the same configuration is continued; traces are never sampled
    twice.

    Args:
        study: what to do.
        folder: run folder.
        config: resolved configuration, stored and compared with what the folder holds.
        tracker: where else to record.

    Raises:
        InputError: a fault known before compute.
        TraceError: the folder holds another run or cannot be written, or the kernel fails its diagnosis and
            on_fail is "stop".
    """
    files, tracker = RunFolder(folder), tracker or Tracker()
    preflight(study)
    files.prepare()
    _claim(files, config or {})
    failed = True
    try:
        tracker.start(config or {})
        model = _trained(study, files, tracker)
        traces = sample(
            model,
            study.data,
            study.sampler,
            study.schedule,
            seed=study.seed,
            out=files.path / "traces.zarr",
            chains_per_fit=study.chains_per_fit,
            trainer=study.trainer,
            progress=study.progress,
            callbacks=[LogDraws(tracker.loggers(), study.schedule)] if tracker.loggers() else [],
            config=config,
        )
        tracker.keep("traces", "traces", files.path / "traces.zarr")
        outcome = analyse(traces, study.analyses, files, tracker)
        if study.on_fail == "stop" and outcome.diagnosis.verdict == "fail":
            reason = outcome.diagnosis.reasons[0]
            raise TraceError(f"the kernel fails its diagnosis: {reason} (on_fail=stop; all is written to {files.path})")
        failed = False
    finally:
        tracker.finish(failed)
    return outcome


def analyse(traces: LossTraces, analyses: Mapping[str, Analysis], files: RunFolder, tracker: Tracker) -> Outcome:
    """Ask every question of the kernel of some traces; write and record the answers.

    An analysis that breaks does not take the others' answers with it: its error is raised after all.
    """
    kernel, diagnosis = LossKernel.from_traces(traces), diagnose(traces)
    files.write_json("diagnosis.json", asdict(diagnosis))
    metrics = _known_metrics(files, analyses)
    broken: list[tuple[str, Exception]] = []
    for name, analysis in analyses.items():
        try:
            result = analysis(kernel, traces)
        except Exception as error:  # whatever one analysis does, the others' answers are kept
            broken.append((name, error))
            continue
        if diagnosis.verdict == "fail":
            for figure in result.figures.values():
                stamp(figure, f"FAILED diagnosis: {diagnosis.reasons[0].split(';')[0]}")
        metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
        _record(name, result, files, tracker)
    files.write_json("metrics.json", metrics)
    tracker.summarise(metrics | {"verdict": diagnosis.verdict, "reasons": "; ".join(diagnosis.reasons)})
    if kernel.probes <= 2000:
        matrices = {"covariance": kernel.covariance(), "correlation": kernel.correlation(), "ids": kernel.ids}
        tracker.keep("kernel", "kernel", files.write("kernel.npz", lambda path: _save_matrices(path, matrices)))
    guard(files.path / "report.html", write_report, files.path)
    if broken:
        names = ", ".join(f"{name} ({type(error).__name__}: {error})" for name, error in broken)
        raise InputError(f"these analyses failed, all others are written: {names}") from broken[0][1]
    return Outcome(metrics, diagnosis, files.path)


def _claim(files: RunFolder, config: Mapping[str, Any]) -> None:
    """Write the configuration, or refuse a folder that holds results of another one."""
    path = files.path / "config.yaml"
    if path.is_file():
        stored = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        lines = differences({key: stored.get(key) for key in DECISIVE}, {key: config.get(key) for key in DECISIVE})
        if lines:
            raise TraceError(f"{files.path} holds another run: {'; '.join(lines)}; choose another folder")
    files.write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def _save_matrices(path: Path, matrices: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add its own ending
        np.savez_compressed(file, **matrices)  # pyright: ignore[reportArgumentType]


def _known_metrics(files: RunFolder, analyses: Mapping[str, Analysis]) -> dict[str, float]:
    """Return the folder's metrics of other analyses, so that asking one more question keeps the rest."""
    path = files.path / "metrics.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {key: value for key, value in known.items() if key.split("/")[0] not in analyses}


def _record(name: str, result: Result, files: RunFolder, tracker: Tracker) -> None:
    pictures = files.write_result(result)
    pages = {page: files.path / "figures" / f"{page}.html" for page in result.pages}
    tracker.show(pictures, {f"{name}_{table}": value for table, value in result.tables.items()}, pages)


def _trained(study: Study, files: RunFolder, tracker: Tracker) -> nn.Module:
    """Return the model at w*: from the checkpoint, from this folder's earlier training, or trained now."""
    path = files.path / TRAINED
    if study.checkpoint is not None:
        return load_weights(study.model, study.checkpoint)
    if path.is_file() or TraceStore(files.path / "traces.zarr").exists:
        return load_weights(study.model, path)
    model = fit(
        study.model,
        study.data,
        study.training,
        seed=study.seed,
        trainer=study.trainer,
        checkpoints=files.path / "checkpoints",
        progress=study.progress,
    )
    save_weights(model, path, {"step": study.training.steps})
    return model


def set_threads(threads: int | None) -> None:
    """Use the given number of CPU threads, or SLURM's share: oversubscribed threads cost ten times the work."""
    count = threads or int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    if count:
        torch.set_num_threads(count)
