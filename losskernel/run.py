"""run(): train or load → sample → analyse → track. No Hydra inside."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from threadpoolctl import threadpool_limits
from torch import nn

from losskernel.analyses.result import Analysis, PointAnalysis
from losskernel.answers import CONTROL, TRACES, Outcome, analyse
from losskernel.data.base import Data
from losskernel.errors import DivergenceError, InputError, TraceError
from losskernel.locks import only_one
from losskernel.points import PointSet, Source, collect
from losskernel.preflight import faults_of
from losskernel.representations import BASELINES, Baselines, History, represent
from losskernel.samplers import Sampler
from losskernel.sampling import sample
from losskernel.schedule import Schedule
from losskernel.store import TraceStore, differences
from losskernel.traces import LossTraces
from losskernel.tracking import LogDraws, RunFolder, Tracker
from losskernel.trainers import chain_trainer
from losskernel.training import Training, checkpoints, fit, load_weights, retrain, save_weights

TRAINED = "checkpoints/trained.pt"
# Parts of the configuration that decide the numbers; others (loggers, devices, analyses) may change.
DECISIVE = ("model", "dataset", "wrapper", "training", "checkpoint", "sampler", "schedule", "seed")
# Of a dataset: who decodes it, and where that is kept.
INDIFFERENT = ("workers", "cache")


@dataclass(frozen=True)
class Study:
    """Everything that one run needs.

    Attributes:
        model: network with its initial weights.
        data: training set, probes, loss.
        sampler: builds the Sampler.
        schedule: lengths of sampling; None samples nothing, for analyses of points alone.
        training: how to train where no checkpoint is given.
        analyses: name -> analysis; its metrics are called `name/...`.
        baselines: name -> what represents the probes otherwise, for analyses that compare.
        points: name -> what gives layers, labels or further kernels as points of one space.
        checkpoint: trained weights to load in place of training.
        trainer: builds a Lightning Trainer.
        seed: of minibatches and noise.
        chains_per_fit: chains stacked in one fit; None decides by the model's size.
        on_fail: "warn" or "stop": what a kernel that fails its diagnosis does to the run.
        control: whether to sample a companion at nbeta = 0, localisation noise alone, and ask it the same.
        progress: show progress bars.
    """

    model: nn.Module
    data: Data
    sampler: Callable[..., Sampler]
    schedule: Schedule | None
    training: Training = field(default_factory=Training)
    analyses: Mapping[str, Analysis | PointAnalysis] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=dict)
    points: Mapping[str, Source] = field(default_factory=dict)
    checkpoint: str | None = None
    trainer: Callable[..., Any] | None = None
    seed: int = 0
    chains_per_fit: int | None = None
    on_fail: str = "warn"
    control: bool = False
    progress: bool = True


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
        TraceError: the folder holds another run, is being written by another process or cannot be written, or the
            kernel fails its diagnosis and on_fail is "stop".
    """
    files, tracker = RunFolder(folder), tracker or Tracker()
    preflight(study)
    files.prepare()
    with only_one(files.path):
        _claim(files, config or {})
        return _tracked(study, files, config, tracker)


def _tracked(study: Study, files: RunFolder, config: Mapping[str, Any] | None, tracker: Tracker) -> Outcome:
    failed = True
    try:
        tracker.start(config or {})
        model = trained(study, files)
        history = _history(study, files, config)
        baselines = _represented(study, model, files, history)
        points = _placed(study, model, files, history)
        traces = control = None
        if study.schedule is not None:
            logs = [LogDraws(tracker.loggers(), study.schedule)] if tracker.loggers() else []
            traces = _sampled(study, model, files.path / TRACES, logs, config).with_baselines(baselines)
            tracker.keep("traces", "traces", files.path / TRACES)
            control = _control(study, model, files.path / CONTROL, config) if study.control else None
        outcome = analyse(traces, study.analyses, files, tracker, control, points)
        failing = outcome.diagnosis if outcome.diagnosis is not None and outcome.diagnosis.verdict == "fail" else None
        if study.on_fail == "stop" and failing is not None:
            reason = failing.reasons[0]
            raise TraceError(f"the kernel fails its diagnosis: {reason} (on_fail=stop; all is written to {files.path})")
        failed = False
    finally:
        tracker.finish(failed)
    return outcome


def _sampled(
    study: Study, model: nn.Module, out: Path, callbacks: list[Any], config: Mapping[str, Any] | None
) -> LossTraces:
    schedule = study.schedule
    if schedule is None:
        raise InputError("schedule=none samples nothing; choose schedule=default for a loss kernel")
    return sample(
        model,
        study.data,
        study.sampler,
        schedule,
        seed=study.seed,
        out=out,
        chains_per_fit=study.chains_per_fit,
        trainer=study.trainer,
        progress=study.progress,
        callbacks=callbacks,
        config=config,
    )


def _history(study: Study, files: RunFolder, config: Mapping[str, Any] | None) -> History:
    def another(model: nn.Module, name: str, settings: Mapping[str, float]) -> LossTraces:
        own = replace(study, sampler=partial(study.sampler, **settings))
        return _sampled(own, model, files.path / name, [], config)

    return History(
        partial(retrain, study.model, study.training),
        partial(checkpoints, study.model, files.path / "checkpoints"),
        files.path,
        None if study.schedule is None else another,
        study.training.steps if study.checkpoint is None else None,
    )


def _on_device(study: Study, model: nn.Module) -> nn.Module:
    """Return a copy of the model on the device that the chains would use."""
    return copy.deepcopy(model).to(chain_trainer(study.trainer, False, slice(0, 1), 1).strategy.root_device)


def _placed(study: Study, model: nn.Module, files: RunFolder, history: History) -> PointSet | None:
    """Return the points of the run's sources, computed on the device that the chains would use."""
    if not study.points:
        return None
    return collect(study.points, _on_device(study, model), study.data, files.path, history)


def _represented(study: Study, model: nn.Module, files: RunFolder, history: History) -> dict[str, np.ndarray]:
    """Return the baselines' rows, computed on the device that the chains will use."""
    if not study.baselines:
        return {}
    return represent(study.baselines, _on_device(study, model), study.data, files.path / BASELINES, history)


def _control(study: Study, model: nn.Module, out: Path, config: Mapping[str, Any] | None) -> LossTraces | str:
    """Return the companion at nbeta = 0, or why there is none: without the loss, chains may leave all bounds."""
    idle = replace(study, sampler=partial(study.sampler, nbeta=0.0))
    try:
        return _sampled(idle, model, out, [], config)
    except DivergenceError as error:
        return str(error)


def _claim(files: RunFolder, config: Mapping[str, Any]) -> None:
    """Write the configuration, or refuse a folder that holds results of another one."""
    path = files.path / "config.yaml"
    if path.is_file():
        stored = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        lines = differences(_decisive(stored), _decisive(config))
        if lines:
            raise TraceError(f"{files.path} holds another run: {'; '.join(lines)}; choose another folder")
    files.write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides the numbers."""
    found = {key: config.get(key) for key in DECISIVE}
    found["wrapper"] = found["wrapper"] or {}  # runs of before there were wrappers have none
    dataset = found["dataset"]
    if isinstance(dataset, Mapping):
        found["dataset"] = {key: value for key, value in dataset.items() if key not in INDIFFERENT}
    return found


def trained(study: Study, files: RunFolder) -> nn.Module:
    """Return the model at w*: from the checkpoint, from this folder's earlier training, or trained now."""
    path = files.path / TRAINED
    if study.checkpoint is not None:
        return load_weights(study.model, study.checkpoint)
    if path.is_file() or TraceStore(files.path / TRACES).exists:
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
        threadpool_limits(count)  # numpy's and SciPy's own
