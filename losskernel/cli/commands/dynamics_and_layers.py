"""losskernel-dynamics and losskernel-layers: sweeps around a finished run, over its checkpoints or blocks of weights.

One key varies, every other is as the run had it, and every job has a folder within the run's.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from losskernel.cli import group_of, quiet_root_logger
from losskernel.cli.commands.compare_runs import tracker_of
from losskernel.cli.config import CONF, composed, parsed, resolved
from losskernel.config_keys import Use, current_classes, with_use
from losskernel.errors import InputError, require, require_number
from losskernel.runs.folder import RunFolder
from losskernel.runs.run import decisive
from losskernel.sampling.samplers.base import select
from losskernel.storage.settings_diff import differences
from losskernel.sweeps import over_blocks
from losskernel.sweeps.over_training import over_training
from losskernel.sweeps.read_runs import JOBS

_QUESTIONS = ("analysis", "baselines", "control", "label")  # keys that a finished job must have in common to be kept


@dataclass(frozen=True)
class SweepAround:
    """One command.

    Attributes:
        name: of the command, of its yaml, and of the folder in the run's where the jobs lie.
        choice: the command's key that says what is swept: checkpoints, blocks.
        key: the configuration's key that is swept.
        subdir: name of a job's folder, as Hydra interpolates it.
        weights: run folder -> the overrides that name the weights of every job, where the key does not.
        jobs: (run folder, configuration, choice) -> name of each job and its value of the key.
        compare: (folder, metrics=, alike=, tracker=) -> the comparison of the kernels there.
    """

    name: str
    choice: str
    key: str
    subdir: str
    weights: Callable[[Path], list[str]]
    jobs: Callable[[Path, DictConfig, Any], dict[str, Any]]
    compare: Callable[..., Any]


def around(sweep: SweepAround, launch: Callable[[], Any]) -> None:
    """Sample what the command line asks for around a run, and end with a page.

    Args:
        sweep: the command.
        launch: the losskernel command, which reads sys.argv.

    Raises:
        InputError: the words, the run, or what was sampled before do not fit.
    """
    options, given = _parse(sweep, sys.argv[1:])
    run = Path(options["run"])
    require(run.is_dir(), f"run={run} is not a folder; give the folder of a finished run")
    run = run.resolve()  # jobs on other machines and in other folders get absolute paths
    words, config, left_out = _recomposed(sweep, run, options["defaults"], given)
    jobs = sweep.jobs(run, config, options[sweep.choice])
    folder = Path(str(config.paths.sweep)).resolve() if "paths.sweep" in keys(given) else run / sweep.name
    pending = _pending(sweep, config, folder, jobs)
    print(f"losskernel-{sweep.name} of {run}: {', '.join(jobs)}")
    print(f"  {len(jobs) - len(pending)} finished, {len(pending)} to do, in {folder}")
    if left_out:
        names = ", ".join(left_out)
        print(f"  without the baselines that look back at training: {names}; baselines=... keeps those named")
    _write_jobs(folder, jobs)
    # What failed is raised last: the kernels of the other jobs are shown all the same.
    failure = _launch(sweep, words, folder, [jobs[name] for name in pending], launch) if pending else None
    _compare(sweep, folder, config, options, failure)
    if failure is not None:
        raise failure


def _parse(sweep: SweepAround, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the command's options, among them its overrides for all jobs as `defaults`, and the user's overrides.

    Raises:
        InputError: a word is not for this command.
    """
    # Hydra is not used here: it would refuse the overrides that are meant for the jobs.
    usual = yaml.safe_load((Path(CONF) / f"{sweep.name}.yaml").read_text(encoding="utf-8"))
    options = {key: usual[key] for key in ("run", sweep.choice, "metrics", "alike")}
    # All further keys of the command's yaml are defaults of the jobs, such as control: false.
    others = [key for key in usual if key not in (*options, "defaults", "hydra")]
    given: list[str] = []
    for word in arguments:
        key, _, text = word.partition("=")
        if key == "run":  # a path need not follow Hydra's grammar
            options[key] = text[1:-1] if text[:1] in ("'", '"') and text[-1:] == text[:1] else text
        elif key in options:
            options[key] = one_value(word)
        elif word not in ("-m", "--multirun"):
            require(not word.startswith("-"), f"losskernel-{sweep.name} takes key=value and --help, got {word}")
            one_value(word)
            given.append(word)
    require_number("alike", options["alike"], at_least=0)
    require(options["run"] not in ("???", ""), "run is missing; set run=..., the folder of a finished run")
    for key in keys(given):
        taken = key == sweep.key or key == "experiment" or key.startswith("hydra.sweep")
        require(not taken, f"{key} is not to be set: it is the run's, or what is swept; choose by {sweep.choice}=...")
        several = "the jobs are several; paths.sweep=... names their folder"
        require(key != "paths.run", f"paths.run is not to be set: {several}")
    return options | {"defaults": [f"{key}={quoted(usual[key])}" for key in others]}, given


def _recomposed(
    sweep: SweepAround, run: Path, defaults: Sequence[str], given: Sequence[str]
) -> tuple[list[str], DictConfig, list[str]]:
    """Return the jobs' overrides, their configuration, and the baselines that are left out of it.

    Raises:
        InputError: the run cannot be composed again, or it has no kernel.
    """
    defaults = [*defaults, *sweep.weights(run)]
    words, config = recompose(run, defaults, given)
    sampled = "_target_" in (config.get("schedule") or {})
    require(sampled, f"run={run} samples nothing (schedule=none), so there is no kernel; add schedule=default")
    # Which choices to leave out is known only from the composed configuration, so it is composed twice.
    left_out = run_specific_choices(config, given)
    if left_out:
        words, config = recompose(run, [*defaults, *(f"~{key}" for key in left_out)], given)
    return words, config, [key.removeprefix("baselines.") for key in left_out if key.startswith("baselines.")]


def _pending(sweep: SweepAround, config: DictConfig, folder: Path, jobs: Mapping[str, Any]) -> list[str]:
    """Return the names of the jobs that are not finished.

    Raises:
        InputError: the folder holds jobs with other settings.
    """
    current = resolved(config) | {"control": config.control is not False}
    finished: list[str] = []
    for path in sorted(folder.glob("*/config.yaml")):
        stored, wanted = yaml.safe_load(path.read_text(encoding="utf-8")), dict(current)
        for other in (stored, wanted):  # the run's folder may have moved since, and its weights with it
            other["checkpoint"] = Path(str(other["checkpoint"])).name
        lines = differences(decisive(stored), decisive(wanted))
        # The swept key differs by design.
        lines = [line for line in lines if not line.startswith(f"{sweep.key}:")]
        if lines:
            remedy = "repeat these, or choose another folder by paths.sweep=..."
            raise InputError(f"{path.parent} was sampled with other settings: {'; '.join(lines)}; {remedy}")
        before, now = ({name: config.get(name) for name in _QUESTIONS} for config in (stored, wanted))
        if not differences(before, now) and _is_finished(path.parent):
            finished.append(path.parent.name)
    return [name for name in jobs if name not in finished]


def _write_jobs(folder: Path, jobs: Mapping[str, Any]) -> None:
    """Write the jobs and their order into the sweep's folder, after those of earlier calls."""
    files = RunFolder(folder)
    before = files.read_json(JOBS)
    files.write_json(JOBS, before | dict(jobs) | before)  # earlier jobs keep their order and their values


def _is_finished(folder: Path) -> bool:
    """Whether a job has written its page, which comes last, and has not failed since."""
    page, failure = folder / "report.html", folder / "failure.json"
    return page.is_file() and not (failure.is_file() and failure.stat().st_mtime_ns >= page.stat().st_mtime_ns)


def _launch(
    sweep: SweepAround, words: Sequence[str], folder: Path, values: Sequence[Any], launch: Callable[[], Any]
) -> Exception | None:
    """Sweep over some values; return what failed."""
    swept = [
        f"{sweep.key}={','.join(map(quoted, values))}",
        f"paths.sweep={quoted(str(folder))}",
        f"hydra.sweep.subdir={quoted(sweep.subdir)}",
        "~hydra.callbacks.compare",  # this command ends with a page of its own
    ]
    # hydra.main reads its words from sys.argv alone.
    given = sys.argv
    sys.argv = [given[0], "--multirun", *(word for word in words if keys([word]) != ["paths.sweep"]), *swept]
    try:
        launch()
    except Exception as error:
        return error
    finally:
        sys.argv = given
    return None


def _compare(
    sweep: SweepAround, folder: Path, config: DictConfig, options: Mapping[str, Any], failure: Exception | None
) -> None:
    """Compare the jobs' kernels, and print the result; if a job failed there may be nothing to compare yet."""
    quiet_root_logger()
    try:
        tracker = tracker_of(config, folder, group_of(folder))
        comparison = sweep.compare(folder, metrics=options["metrics"], alike=options["alike"], tracker=tracker)
    except InputError as error:
        if failure is None:
            raise
        print(f"losskernel: there is nothing to show yet: {error}", file=sys.stderr)
    else:
        print(comparison.overview())


# The two commands.


def _blocks(run: Path, config: DictConfig, choice: Any) -> dict[str, Any]:
    # The names of weights are known only from the network itself; it is built, not trained.
    model = instantiate(config.model, _convert_="all")
    names = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
    whole = resolved(config)["sampler"].get("parameters")
    return over_blocks.blocks_of(select(names, whole), choice, whole)


def _trained_weights(run: Path) -> list[str]:
    """Return the override for the run's trained weights: those it trained itself, or those it loaded."""
    path, config = run / "checkpoints" / "trained.pt", run / "config.yaml"
    if not path.is_file():
        stored = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
        loaded = stored.get("checkpoint")
        require(loaded is not None, f"run={run} has no trained weights; continue it with paths.run={run}")
        hydra = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))["hydra"]
        # The checkpoint may be relative to the folder in which the run was started.
        path = Path(hydra["runtime"]["cwd"], str(loaded))
    return [f"checkpoint={quoted(str(path))}"]


_DYNAMICS = SweepAround(
    name="dynamics",
    choice="checkpoints",
    key="checkpoint",
    subdir="${stem:${checkpoint}}",
    weights=lambda run: [],
    jobs=lambda run, config, choice: dict(over_training.kept_checkpoints(run, choice)),
    compare=lambda *folder, **options: over_training.over_training(*folder, **options),
)
_LAYERS = SweepAround(
    name="layers",
    choice="blocks",
    key="sampler.parameters",
    subdir="${block:${sampler.parameters}}",
    weights=_trained_weights,
    jobs=_blocks,
    compare=lambda *folder, **options: over_blocks.over_blocks(*folder, **options),
)
COMMANDS = {command.name: command for command in (_DYNAMICS, _LAYERS)}


# The configuration of a finished run composed again, with some of it changed. A run's folder holds the overrides it was
# composed from, `.hydra/overrides.yaml`, and the result, `config.yaml`. Recipes, calibrations and defaults may have
# changed since. Where they give other values now, further overrides restore the stored ones, value by value.


def recompose(run: Path, defaults: Sequence[str], given: Sequence[str]) -> tuple[list[str], DictConfig]:
    """Return overrides that compose a run's configuration with some of it changed, and that configuration.

    Args:
        run: its folder.
        defaults: overrides that win over the run's.
        given: overrides that win over all; a key set here is taken from neither the run nor the defaults.

    Raises:
        InputError: the folder does not say how the run was made.
    """
    overrides, config = run / ".hydra" / "overrides.yaml", run / "config.yaml"
    for path in (overrides, config):
        missing = f"run={run} has no {path.relative_to(run)}, which says how it was made"
        require(path.is_file(), f"{missing}; give the folder of a run of the losskernel command")
    # Classes may have moved since; the stored configuration names them where they were.
    stored = current_classes(yaml.safe_load(config.read_text(encoding="utf-8")))
    original = yaml.safe_load(overrides.read_text(encoding="utf-8")) or []
    repeated = _without(original, [*with_use(Use.PER_JOB), *keys(given)])
    # Registries of the user's own come first: overrides of choices in them are invalid without.
    search = [word for word in given if keys([word]) == ["hydra.searchpath"]]
    search = search or _search_path(run / ".hydra" / "hydra.yaml")
    # First composed as the run was, to see what has changed since; then with the changes that are asked for.
    restored = _restoring(stored, resolved(composed([*search, *repeated])))
    words = [*search, *repeated, *_without([*restored, *defaults], keys(given))]
    words += [word for word in given if word not in search]
    return words, composed(words)


def run_specific_choices(config: DictConfig, given: Sequence[str]) -> list[str]:
    """Return the choices that a job around a run leaves out: baselines of the training, points, analyses of points.

    Args:
        config: of the run.
        given: overrides; groups that they set are left as they are.
    """

    def chosen(group: str, attribute: str | None) -> list[str]:
        if any(key.startswith(group) for key in keys(given)):
            return []
        nodes = {str(name): node for name, node in (config.get(group) or {}).items()}
        targets = {name: str(node["_target_"]) for name, node in nodes.items() if "_target_" in node}
        return [
            f"{group}.{name}"
            for name, target in targets.items()
            if attribute is None or getattr(get_object(target), attribute, False)
        ]

    return [*chosen("baselines", "needs_history"), *chosen("points", None), *chosen("analysis", "of_points")]


def keys(words: Sequence[str]) -> list[str]:
    """Return the keys that some overrides set."""
    return [override.key_or_group.replace("/", ".") for override in parsed(words)]


def one_value(word: str) -> Any:
    """Return the value that an override sets.

    Raises:
        InputError: it sweeps over several.
    """
    (override,) = parsed([word])
    require(not override.is_sweep_override(), f"{word}: give one value; what is swept here is chosen by the command")
    return override.value()


def quoted(value: Any) -> str:
    """Return a value of a configuration in Hydra's override grammar, whatever characters it holds."""
    if value is None:
        return "null"
    # Strings are always quoted: unquoted, `1e3`, `null` or `a,b` would be numbers, nothing, or a sweep.
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(quoted, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _without(words: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """Return the overrides that set none of some keys, nor anything below; a group counts as the key it fills."""
    below = tuple(f"{prefix}." for prefix in prefixes)
    return [word for word, key in zip(words, keys(words), strict=True) if not f"{key}.".startswith(below)]


def _search_path(path: Path) -> list[str]:
    """Return the override that names the registries which --config-dir or the working folder added to the run's.

    Args:
        path: of the run's hydra.yaml.
    """
    if not path.is_file():
        return []
    sources = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["runtime"]["config_sources"]
    folders = [str(source["path"]) for source in sources if source["schema"] == "file" and source["provider"] != "main"]
    known = (CONF, str(Path.cwd() / "conf"))
    added = [f"file://{folder}" for folder in folders if Path(folder).is_dir() and folder not in known]
    return [f"hydra.searchpath={quoted(added)}"] if added else []


def _restoring(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the overrides that turn what is composed now into what was composed when the run was made.

    A top-level key that has been added since keeps its default; within a part, a key that was added is removed.
    """
    words: list[str] = []
    for name, value in stored.items():
        key = f"{prefix}{name}"
        if key in (*with_use(Use.PER_JOB), "calibrated"):  # calibrated values are stored where they were set
            continue
        if isinstance(value, Mapping) and isinstance(now.get(name), Mapping):
            words += _restoring(value, now[name], f"{key}.")
        elif name not in now or now[name] != value:
            # ++ adds or overrides, so that it does not matter which of the two it is.
            words.append(f"++{key}={quoted(value)}")
    return words + [f"~{prefix}{name}" for name in now if prefix and name not in stored]
