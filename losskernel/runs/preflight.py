"""Checks before any compute; all faults are reported together."""

import copy
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

from losskernel.analyses.result import Analysis, PointAnalysis, is_of_points
from losskernel.data.base import Data, size, stack
from losskernel.data.recombined import Augmented
from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.sampling.engine.stacked_model import check_losses
from losskernel.sampling.sample import rehearse
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.setup import Schedule, require_offset, setup_of
from losskernel.sampling.trainer import chain_trainer
from losskernel.training import Training, load_weights
from losskernel.training.lightning import quiet_settings


def faults_of(parts: Mapping[str, Any]) -> list[str]:
    """Return one line per fault that can be known before compute.

    Args:
        parts: fields of a run's Study by name; a check runs if all the parts that it takes are there and sound.
    """
    faults = [fault for name, part in parts.items() for fault in _type_faults(name, part)]
    # A part of the wrong type is reported once, here, and not again by each check that would stumble over it.
    sound = {name: part for name, part in parts.items() if not _type_faults(name, part)}
    for check in _CHECKS:
        # A check's parameters are the names of the parts that it needs.
        needs = inspect.signature(check).parameters
        if needs.keys() <= sound.keys():
            faults += _error(partial(check, **{name: sound[name] for name in needs})).splitlines()
    if {"analyses", "data"} <= sound.keys():
        faults += label_faults(sound["analyses"], sound["data"].labels)
    if {"points", "data"} <= sound.keys():
        faults += source_faults(sound["points"], sound["data"])
    return list(dict.fromkeys(faults))


def label_faults(analyses: Mapping[str, Analysis | PointAnalysis], labels: Mapping[str, Any]) -> list[str]:
    """Return one line per probe label that an analysis names and that is missing or unsuitable."""
    choices = ", ".join(labels) or "none"
    faults = []
    for name, analysis in analyses.items():
        wanted = [(key, getattr(analysis, key, None)) for key in ("group", "label")]
        wanted += [("colour_by", colour) for colour in getattr(analysis, "colour_by", None) or ()]
        faults += [
            f"analysis.{name}.{key}={label}: there is no such probe label; choose from {choices}"
            for key, label in wanted
            if label is not None and label not in labels
        ]
        if all(label in labels for _, label in wanted if label is not None):
            error = _check_error(analysis, labels)
            faults += [f"analysis.{name}: {error}"] if error else []
    return faults


def source_faults(sources: Mapping[str, Any], data: Data) -> list[str]:
    """Return one line per source of points whose `check(data)` fails."""
    errors = {name: _check_error(source, data) for name, source in sources.items()}
    return [f"points.{name}: {error}" for name, error in errors.items() if error]


def _check_error(part: object, subject: Any) -> str:
    """Return what the `check` of an analysis or a source of points says; "" for nothing, or where it has none."""
    return _error(partial(getattr(part, "check", lambda _: None), subject))


def _error(work: Callable[[], Any]) -> str:
    """Return the message of the InputError that some work raises; "" where it raises none."""
    try:
        work()
    except InputError as error:
        return str(error)
    return ""


def _type_faults(name: str, part: Any) -> list[str]:
    """Return a line if a part has the wrong type, which nothing prevents: a `_target_` may return any object."""
    kinds: dict[str, tuple[Any, str]] = {
        "model": (nn.Module, "model must be a torch.nn.Module"),
        "data": (Data, "dataset must be a losskernel.Data"),
        "schedule": ((Schedule, NoneType), "schedule must be a losskernel.Schedule or null"),
        "training": (Training, "training must be a losskernel.training.Training"),
        "sampler": (Callable, "sampler must build a sampler; set sampler._partial_=true"),
        "checkpoint": ((str, Path, NoneType), "checkpoint must be a path or null"),
        "progress": (bool, "progress must be true or false"),
        "control": (bool, "control must be true, false or null"),
    }
    kind, words = kinds.get(name, (object, ""))
    return [] if isinstance(part, kind) else [f"{words}, got {part!r}"]


def _check_forward(model: nn.Module, data: Data, checkpoint: str | None) -> None:
    # The first and the last probe: probes are often sorted by class, and the last class is the first to be missing
    # among a network's outputs.
    two = Subset(data.probes, [0, size(data.probes) - 1])
    inputs, targets = _try("the probes cannot be loaded", lambda: stack(two, workers=0))
    network = copy.deepcopy(model) if checkpoint is None else load_weights(model, checkpoint)
    network.eval()
    _check_outputs(network, inputs, data.classes)
    with torch.no_grad():
        check = partial(check_losses, network, data.loss, inputs, targets)
        losses = _try("the model or the loss fails on two probes", check)
    finite = bool(losses.isfinite().all())
    require(finite, f"data.loss is {losses.tolist()} on two probes; check inputs, targets and the loss")


def _check_outputs(network: nn.Module, inputs: torch.Tensor, classes: Sequence[str] | None) -> None:
    """Name the key if a network has too few outputs for the classes; torch's own error would name an index."""
    outputs = None
    with torch.no_grad(), suppress(Exception):  # the forward check reports a network that fails
        outputs = network(inputs)
    if classes is not None and isinstance(outputs, torch.Tensor) and outputs.ndim == 2:
        count, needed = outputs.shape[1], len(classes)
        remedy = f"set model.outputs={needed}"
        require(count >= needed, f"model.outputs must be >= the {needed} classes, got {count}; {remedy}")


def _check_training(training: Training, data: Data, checkpoint: str | None) -> None:
    if checkpoint is None and training.steps > 0:
        samples = size(data.train)
        bound = f"training.batch_size must be <= the {samples} training samples"
        require(training.batch_size <= samples, f"{bound}, got {training.batch_size}; lower it")


def _check_augment(training: Training, data: Data, checkpoint: str | None) -> None:
    if checkpoint is None and training.steps > 0 and training.augment is not None:
        augmented = Augmented(data.train, training.augment, torch.Generator())
        _try("training.augment fails on a training sample", lambda: augmented[0])


def _require_kinds_of_points(name: str, analysis: object, schedule: Schedule | None, points: Mapping[str, Any]) -> None:
    """Raise InputError if no source gives a kind of points that an analysis needs."""
    # A source of the user's that does not declare its kinds may give any.
    if not all(hasattr(source, "gives") for source in points.values()):
        return
    kinds = {kind for source in points.values() for kind in source.gives}
    kinds |= {"loss_kernel"} if schedule is not None else set()
    missing = sorted(getattr(analysis, "needs", frozenset()) - kinds)
    remedy = f"add what gives them, such as points=[{','.join(points)},layers,targets]"
    lacking = f"there is no {' and no '.join(missing)}"
    require(not missing, f"analysis.{name} needs points of other kinds: {lacking}; {remedy}")


def _check_optimizer(training: Training) -> None:
    _try("training.optimizer cannot be built", lambda: training.optimizer([nn.Parameter(torch.zeros(1))]))


def _check_sampler(sampler: Callable[..., Sampler]) -> None:
    """Build the sampler for one number: its settings are checked even if model, data or schedule are unsound."""
    if isinstance(sampler, partial):
        settings = {name: value for name, value in sampler.keywords.items() if name != "parameters"}
        if isinstance(settings.get("nbeta"), str):
            settings["nbeta"] = 1.0  # a convention such as "batch": its value needs the data, which may be unsound
        _try("sampler cannot be built", lambda: sampler.func([torch.zeros(1, 1)], **settings))


def _check_chains(
    model: nn.Module,
    data: Data,
    sampler: Callable[..., Sampler],
    schedule: Schedule | None,
    training: Training,
    checkpoint: str | None,
) -> None:
    if schedule is None:
        return
    _try("sampler cannot be built", lambda: setup_of(model, data, sampler, schedule).try_sampler())
    if checkpoint is None and training.steps > 0:  # else sampling, which checks this itself, comes first
        _try("the network cannot be sampled", lambda: rehearse(setup_of(model, data, sampler, schedule)))


def _check_subjects(
    analyses: Mapping[str, Analysis | PointAnalysis], schedule: Schedule | None, points: Mapping[str, Any]
) -> None:
    """Check that every analysis has points or a loss kernel to analyse, and every source what it samples."""
    for name, analysis in analyses.items():
        if is_of_points(analysis):
            require(bool(points), f"analysis.{name} is asked of points; choose some, such as points=[layers,targets]")
            _require_kinds_of_points(name, analysis, schedule, points)
        else:
            remedy = f"choose a schedule, or drop {name} from analysis"
            require(schedule is not None, f"analysis.{name} is asked of a loss kernel, but schedule=none; {remedy}")
    for name, source in points.items():
        samples = schedule is not None or not getattr(source, "samples", False)
        require(samples, f"points.{name} samples loss kernels, but schedule=none; choose a schedule, or drop it")


def _check_baselines(analyses: Mapping[str, Analysis | PointAnalysis], baselines: Mapping[str, Any]) -> None:
    """Check that there is every baseline that an analysis cannot do without."""
    for name, analysis in analyses.items():
        for needed in getattr(analysis, "needed_baselines", ()):
            # Some baselines give several, which are called after them.
            require(
                any(needed == given or needed.startswith(f"{given}_") for given in baselines),
                f"analysis.{name} needs the baseline {needed}, there are: {', '.join(baselines) or 'none'}; choose "
                f"baselines=vision, or take what asks for it out of analysis.{name}",
            )


def _check_trainer(trainer: Callable[..., Any] | None) -> None:
    given = trainer.keywords if isinstance(trainer, partial) else {}
    reserved = {*quiet_settings(), "max_epochs", "limit_train_batches", "enable_progress_bar", "callbacks"}
    taken = [f"trainer.{name}" for name in given if name in reserved]
    require(not taken, f"{', '.join(taken)} cannot be chosen, the run sets it itself; remove it")
    _try("trainer cannot be built", lambda: chain_trainer(trainer, False, slice(0, 1), 1))


def _try(what: str, work: Callable[[], Any]) -> Any:
    """Run code of models, datasets and libraries; any exception becomes an InputError of one line that says where."""
    try:
        return work()
    except InputError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        internal = Path(frame.filename).is_relative_to(Path(__file__).parents[1])
        where = "" if internal else f" ({Path(frame.filename).name}, line {frame.lineno})"
        reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        raise InputError(f"{what}: {reason}{where}") from error


_ON_FAIL = ("warn", "stop")
# Each takes the parts of a study that its parameters are called after, and raises InputError.
_CHECKS: tuple[Callable[..., Any], ...] = (
    lambda model, checkpoint: checkpoint is None or load_weights(model, checkpoint),
    _check_forward,
    _check_training,
    _check_augment,
    _check_optimizer,
    _check_sampler,
    _check_chains,
    lambda chain_offset, schedule: schedule is None or require_offset(chain_offset, schedule),
    lambda state_every: require_number("state_every", state_every, at_least=0),
    _check_trainer,
    lambda seed: require_integer("seed", seed, at_least=0),
    lambda chains_per_fit: chains_per_fit is None or require_integer("chains_per_fit", chains_per_fit, at_least=1),
    lambda on_fail: require(on_fail in _ON_FAIL, f"on_fail must be one of {_ON_FAIL}, got {on_fail!r}"),
    _check_subjects,
    _check_baselines,
)
