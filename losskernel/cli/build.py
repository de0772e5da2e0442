"""From a composed configuration to objects: every fault found and reported together, then the run."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from losskernel.cli.summary import summary
from losskernel.errors import InputError, require, require_integer
from losskernel.run import Study, analyse_run, run, set_threads
from losskernel.tracking import Tracker


def run_from(config: DictConfig, folder: Path, sweep: str | None) -> float | None:
    """Build a study from a configuration and run it in a folder; return the first analysis' headline number."""
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    study = build(config)
    set_threads(config.threads)
    tracker = _tracker(config, folder, sweep)
    outcome = run(study, folder, config=resolved, tracker=tracker)
    print(summary(outcome, str(config.get("label"))))
    return outcome.metrics.get("separation/ari")


def analyse_from(config: DictConfig) -> None:
    """Run the named analyses on a finished run."""
    folder = Path(config.run)
    stored = folder / "config.yaml"
    require(folder.is_dir(), f"run={folder} is not a folder; give the folder of a finished run, such as outputs/multitask/...")
    if config.label is None and stored.is_file():
        config.label = OmegaConf.load(stored).get("label")
    faults = _faults("analysis", config.analysis)
    if faults:
        raise InputError("\n".join(faults))
    analyses = {str(name): _make(f"analysis.{name}", node) for name, node in config.analysis.items()}
    print(summary(analyse_run(folder, analyses), str(config.label)))


def build(config: DictConfig) -> Study:
    """Instantiate every part of a study.

    Raises:
        InputError: one line per fault, of all parts.
    """
    faults = [fault for key in PARTS for fault in _faults(key, config[key])]
    if faults:
        raise InputError("\n".join(faults))
    require_integer("seed", config.seed, at_least=0)
    made: dict[str, Any] = {}

    def attempt(key: str, make: Callable[[], Any]) -> None:
        try:
            made[key] = make()
        except InputError as error:
            faults.extend(str(error).splitlines())

    torch.manual_seed(config.seed)
    for key in PARTS:
        if key != "analysis":
            attempt(key, lambda key=key: _make(key, config[key]))
    for name, node in config.analysis.items():
        attempt(f"analysis.{name}", lambda name=name, node=node: _make(f"analysis.{name}", node))
    if faults:
        raise InputError("\n".join(faults))
    return Study(
        model=made["model"],
        data=made["dataset"],
        sampler=made["sampler"],
        schedule=made["schedule"],
        training=made["training"],
        analyses={str(name): made[f"analysis.{name}"] for name in config.analysis},
        checkpoint=config.checkpoint,
        trainer=made["trainer"],
        seed=config.seed,
        chains_per_fit=config.chains_per_fit,
        on_fail=config.on_fail,
        progress=config.progress,
    )


PARTS = ("model", "dataset", "training", "sampler", "schedule", "trainer", "analysis", "logger")


def _faults(key: str, node: Any) -> list[str]:
    """Return what is wrong with the `_target_`s of a node and below, by their signatures alone."""
    if not isinstance(node, DictConfig):
        return []
    faults = [fault for name in node for fault in _faults(f"{key}.{name}", node._get_node(name))]
    if "_target_" not in node:
        return faults
    try:
        parameters = inspect.signature(get_object(str(node["_target_"]))).parameters
    except Exception as error:  # a bad target fails in as many ways as imports do
        reason = str(error).splitlines()[0]
        return [*faults, f"{key}._target_={node['_target_']} cannot be imported ({reason}); give module.name"]
    given = [str(name) for name in node if not str(name).startswith("_")]
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    named = [name for name, each in parameters.items() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    unknown = [] if takes_any else [name for name in given if name not in named]
    faults += [f"{key}.{name}: {node['_target_']} has no such argument; choose from {', '.join(named)}" for name in unknown]
    required = [name for name in named if parameters[name].default is inspect.Parameter.empty]
    positional = [inspect.Parameter.VAR_POSITIONAL]
    missing = [name for name in required if name not in given and parameters[name].kind not in positional]
    if missing and not node.get("_partial_", False):
        faults.append(f"{key}: {node['_target_']} needs {', '.join(missing)}; set {key}.{missing[0]}=...")
    return faults


def _make(key: str, node: Any) -> Any:
    """Instantiate one node; turn what its constructor says into one line that names the key."""
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, InputError):
            raise cause from error
        raise InputError(f"{key}: {type(cause).__name__}: {str(cause).splitlines()[0]}; check its values") from error


def _tracker(config: DictConfig, folder: Path, sweep: str | None) -> Tracker:
    factory = _make("logger", config.logger)
    if factory.func is Tracker:
        return Tracker()
    extra = {} if sweep is None or "project" not in config.logger else {"group": Path(sweep).name}
    folder.mkdir(parents=True, exist_ok=True)
    return factory(folder, **extra)
