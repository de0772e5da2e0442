"""run(): train or load → sample → analyse → track. No Hydra inside."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from threadpoolctl import threadpool_limits
from torch import nn

from losskernel.analyses.result import Analysis, PointAnalysis
from losskernel.config_keys import DONE, RESUMED, current_classes, part_of, with_absent
from losskernel.data.base import Data
from losskernel.errors import DivergenceError, InputError, Interrupted, TraceError
from losskernel.kernel.diagnosis.diagnose import Diagnosis
from losskernel.representations.baselines.collect import BASELINES, Baselines, represent
from losskernel.representations.evaluation import History
from losskernel.representations.points import PointSet, Source, collect
from losskernel.runs.analyse import CONTROL, TRACES, Outcome, analyse
from losskernel.runs.folder import RunFolder
from losskernel.runs.preflight import faults_of
from losskernel.runs.report import read_presentations
from losskernel.runs.status.progress_callback import SamplingCallback, TrainingCallback
from losskernel.runs.status.status_file import RunStatus, read_status
from losskernel.runs.tracking.tracker import LogDraws, Tracker
from losskernel.sampling.sample import sample
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.setup import Schedule
from losskernel.sampling.trainer import chain_trainer
from losskernel.signals import Stopped, raise_on_signal
from losskernel.storage.locks import locked_folder
from losskernel.storage.settings_diff import differences
from losskernel.traces.loss_traces import LossTraces
from losskernel.traces.zarr_store import STATE as SAMPLER_STATE
from losskernel.traces.zarr_store import TraceStore
from losskernel.training import Training, checkpoints, fit, load_weights, retrain, save_weights
from losskernel.training.checkpoint_files import STATE, drop_state
from losskernel.training.progress import in_a_log

TRAINED = "checkpoints/trained.pt"
TRAINING_STATE = f"checkpoints/{STATE}"
CONTROL_KERNEL = "control"  # name of the kernel at nbeta = 0 in the status


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
        baselines: name -> another description of the probes, for analyses that compare.
        points: name -> source of layers, labels or further kernels as points of one space.
        checkpoint: trained weights to load in place of training.
        trainer: builds a Lightning Trainer.
        seed: of minibatches and noise.
        chains_per_fit: chains stacked in one fit; None decides by the model's size.
        on_fail: "warn" or "stop": the reaction to a kernel that fails its diagnosis.
        control: whether to sample a control run at nbeta = 0, of localisation noise alone, and analyse it too.
        progress: show progress bars.
        chain_offset: number of the first chain; runs that differ in it alone are parts of one kernel.
        state_every: seconds between checkpoints of the sampler, the most that a kill can cost.
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
    """Raise InputError with one line per fault that can be known before compute."""
    faults = faults_of({part.name: getattr(study, part.name) for part in fields(study)})
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

    An interrupted run of the same configuration is resumed; traces are never sampled twice. A finished one is left
    as it is.

    Args:
        study: what to do.
        folder: run folder.
        config: resolved configuration, stored and compared with that of the folder.
        tracker: where else to record.
        traces: folder or URL for this run's traces alone (s3://bucket/runs/run); None keeps them in the folder.

    Raises:
        InputError: a fault known before compute.
        TraceError: the folder holds another run, is locked by another process or cannot be written, or the
            kernel fails its diagnosis and on_fail is "stop".
        Interrupted: Ctrl-C while sampling, or a scheduler's signal at any time; the same call resumes.
    """
    files, tracker = RunFolder(folder, traces), tracker or Tracker()
    preflight(study)
    files.prepare()
    # The lock comes before the folder is looked at: what another process is writing is neither finished nor ours.
    with locked_folder(files.path):
        done = finished(files.path, config)
        if done is not None:
            return done
        claim(files, config or {})
        status = RunStatus(files.path, log=study.progress and in_a_log())
        with status, record_ending(status, tracker, config or {}, files.path):
            outcome = _Execution(study, files, config, tracker, status).outcome()
        verdict = None if outcome.diagnosis is None else outcome.diagnosis.verdict
        status.enter("finished", verdict=verdict)
        status.log(f"finished{'' if verdict is None else f', diagnosis: {verdict}'}")
        return outcome


@contextmanager
def record_ending(status: RunStatus, tracker: Tracker, config: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Record in status and tracker how a run ends; a scheduler's signal ends it in order."""
    state = "failed"
    status.enter("starting", error=None)
    try:
        with raise_on_signal():
            tracker.start(config)
            yield
        state = "finished"
    except (Stopped, Interrupted) as stop:
        state = "interrupted"
        # The remedies of sample() and fit() are for callers of these; a run is resumed by its folder.
        reason = stop.reason if isinstance(stop, Interrupted) else str(stop)
        status.enter(state, error=reason)
        remedy = f"the same command with paths.run={folder} goes on from there"
        raise Interrupted(reason, stop.number, remedy) from stop
    except KeyboardInterrupt:
        state = "interrupted"
        status.enter(state, error="Ctrl-C")
        raise
    except BaseException as error:
        status.enter(state, error=" ".join(str(error).split()) or type(error).__name__)
        raise
    finally:
        # If the tracker cannot be closed either (a full disk), the error that ends the run is the one to report.
        with nullcontext() if state == "finished" else suppress(Exception):
            tracker.finish(state)


@dataclass(frozen=True)
class _Execution:
    """The steps of one run, and what all of them need."""

    study: Study
    files: RunFolder
    config: Mapping[str, Any] | None
    tracker: Tracker
    status: RunStatus

    def outcome(self) -> Outcome:
        """Train, sample and analyse; what an interrupted run left is used again."""
        study, files, status = self.study, self.files, self.status
        status.enter("training")
        model = trained(study, files, [TrainingCallback(status, study.training.steps, files.path / TRAINING_STATE)])
        inputs = ", ".join([*study.baselines, *study.points])
        if inputs:
            status.enter("preparing", doing=inputs)
            status.log(f"preparing: {inputs}")
        baselines, points = self._baselines_and_points(model)
        traces = control = None
        if study.schedule is not None:
            status.enter("sampling")
            traces = self._sample_kernel(model).with_baselines(baselines)
            self.tracker.keep("traces", "traces", files.path / TRACES)
            control = self._sample_control(model) if study.control else None
        status.enter("analysing", doing=", ".join(study.analyses))
        if study.analyses:
            status.log(f"analysing: {', '.join(study.analyses)}")
        outcome = analyse(traces, study.analyses, files, self.tracker, control, points, status.begin, study.progress)
        if study.on_fail == "stop" and outcome.diagnosis is not None and outcome.diagnosis.verdict == "fail":
            reason, written = outcome.diagnosis.reasons[0], f"all is written to {files.path}"
            raise TraceError(f"the kernel fails its diagnosis: {reason} (on_fail=stop; {written})")
        return outcome

    def _baselines_and_points(self, model: nn.Module) -> tuple[dict[str, Any], PointSet | None]:
        """Return the baselines' rows and the points, computed on the device that the chains use."""
        study, path, begin = self.study, self.files.path, self.status.begin
        if not (study.baselines or study.points):
            return {}, None
        device = chain_trainer(study.trainer, False, slice(0, 1), 1).strategy.root_device
        baselines, points, history = {}, None, self._history()
        # Each gets a copy of the model: moving it to a device would change the caller's.
        if study.baselines:
            on_device = copy.deepcopy(model).to(device)
            baselines = represent(study.baselines, on_device, study.data, path / BASELINES, history, begin)
        if study.points:
            points = collect(study.points, copy.deepcopy(model).to(device), study.data, path, history, begin)
        return baselines, points

    def _history(self) -> History:
        study, path = self.study, self.files.path
        return History(
            partial(retrain, study.model, study.training),
            partial(checkpoints, study.model, path / "checkpoints"),
            path,
            None if study.schedule is None else self._sample_point,
            study.training.steps if study.checkpoint is None else None,
        )

    def _sample_kernel(self, model: nn.Module) -> LossTraces:
        """Sample the run's own kernel, and log its curves."""
        loggers, schedule = self.tracker.loggers(), self.study.schedule
        curves = [LogDraws(loggers, schedule)] if loggers and schedule is not None else []
        return self._sample(self.study, model, TRACES, further_kernels=int(self.study.control), callbacks=curves)

    def _sample_point(self, model: nn.Module, name: str, settings: Mapping[str, float]) -> LossTraces:
        """Sample a further loss kernel, with other settings or weights, that becomes a point."""
        study, task = replace(self.study, sampler=partial(self.study.sampler, **settings)), self.status.task
        self.status.enter("sampling")
        kernel, following = name.removesuffix(".zarr"), 1 + int(study.control)
        # How many points are sampled is not known here, so the time left is a lower bound.
        traces = self._sample(study, model, name, kernel, further_kernels=following, open_ended=True)
        self.status.enter("preparing", doing=task)
        return traces

    def _sample_control(self, model: nn.Module) -> LossTraces | str:
        """Sample the control run at nbeta = 0; return why there is none if its chains, held by no loss, diverge."""
        study = replace(self.study, sampler=partial(self.study.sampler, nbeta=0.0))
        try:
            return self._sample(study, model, CONTROL, CONTROL_KERNEL)
        except DivergenceError as error:
            return str(error)

    def _sample(
        self,
        study: Study,
        model: nn.Module,
        name: str,
        kernel: str = "",
        *,
        further_kernels: int = 0,
        open_ended: bool = False,
        callbacks: Sequence[pl.Callback] = (),
    ) -> LossTraces:
        """Sample one kernel into the folder's trace of a name; further_kernels, open_ended as of SamplingCallback."""
        if study.schedule is None:
            raise InputError("schedule=none samples nothing; choose schedule=default for a loss kernel")
        out = self.files.trace(name)
        progress = SamplingCallback(
            self.status,
            study.schedule,
            kernel,
            first=study.chain_offset,
            further_kernels=further_kernels,
            open_ended=open_ended,
            state=f"{out}/{SAMPLER_STATE}",
        )
        return sample(
            model,
            study.data,
            study.sampler,
            study.schedule,
            seed=study.seed,
            out=out,
            chains_per_fit=study.chains_per_fit,
            trainer=study.trainer,
            progress=study.progress,
            callbacks=[progress, *callbacks],
            config=self.config,
            state_every=study.state_every,
            chain_offset=study.chain_offset,
        )


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
    drop_state(path.parent)  # only now: a kill before this line resumes from it, after it from the weights
    return model


def set_threads(threads: int | None) -> None:
    """Use the given number of CPU threads, or SLURM's share: oversubscribed threads cost ten times the work."""
    count = threads or int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    if count:
        torch.set_num_threads(count)
        threadpool_limits(count)  # numpy's and SciPy's pools


# Whether a folder holds the same run, which is resumed or left as it is, or another one, which is refused.


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides the numbers."""
    return part_of(with_absent(config), RESUMED)


def claim(files: RunFolder, config: Mapping[str, Any]) -> None:
    """Write the configuration, or refuse a folder that holds results of another one.

    Raises:
        TraceError: it holds another run.
    """
    lines = differences(decisive(stored), decisive(config)) if (stored := _stored(files.path)) is not None else []
    if lines:
        raise TraceError(f"{files.path} holds another run: {'; '.join(lines)}; choose another folder")
    files.write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def finished(folder: Path, config: Mapping[str, Any] | None) -> Outcome | None:
    """Return the outcome of a run that finished with the same configuration; None where there is something to do.

    Raises:
        TraceError: a file of it is damaged.
    """
    stored, status = _stored(folder), read_status(folder)
    if not config or stored is None or status is None or status.get("state") != "finished":
        return None
    left = ["metrics.json", *["diagnosis.json", TRACES] * ("_target_" in (config.get("schedule") or {}))]
    if differences(part_of(with_absent(stored), DONE), part_of(with_absent(config), DONE)) or not all(
        (folder / name).exists() for name in left
    ):
        return None
    metrics, diagnosis = (RunFolder(folder).read_json(name) for name in ("metrics.json", "diagnosis.json"))
    known = {key: diagnosis[key] for key in ("verdict", "reasons", "metrics", "remedy") if key in diagnosis}
    return Outcome(
        metrics, Diagnosis(**known) if known else None, folder, before=True, shown=read_presentations(folder)
    )


def _stored(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        config = None
    if not isinstance(config, dict):
        reason = "it holds no configuration; restore it from a copy, or remove it"
        raise TraceError(f"{path} is damaged: {reason} if this is the same run: its traces know their own settings")
    return current_classes(config)
