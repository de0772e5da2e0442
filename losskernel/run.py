"""run(): train or load → sample → analyse → track. No Hydra inside."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from losskernel.answers import CONTROL, TRACES, Outcome, analyse
from losskernel.beating import Beat
from losskernel.continuing import claim, finished
from losskernel.errors import DivergenceError, InputError, Interrupted, TraceError
from losskernel.heartbeat import Heartbeat
from losskernel.interrupts import Stopped, heeding, name_of
from losskernel.locks import only_one
from losskernel.points import PointSet, collect
from losskernel.representations import BASELINES, History, represent
from losskernel.sampling import sample
from losskernel.store import TraceStore
from losskernel.study import Study, preflight
from losskernel.traces import LossTraces
from losskernel.tracking import LogDraws, RunFolder, Tracker
from losskernel.trainers import chain_trainer
from losskernel.training import checkpoints, fit, load_weights, retrain, save_weights

TRAINED = "checkpoints/trained.pt"


def run(
    study: Study, folder: str | Path, *, config: Mapping[str, Any] | None = None, tracker: Tracker | None = None
) -> Outcome:
    """Train or load, sample, analyse, and leave everything in a folder.

    A folder that holds an interrupted run of the same configuration is continued; traces are never sampled
    twice. One that holds a finished run of the same configuration is left as it is.

    Args:
        study: what to do.
        folder: run folder.
        config: resolved configuration, stored and compared with what the folder holds.
        tracker: where else to record.

    Raises:
        InputError: a fault known before compute.
        TraceError: the folder holds another run, is being written by another process or cannot be written, or the
            kernel fails its diagnosis and on_fail is "stop".
        Interrupted: Ctrl-C while sampling, or a scheduler's signal at any time; the same call continues.
    """
    files, tracker = RunFolder(folder), tracker or Tracker()
    preflight(study)
    files.prepare()
    with only_one(files.path):
        done = finished(files.path, config)
        if done is not None:
            return done
        claim(files, config or {})
        heart = Heartbeat(files.path)
        with _reported(heart, tracker, config or {}):
            outcome = _work(study, files, config, tracker, heart)
        heart.says("finished")
        return outcome


@contextmanager
def _reported(heart: Heartbeat, tracker: Tracker, config: Mapping[str, Any]) -> Iterator[None]:
    """Record how a run ends, and end it in order where a scheduler asks for that."""
    state = "failed"
    heart.says("starting", error=None)
    try:
        with heeding():
            tracker.start(config)
            yield
        state = "finished"
    except (Stopped, Interrupted) as stop:
        state = "interrupted"
        heart.says(state, error=str(stop))
        if isinstance(stop, Interrupted):
            raise
        how = f"stopped by {name_of(stop.number)}; the same command with the same folder continues"
        raise Interrupted(how, stop.number) from stop
    except KeyboardInterrupt:
        state = "interrupted"
        heart.says(state, error="Ctrl-C")
        raise
    except BaseException as error:
        heart.says(state, error=" ".join(str(error).split()) or type(error).__name__)
        raise
    finally:
        tracker.finish(state)


def _work(
    study: Study, files: RunFolder, config: Mapping[str, Any] | None, tracker: Tracker, heart: Heartbeat
) -> Outcome:
    heart.says("training")
    model = trained(study, files)
    history = _history(study, files, config)
    baselines = _represented(study, model, files, history)
    points = _placed(study, model, files, history)
    traces = control = None
    if study.schedule is not None:
        heart.says("sampling")
        watching: list[pl.Callback] = [Beat(heart, study.schedule)]
        if tracker.loggers():
            watching.append(LogDraws(tracker.loggers(), study.schedule))
        traces = _sampled(study, model, files.path / TRACES, watching, config).with_baselines(baselines)
        tracker.keep("traces", "traces", files.path / TRACES)
        control = _control(study, model, files.path / CONTROL, config, heart) if study.control else None
    heart.says("analysing")
    outcome = analyse(traces, study.analyses, files, tracker, control, points)
    failing = outcome.diagnosis if outcome.diagnosis is not None and outcome.diagnosis.verdict == "fail" else None
    if study.on_fail == "stop" and failing is not None:
        reason = failing.reasons[0]
        raise TraceError(f"the kernel fails its diagnosis: {reason} (on_fail=stop; all is written to {files.path})")
    return outcome


def _sampled(
    study: Study, model: nn.Module, out: Path, callbacks: Sequence[pl.Callback], config: Mapping[str, Any] | None
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


def _control(
    study: Study, model: nn.Module, out: Path, config: Mapping[str, Any] | None, heart: Heartbeat
) -> LossTraces | str:
    """Return the companion at nbeta = 0, or why there is none: without the loss, chains may leave all bounds."""
    idle = replace(study, sampler=partial(study.sampler, nbeta=0.0))
    watching = [] if study.schedule is None else [Beat(heart, study.schedule, "control")]
    try:
        return _sampled(idle, model, out, watching, config)
    except DivergenceError as error:
        return str(error)


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
