"""losskernel-dynamics and losskernel-layers: sweeps around a finished run, over its checkpoints or blocks of weights.

One key varies, every other is as the run had it, and every job has a folder within the run's.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig

from losskernel.cli.commands.compare_runs import group_of, quiet_root_logger, tracker_of
from losskernel.cli.config import CONF, resolved, show_help
from losskernel.cli.config.recompose import keys, one_value, quoted, recompose, run_specific_choices
from losskernel.errors import InputError, require, require_number

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
    if {"--help", "-h"} & set(sys.argv[1:]):
        show_help(sweep.name)
        return
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
        require(
            key != "paths.run", "paths.run is not to be set: the jobs are several; paths.sweep=... names their folder"
        )
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
    from losskernel.runs.resume import decisive
    from losskernel.storage.settings_diff import differences

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
            raise InputError(
                f"{path.parent} was sampled with other settings: {'; '.join(lines)}; repeat these, or choose another "
                "folder by paths.sweep=..."
            )
        before, now = ({name: config.get(name) for name in _QUESTIONS} for config in (stored, wanted))
        if not differences(before, now) and _is_finished(path.parent):
            finished.append(path.parent.name)
    return [name for name in jobs if name not in finished]


def _write_jobs(folder: Path, jobs: Mapping[str, Any]) -> None:
    """Write the jobs and their order into the sweep's folder, after those of earlier calls."""
    from losskernel.runs.folder import RunFolder
    from losskernel.sweeps.read_runs import JOBS

    path = folder / JOBS
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    RunFolder(folder).write_json(JOBS, before | {name: value for name, value in jobs.items() if name not in before})


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


def _checkpoints(run: Path, config: DictConfig, choice: Any) -> dict[str, Any]:
    from losskernel.sweeps.over_training.over_training import kept_checkpoints

    return dict(kept_checkpoints(run, choice))


def _compare_checkpoints(folder: Path, *, metrics: Any, alike: float, tracker: Any) -> Any:
    from losskernel.sweeps.over_training.over_training import over_training

    return over_training(folder, metrics=metrics, alike=alike, tracker=tracker)


def _blocks(run: Path, config: DictConfig, choice: Any) -> dict[str, Any]:
    from losskernel.sampling.samplers.base import select
    from losskernel.sweeps.over_blocks import blocks_of

    # The names of weights are known only from the network itself; it is built, not trained.
    model = instantiate(config.model, _convert_="all")
    names = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
    whole = resolved(config)["sampler"].get("parameters")
    return blocks_of(select(names, whole), choice, whole)


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


def _compare_blocks(folder: Path, *, metrics: Any, alike: float, tracker: Any) -> Any:
    from losskernel.sweeps.over_blocks import over_blocks

    return over_blocks(folder, metrics=metrics, alike=alike, tracker=tracker)


DYNAMICS = SweepAround(
    name="dynamics",
    choice="checkpoints",
    key="checkpoint",
    subdir="${stem:${checkpoint}}",
    weights=lambda run: [],
    jobs=_checkpoints,
    compare=_compare_checkpoints,
)
LAYERS = SweepAround(
    name="layers",
    choice="blocks",
    key="sampler.parameters",
    subdir="${block:${sampler.parameters}}",
    weights=_trained_weights,
    jobs=_blocks,
    compare=_compare_blocks,
)
