"""From a composed configuration to objects: all faults are collected and reported together, then the run begins."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from hydra._internal.utils import _locate
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from losskernel.cli.config import apply_calibration, resolved, subject_of
from losskernel.cli.launchers.sweep_jobs import described
from losskernel.config_keys import Build, with_build
from losskernel.data.base import Data
from losskernel.errors import InputError, require, require_integer
from losskernel.kernel.diagnosis.diagnose import Diagnosis
from losskernel.representations.baselines.collect import BASELINES, read_representations
from losskernel.representations.points import open_points
from losskernel.runs.analyse import CONTROL, TRACES, Outcome, analyse
from losskernel.runs.folder import RunFolder
from losskernel.runs.preflight import faults_of, label_faults
from losskernel.runs.report import headline, objective
from losskernel.runs.run import Study, finished, run, set_threads, trained
from losskernel.runs.status.status_file import progress_log, read_status
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sampling.calibration import calibrate
from losskernel.storage.locations import run_location
from losskernel.storage.locks import locked_folder
from losskernel.traces.loss_traces import open_traces

# Files that a run names at its end; a sheet of suspects is what an audit is run for.
_FILES = (
    "report.html",
    "metrics.json",
    "traces.zarr",
    "figures",
    "tables",
    "figures/suspects.html",
    "tables/memorisation_suspects.csv",
)
_FAULTY = object()  # stands for a part that could not be built


def run_from(config: DictConfig, folder: Path, sweep: str | None, overrides: Sequence[str] = ()) -> float | None:
    """Build a study from a configuration and run it in a folder.

    Args:
        config: as Hydra composed it.
        folder: of the run.
        sweep: name of its sweep; None for a single run.
        overrides: words of the command line, which win over a calibration.

    Returns:
        The metric that a sweeper optimises; None where no analysis has one.

    Raises:
        InputError: one line per fault, of all parts, before any compute.
    """
    apply_calibration(config, overrides)
    if config.control is None:  # a sweep's figure shows what the loss adds to localisation noise
        config.control = sweep is not None
    plain = resolved(config, throw_on_missing=True)
    # Before anything is built: repeating a sweep's command must be cheap for the jobs that are done.
    outcome = finished(folder, plain)
    if outcome is None:
        faults: list[str] = []
        study = _attempt(faults, lambda: build(config))
        tracker = _attempt(faults, lambda: _tracker(config, folder, sweep))
        _attempt(faults, lambda: config.threads is None or require_integer("threads", config.threads, at_least=1))
        _refuse(faults)
        set_threads(config.threads)
        shared = config.paths.get("traces")
        traces = None if shared is None else run_location(str(shared), str(config.paths.outputs), folder)
        with progress_log(folder):
            outcome = run(study, folder, config=plain, tracker=tracker, traces=traces)
    print(summary(outcome, str(config.get("label"))))
    return objective(outcome.shown, outcome.metrics)


def analyse_from(config: DictConfig) -> None:
    """Run the chosen analyses on a finished run; their files and numbers join the run's.

    Raises:
        InputError: the folder holds no finished run, or an analysis does not fit it.
    """
    folder = Path(config.run)
    remedy = "give the folder of a finished run, such as outputs/multitask/..."
    require(folder.is_dir(), f"run={folder} is not a folder; {remedy}")
    points = open_points(folder)
    traces = None
    if points is None or (folder / TRACES).exists():  # a run with schedule=none has points and no trace
        traces = open_traces(folder).with_baselines(read_representations(folder / BASELINES))
    # The run's own label, unless another one is asked for.
    if config.label is None and (folder / "config.yaml").is_file():
        config.label = cast(DictConfig, OmegaConf.load(folder / "config.yaml")).get("label")
    labels = dict(points.labels if traces is None and points is not None else traces.labels if traces else {})
    if config.label is None:  # a trace that was sampled from Python
        config.label = next(iter(labels), None)
    analyses = build_analyses(config, labels)
    control = open_traces(folder / CONTROL) if (folder / CONTROL).exists() else None
    with locked_folder(folder):
        outcome = analyse(traces, analyses, RunFolder(folder), Tracker(), control, points, progress=True)
    print(f"added to {folder}: {', '.join(analyses)}")
    print(summary(outcome, str(config.label)))


def calibrate_from(config: DictConfig, folder: Path) -> None:
    """Train or load the network of a configuration, calibrate its sampler, and write the choice.

    Args:
        config: of the run that is to be sampled, with the command's own keys `into`, `rounds` and `gradients`.
        folder: of this calibration: its configuration, the trained weights, calibration.json.

    Raises:
        InputError: the configuration is faulty, or `into` is not the path of a sampler choice.
    """
    into = Path(config.into)
    require(into.suffix == ".yaml" and into.parent.name == "sampler", f"into={into} must be .../sampler/<name>.yaml")
    study, plain = build(config), resolved(config, throw_on_missing=True)
    schedule = study.schedule
    if schedule is None:
        raise InputError("schedule=none leaves nothing to calibrate; choose schedule=default")
    set_threads(config.threads)
    files = RunFolder(folder)
    files.prepare()
    files.write_text("config.yaml", yaml.safe_dump(plain, sort_keys=False))
    model = trained(study, files)
    options = {"seed": study.seed, "trainer": study.trainer, "progress": study.progress}
    effort = {"rounds": config.rounds, "gradients": config.gradients}
    result = calibrate(model, study.data, study.sampler, schedule, **options, **effort)
    files.write_json("calibration.json", asdict(result))
    values = {f"sampler.{name}": value for name, value in result.sampler.items()}
    values |= {f"schedule.{name}": value for name, value in result.schedule.items()}
    choice = {"sampler": plain["sampler"] | result.sampler, "calibrated": {"values": values, "of": subject_of(plain)}}
    comments = ["@package _global_", f"losskernel-calibrate, {folder}", *result.explanation]
    header = "".join(f"# {line}\n" for line in comments)
    RunFolder(into.parent).write_text(into.name, header + yaml.safe_dump(choice, sort_keys=False, allow_unicode=True))
    print("\n".join(result.explanation))
    weights = study.checkpoint or files.path / "checkpoints" / "trained.pt"
    print(f"written to {into}; use it with sampler={into.stem} (checkpoint={weights} spares the training)")


def summary(outcome: Outcome, label: str) -> str:
    """Return verdict, headline numbers with standard errors, and the paths of what was made."""
    lines = ["nothing was sampled: points only"] if outcome.diagnosis is None else _verdict(outcome.diagnosis)
    if outcome.before:
        return "\n".join([f"{outcome.folder} has finished before; nothing was done", *lines])
    lines += [f"  replaced: {what}" for what in outcome.replaced]
    for key, words in headline(outcome.shown).items():
        if key in outcome.metrics and outcome.metrics[key] is not None:
            error = outcome.metrics.get(f"{key}_se")
            spread = "" if error is None else f" ± {error:.2g}"
            lines.append(f"  {words.format(label=label):<34} {outcome.metrics[key]:.4g}{spread}")
    share = (read_status(outcome.folder) or {}).get("checking_to_drawing")
    lines += [] if share is None else [f"  {'seconds of checking / of drawing':<34} {share:.2g}"]
    for name in _FILES:
        if (outcome.folder / name).exists():
            lines.append(f"  {name.split('/')[-1].removeprefix('memorisation_'):<13} {outcome.folder / name}")
    return "\n".join(lines)


def _verdict(diagnosis: Diagnosis) -> list[str]:
    lines = [f"diagnosis: {diagnosis.verdict}", *(f"  - {reason}" for reason in diagnosis.reasons)]
    return [*lines, f"  first: {diagnosis.remedy}"] if diagnosis.remedy else lines


def build_analyses(config: DictConfig, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the analyses of a run's configuration.

    Args:
        config: with the group `analysis`.
        labels: of the probes.

    Raises:
        InputError: they cannot be built, or name a label that the probes do not have.
    """
    faults: list[str] = []
    analyses = {name: _build(f"analysis.{name}", node, faults) for name, node in _chosen(config, "analysis").items()}
    _refuse(faults + label_faults(analyses, labels))
    return analyses


def build(config: DictConfig) -> Study:
    """Instantiate every part of a study.

    Raises:
        InputError: one line per fault, of all parts.
    """
    faults: list[str] = []
    # Initial weights are drawn while the model is built; a seed of the wrong type is reported below.
    torch.manual_seed(config.seed if isinstance(config.seed, int) else 0)
    made = {field: _build(key, _part(config, key), faults) for key, field in with_build(Build.PART).items()}
    parts = {field: part for field, part in made.items() if part is not _FAULTY}
    for key, field in with_build(Build.PARTS).items():
        several = {name: _build(f"{key}.{name}", node, faults) for name, node in _chosen(config, key).items()}
        parts[field] = {name: part for name, part in several.items() if part is not _FAULTY}
    # Wrappers are applied in the order given, each to what the one before returned.
    data = parts.pop("data", _FAULTY)
    for name, wrapper in parts.pop("wrappers").items():
        if isinstance(data, Data):
            data = _attempt(faults, lambda name=name, wrap=wrapper, data=data: _wrapped(name, wrap, data), _FAULTY)
    parts |= {} if data is _FAULTY else {"data": data}
    parts |= {field: config[key] for key, field in with_build(Build.VALUE).items()}
    parts["control"] = False if config.control is None else config.control
    # The parts that could be built are checked as well, so that one attempt shows all faults.
    _refuse(faults + faults_of(parts))
    return Study(**parts)


def _wrapped(name: str, wrapper: Any, data: Data) -> Data:
    """Return what a wrapper makes of a dataset.

    Raises:
        InputError: it does not take the dataset, or does not return one.
    """
    choice = f"choose it with wrapper=[{name}], or fix its _target_"
    require(callable(wrapper), f"wrapper.{name} must be called with a losskernel.Data, got {wrapper!r}; {choice}")
    wrapped = wrapper(data)
    require(isinstance(wrapped, Data), f"wrapper.{name} must return a losskernel.Data, got {type(wrapped).__name__}")
    return wrapped


def _part(config: DictConfig, key: str) -> Any:
    """Return the node of a part; None for schedule=none, below which a recipe may still have set values."""
    node = config.get(key)
    return None if key == "schedule" and isinstance(node, DictConfig) and "_target_" not in node else node


def _chosen(config: DictConfig, key: str) -> dict[str, Any]:
    """Return the choices of a group, without nodes of which a recipe set values while they were not chosen."""
    nodes = {str(name): node for name, node in (config.get(key) or {}).items()}
    return {name: node for name, node in nodes.items() if not isinstance(node, DictConfig) or "_target_" in node}


def _build(key: str, node: Any, faults: list[str]) -> Any:
    """Instantiate one node; or append what is wrong with it to the faults and return _FAULTY."""
    wrong = signature_faults(key, node)
    faults += wrong
    return _FAULTY if wrong else _attempt(faults, lambda: _instantiate(key, node), _FAULTY)


def _attempt(faults: list[str], work: Callable[[], Any], otherwise: Any = None) -> Any:
    try:
        return work()
    except InputError as error:
        faults += str(error).splitlines()
        return otherwise


def _refuse(faults: list[str]) -> None:
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))


def _instantiate(key: str, node: Any) -> Any:
    """Instantiate one node; an error of its constructor becomes one line that names the key."""
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        # Constructors of this package name key, value and remedy themselves.
        if isinstance(cause, InputError):
            raise cause from error
        words = ": ".join([type(cause).__name__, *str(cause).strip().splitlines()[:1]])
        raise InputError(f"{key}: {words}; check the values of {key}") from error


def _tracker(config: DictConfig, folder: Path, sweep: str | None) -> Tracker:
    faults: list[str] = []
    factory = _build("logger", config.logger, faults)
    _refuse(faults)
    if factory.func is Tracker:
        return Tracker()
    RunFolder(folder).prepare()
    about = described(config, folder, sweep) if "project" in config.logger else {}
    return factory(folder, **about)


# Signatures: what is wrong with a node before anything is instantiated. Hydra would report the first fault alone, and
# pass any type. pydantic's dataclasses would check types, but at construction, one class at a time, and not unknown
# arguments of functions; their errors name the field instead of the configuration's key.

_BOOL, _BOOL_OR_NONE = (bool, "bool"), (bool | None, "bool | None", "Optional[bool]")


def signature_faults(key: str, node: Any) -> list[str]:
    """Return what is wrong with the `_target_`s of a node and below, by their signatures alone.

    Args:
        key: of the node, dotted.
        node: of a configuration.
    """
    if isinstance(node, ListConfig):
        return [fault for index, item in enumerate(node) for fault in signature_faults(f"{key}[{index}]", item)]
    if not isinstance(node, DictConfig):
        return []
    faults = [fault for name in node for fault in signature_faults(f"{key}.{name}", node[name])]
    if "_target_" not in node:
        return faults
    target = node["_target_"]
    try:
        called = _locate(str(target))  # hydra.utils.get_object, which calls it, would log the error as well
    except Exception as error:  # importing a module of the user's may fail in any way
        reason = " ".join(str(error).split())
        remedy = "give module.name, and put the folder of your own modules on PYTHONPATH"
        return [*faults, f"{key}._target_={target} cannot be imported ({reason}); {remedy}"]
    try:
        parameters = inspect.signature(called).parameters
    except ValueError:  # a class of a C extension may have no signature
        return faults
    except TypeError:
        return [*faults, f"{key}._target_={target} is a {type(called).__name__}; give a class or a function"]
    return faults + _argument_faults(key, node, str(target), parameters)


def _argument_faults(key: str, node: DictConfig, target: str, parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return which arguments are unknown, missing, or not true or false although only that is taken."""
    given = [str(name) for name in node if not str(name).startswith("_")]
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = [name for name, parameter in parameters.items() if parameter.kind not in variable]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    choices = ", ".join(named) or "none, and leave it out"
    faults = [
        f"{key}.{name}={node[name]}: {target} has no such argument; choose from {choices}"
        for name in given
        if name not in named and not takes_any
    ]
    faults += [
        f"{key}.{name} must be true or false, got {node[name]!r}"
        for name in given
        if name in named and not _fits_bool(parameters[name], node[name])
    ]
    missing = [name for name in named if parameters[name].default is inspect.Parameter.empty and name not in given]
    if missing and not node.get("_partial_", False) and "_args_" not in node:
        faults.append(f"{key}: {target} needs {', '.join(missing)}; set {key}.{missing[0]}=...")
    return faults


def _fits_bool(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether a value may be an argument as far as bool annotations go: any non-empty string would count as true."""
    if parameter.annotation not in (*_BOOL, *_BOOL_OR_NONE) or isinstance(value, (bool, DictConfig)):
        return True
    return value is None and (parameter.annotation in _BOOL_OR_NONE or parameter.default is None)
