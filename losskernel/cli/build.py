"""From a composed configuration to objects: every fault found and reported together, then the run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from losskernel.cli.commands.calibrate import apply_calibration
from losskernel.cli.config.signatures import signature_faults
from losskernel.cli.summary import summary
from losskernel.config_keys import Build, with_build
from losskernel.data.base import Data
from losskernel.errors import InputError, require, require_integer
from losskernel.representations.baselines.collect import BASELINES, read_representations
from losskernel.representations.points import open_points
from losskernel.runs.analyse import CONTROL, TRACES, Outcome, analyse
from losskernel.runs.folder import RunFolder
from losskernel.runs.preflight import faults_of, label_faults
from losskernel.runs.resume import finished
from losskernel.runs.run import Study, run, set_threads
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import run_location
from losskernel.storage.locks import locked_folder
from losskernel.traces.loss_traces import open_traces


def run_from(config: DictConfig, folder: Path, sweep: str | None, overrides: Sequence[str] = ()) -> float | None:
    """Build a study from a configuration and run it in a folder; return the first analysis' headline number."""
    apply_calibration(config, overrides)
    if config.control is None:  # a sweep's figure shows what the loss adds to localisation noise
        config.control = sweep is not None
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    done = finished(folder, resolved)
    if done is not None:
        print(summary(done, str(config.get("label"))))
        return _headline(done)
    faults: list[str] = []
    study = _attempt(faults, lambda: build(config))
    tracker = _attempt(faults, lambda: _tracker(config, folder, sweep))
    _attempt(faults, lambda: config.threads is None or require_integer("threads", config.threads, at_least=1))
    _refuse(faults)
    set_threads(config.threads)
    shared = config.paths.get("traces")
    traces = None if shared is None else run_location(str(shared), str(config.paths.outputs), folder)
    outcome = run(study, folder, config=resolved, tracker=tracker, traces=traces)
    print(summary(outcome, str(config.get("label"))))
    return _headline(outcome)


def _headline(outcome: Outcome) -> float | None:
    headlines = ("separation/ari", "hierarchy/spearman_classes_coupling")
    return next((outcome.metrics[name] for name in headlines if name in outcome.metrics), None)


def analyse_from(config: DictConfig) -> None:
    """Run the named analyses on a finished run; their files and numbers join the run's."""
    folder = Path(config.run)
    require(
        folder.is_dir(),
        f"run={folder} is not a folder; give the folder of a finished run, such as outputs/multitask/...",
    )
    points = open_points(folder)
    traces = None
    if points is None or (folder / TRACES).exists():  # a run of points alone need not have sampled anything
        traces = open_traces(folder).with_baselines(read_representations(folder / BASELINES))
    if config.label is None and (folder / "config.yaml").is_file():
        config.label = cast(DictConfig, OmegaConf.load(folder / "config.yaml")).get("label")
    labels = dict(points.labels if traces is None and points is not None else traces.labels if traces else {})
    if config.label is None:  # a trace that was sampled from Python
        config.label = next(iter(labels), None)
    analyses = questions(config, labels)
    control = open_traces(folder / CONTROL) if (folder / CONTROL).exists() else None
    with locked_folder(folder):
        print(summary(analyse(traces, analyses, RunFolder(folder), Tracker(), control, points), str(config.label)))


def questions(config: DictConfig, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the analyses that a run's configuration asks for.

    Raises:
        InputError: they cannot be built, or ask for a label that the probes do not have.
    """
    faults: list[str] = []
    analyses = {name: _build(f"analysis.{name}", node, faults) for name, node in _named(config, "analysis").items()}
    _refuse(faults + label_faults(analyses, labels))
    return analyses


def build(config: DictConfig) -> Study:
    """Instantiate every part of a study.

    Raises:
        InputError: one line per fault, of all parts.
    """
    faults: list[str] = []
    torch.manual_seed(config.seed if isinstance(config.seed, int) else 0)
    made = {field: _build(key, _part(config, key), faults) for key, field in with_build(Build.PART).items()}
    parts = {field: part for field, part in made.items() if part is not _FAULTY}
    for key, field in with_build(Build.PARTS).items():
        each = {name: _build(f"{key}.{name}", node, faults) for name, node in _named(config, key).items()}
        parts[field] = {name: part for name, part in each.items() if part is not _FAULTY}
    data = parts.pop("data", _FAULTY)
    for name, wrapper in parts.pop("wrappers").items():
        if isinstance(data, Data):
            data = _attempt(faults, lambda name=name, wrap=wrapper, data=data: _wrapped(name, wrap, data), _FAULTY)
    parts |= {} if data is _FAULTY else {"data": data}
    parts |= {field: config[key] for key, field in with_build(Build.VALUE).items()}
    parts["control"] = False if config.control is None else config.control
    # What could be built is checked beside what could not, so that all faults are seen at once.
    _refuse(faults + faults_of(parts))
    return Study(**parts)


def _wrapped(name: str, wrapper: Any, data: Data) -> Data:
    """Return what a wrapper makes of a dataset.

    Raises:
        InputError: it does not take the dataset, or does not return one.
    """
    choice = f"choose it with wrapper=[{name}], or fix its _target_"
    require(callable(wrapper), f"wrapper.{name} must be called with a losskernel.Data, got {wrapper!r}; {choice}")
    made = wrapper(data)
    require(isinstance(made, Data), f"wrapper.{name} must return a losskernel.Data, got {type(made).__name__}")
    return made


_FAULTY = object()


def _part(config: DictConfig, key: str) -> Any:
    """Return the node of a part; schedule=none says nothing of what to build, whatever a recipe sets below it."""
    node = config.get(key)
    return None if key == "schedule" and isinstance(node, DictConfig) and "_target_" not in node else node


def _named(config: DictConfig, key: str) -> dict[str, Any]:
    """Return what is chosen of a group; a recipe's settings of what is not chosen say nothing of what to build."""
    nodes = {str(name): node for name, node in (config.get(key) or {}).items()}
    return {name: node for name, node in nodes.items() if not isinstance(node, DictConfig) or "_target_" in node}


def _build(key: str, node: Any, faults: list[str]) -> Any:
    """Instantiate one node, or add what is wrong with it to the faults and return _FAULTY."""
    found = signature_faults(key, node)
    faults += found
    return _FAULTY if found else _attempt(faults, lambda: _make(key, node), _FAULTY)


def _attempt(faults: list[str], work: Callable[[], Any], otherwise: Any = None) -> Any:
    try:
        return work()
    except InputError as error:
        faults += str(error).splitlines()
        return otherwise


def _refuse(faults: list[str]) -> None:
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))


def _make(key: str, node: Any) -> Any:
    """Instantiate one node; turn what its constructor says into one line that names the key."""
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, InputError):
            raise cause from error
        raise InputError(f"{key}: {_line(cause)}; check the values of {key}") from error


def _line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _tracker(config: DictConfig, folder: Path, sweep: str | None) -> Tracker:
    faults: list[str] = []
    factory = _build("logger", config.logger, faults)
    _refuse(faults)
    if factory.func is Tracker:
        return Tracker()
    RunFolder(folder).prepare()
    if "project" not in config.logger:
        return factory(folder)
    from losskernel.cli.config.run_names import described

    return factory(folder, **described(config, folder, sweep))
