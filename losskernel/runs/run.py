"""run(): train or load → sample → analyse → track. No Hydra inside."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from losskernel.analyses.result import Analysis, PointAnalysis
from losskernel.data.base import Data
from losskernel.errors import DivergenceError, InputError, Interrupted, TraceError
from losskernel.representations.baselines.collect import BASELINES, Baselines, History, represent
from losskernel.representations.points import PointSet, Source, collect
from losskernel.runs.analyse import CONTROL, TRACES, Outcome, analyse
from losskernel.runs.folder import RunFolder
from losskernel.runs.preflight import faults_of
from losskernel.runs.resume import claim, finished
from losskernel.runs.status.progress_callback import Beat, BeatTraining
from losskernel.runs.status.status_file import Heartbeat
from losskernel.runs.tracking.curves import LogDraws
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sampling.sample import sample
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.schedule import Schedule
from losskernel.sampling.trainer import chain_trainer
from losskernel.signals import Stopped, raise_on_signal
from losskernel.storage.locks import locked_folder
from losskernel.traces.loss_traces import LossTraces
from losskernel.traces.zarr_store import STATE as SAMPLED_SO_FAR
from losskernel.traces.zarr_store import TraceStore
from losskernel.training import Training, checkpoints, fit, load_weights, retrain, save_weights
from losskernel.training.checkpoint_files import STATE, drop_state
from losskernel.training.progress import in_a_log

TRAINED = "checkpoints/trained.pt"
TRAINED_SO_FAR = f"checkpoints/{STATE}"
COMPANION = "control"  # the kernel at nbeta = 0, in signs of life


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
        chain_offset: number of the first chain; runs that differ in it alone are parts of one kernel.
        state_every: seconds between resume states, the most that a kill can cost.
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
    chain_offset: int = 0
    state_every: float = 20.0


def preflight(study: Study) -> None:
    """Find what can be known before compute, and report all of it together.

    Raises:
        InputError: one line per fault.
    """
    faults = faults_of({each.name: getattr(study, each.name) for each in fields(study)})
    if faults:
        raise InputError("\n".join(faults))


def run(
    study: Study,
    folder: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    tracker: Tracker | None = None,
    traces: str | None = None,
) -> Outcome:
    """Train or load, sample, analyse, and leave everything in a folder.

    A folder that holds an interrupted run of the same configuration is continued; traces are never sampled
    twice. One that holds a finished run of the same configuration is left as it is.

    Args:
        study: what to do.
        folder: run folder.
        config: resolved configuration, stored and compared with what the folder holds.
        tracker: where else to record.
        traces: folder or URL of this run's own for its traces (s3://bucket/place/run); None keeps them in the folder.

    Raises:
        InputError: a fault known before compute.
        TraceError: the folder holds another run, is being written by another process or cannot be written, or the
            kernel fails its diagnosis and on_fail is "stop".
        Interrupted: Ctrl-C while sampling, or a scheduler's signal at any time; the same call continues.
    """
    files, tracker = RunFolder(folder, traces), tracker or Tracker()
    preflight(study)
    files.prepare()
    with locked_folder(files.path):
        done = finished(files.path, config)
        if done is not None:
            return done
        claim(files, config or {})
        heart = Heartbeat(files.path, log=study.progress and in_a_log())
        with heart, reported(heart, tracker, config or {}, files.path):
            outcome = _work(study, files, config, tracker, heart)
        verdict = None if outcome.diagnosis is None else outcome.diagnosis.verdict
        heart.says("finished", verdict=verdict)
        heart.line(f"finished{'' if verdict is None else f', diagnosis: {verdict}'}")
        return outcome


def _work(
    study: Study, files: RunFolder, config: Mapping[str, Any] | None, tracker: Tracker, heart: Heartbeat
) -> Outcome:
    heart.says("training")
    model = trained(study, files, [BeatTraining(heart, study.training.steps, files.path / TRAINED_SO_FAR)])
    history = _history(study, files, config, heart)
    if study.baselines or study.points:
        heart.says("preparing", doing=", ".join([*study.baselines, *study.points]))
        heart.line(f"preparing: {', '.join([*study.baselines, *study.points])}")
    baselines = _represented(study, model, files, history, heart)
    points = _placed(study, model, files, history, heart)
    traces = control = None
    if study.schedule is not None:
        heart.says("sampling")
        out = files.trace(TRACES)
        watching = _beating(study, heart, out)
        if tracker.loggers():
            watching.append(LogDraws(tracker.loggers(), study.schedule))
        traces = _sampled(study, model, out, watching, config).with_baselines(baselines)
        tracker.keep("traces", "traces", files.path / TRACES)
        control = _control(study, model, files, config, heart) if study.control else None
    heart.says("analysing", doing=", ".join(study.analyses))
    if study.analyses:
        heart.line(f"analysing: {', '.join(study.analyses)}")
    outcome = analyse(traces, study.analyses, files, tracker, control, points, heart.names)
    failing = outcome.diagnosis if outcome.diagnosis is not None and outcome.diagnosis.verdict == "fail" else None
    if study.on_fail == "stop" and failing is not None:
        reason = failing.reasons[0]
        raise TraceError(f"the kernel fails its diagnosis: {reason} (on_fail=stop; all is written to {files.path})")
    return outcome


def _sampled(
    study: Study, model: nn.Module, out: Path | str, callbacks: Sequence[pl.Callback], config: Mapping[str, Any] | None
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
        state_every=study.state_every,
        chain_offset=study.chain_offset,
    )


def _beating(study: Study, heart: Heartbeat, out: Path | str, kernel: str = "") -> list[pl.Callback]:
    """Return the signs of life of one kernel; those of points come before the run's own, and the control after it."""
    if study.schedule is None:
        return []
    after = 0 if kernel == COMPANION else study.control + (kernel != "")
    more = kernel not in ("", COMPANION)
    state = f"{out}/{SAMPLED_SO_FAR}"
    return [Beat(heart, study.schedule, kernel, first=study.chain_offset, after=after, more=more, state=state)]


def _history(study: Study, files: RunFolder, config: Mapping[str, Any] | None, heart: Heartbeat) -> History:
    def another(model: nn.Module, name: str, settings: Mapping[str, float]) -> LossTraces:
        own, out = replace(study, sampler=partial(study.sampler, **settings)), files.trace(name)
        doing = heart.doing
        heart.says("sampling")
        found = _sampled(own, model, out, _beating(study, heart, out, name.removesuffix(".zarr")), config)
        heart.says("preparing", doing=doing)
        return found

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


def _placed(study: Study, model: nn.Module, files: RunFolder, history: History, heart: Heartbeat) -> PointSet | None:
    """Return the points of the run's sources, computed on the device that the chains would use."""
    if not study.points:
        return None
    return collect(study.points, _on_device(study, model), study.data, files.path, history, heart.names)


def _represented(
    study: Study, model: nn.Module, files: RunFolder, history: History, heart: Heartbeat
) -> dict[str, np.ndarray]:
    """Return the baselines' rows, computed on the device that the chains will use."""
    if not study.baselines:
        return {}
    path = files.path / BASELINES
    return represent(study.baselines, _on_device(study, model), study.data, path, history, heart.names)


def _control(
    study: Study, model: nn.Module, files: RunFolder, config: Mapping[str, Any] | None, heart: Heartbeat
) -> LossTraces | str:
    """Return the companion at nbeta = 0, or why there is none: without the loss, chains may leave all bounds."""
    idle = replace(study, sampler=partial(study.sampler, nbeta=0.0))
    try:
        out = files.trace(CONTROL)
        return _sampled(idle, model, out, _beating(study, heart, out, COMPANION), config)
    except DivergenceError as error:
        return str(error)


def trained(study: Study, files: RunFolder, callbacks: Sequence[pl.Callback] = ()) -> nn.Module:
    """Return the model at w*: from the checkpoint, from this folder's earlier training, or trained now."""
    path = files.path / TRAINED
    if study.checkpoint is not None:
        return load_weights(study.model, study.checkpoint)
    if path.is_file() or TraceStore(files.path / TRACES).exists:
        model = load_weights(study.model, path)
    else:
        model = fit(
            study.model,
            study.data,
            study.training,
            seed=study.seed,
            trainer=study.trainer,
            checkpoints=path.parent,
            progress=study.progress,
            callbacks=callbacks,
            state_every=study.state_every,
        )
        save_weights(model, path, {"step": study.training.steps})
    drop_state(path.parent)  # last, so that a kill before costs nothing
    return model


def set_threads(threads: int | None) -> None:
    """Use the given number of CPU threads, or SLURM's share: oversubscribed threads cost ten times the work."""
    count = threads or int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    if count:
        torch.set_num_threads(count)
        threadpool_limits(count)  # numpy's and SciPy's own


@contextmanager
def reported(heart: Heartbeat, tracker: Tracker, config: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Record how a run ends, and end it in order where a scheduler asks for that."""
    state = "failed"
    heart.says("starting", error=None)
    try:
        with raise_on_signal():
            tracker.start(config)
            yield
        state = "finished"
    except (Stopped, Interrupted) as stop:
        state = "interrupted"
        # The remedies of sample() and fit() are for callers of these; a run is continued by its folder.
        reason = stop.reason if isinstance(stop, Interrupted) else str(stop)
        heart.says(state, error=reason)
        remedy = f"the same command with paths.run={folder} goes on from there"
        raise Interrupted(reason, stop.number, remedy) from stop
    except KeyboardInterrupt:
        state = "interrupted"
        heart.says(state, error="Ctrl-C")
        raise
    except BaseException as error:
        heart.says(state, error=" ".join(str(error).split()) or type(error).__name__)
        raise
    finally:
        # A record that cannot be closed (a full disk) must not hide why the run ends.
        with nullcontext() if state == "finished" else suppress(Exception):
            tracker.finish(state)
