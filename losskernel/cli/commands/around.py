"""Sweeps around a finished run: one key varied, every other as the run had it, a folder of the run for every job."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig

from losskernel.cli.commands.compare import group_of, tracker_of
from losskernel.cli.config.recompose import keys, of_the_run_alone, one_value, quoted, recompose, resolved
from losskernel.errors import InputError, require, require_number

_QUESTIONS = ("analysis", "baselines", "control", "label")  # what a finished job was asked


@dataclass(frozen=True)
class Kind:
    """One command.

    Attributes:
        name: of the command, of its yaml, and of the folder in the run's where the jobs lie.
        choice: its own key, which says what is swept: checkpoints, blocks.
        key: the configuration's key that is swept.
        subdir: name of a job's folder, as Hydra interpolates it.
        weights: run folder -> the words that name the weights of every job, where the key does not.
        jobs: (run folder, configuration, choice) -> name of each job and its value of the key.
        show: (folder, metrics=, alike=, tracker=) -> what the kernels there say, a page among it.
    """

    name: str
    choice: str
    key: str
    subdir: str
    weights: Callable[[Path], list[str]]
    jobs: Callable[[Path, DictConfig, Any], dict[str, Any]]
    show: Callable[..., Any]


def around(kind: Kind, conf: str, launch: Callable[[], Any]) -> None:
    """Sample what the command line asks for around a run, and end with a page.

    Args:
        kind: the command.
        conf: the registry.
        launch: the losskernel command, which reads sys.argv.

    Raises:
        InputError: the words, the run, or what was sampled before do not fit.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        hydra.main(config_path=conf, config_name=kind.name, version_base="1.3")(_nothing)()
        return
    own, given = _words(kind, conf, sys.argv[1:])
    folder = Path(own["run"])
    require(folder.is_dir(), f"run={folder} is not a folder; give the folder of a finished run")
    folder = folder.resolve()
    defaults = [*own["defaults"], *kind.weights(folder)]
    words, config = recompose(conf, folder, defaults, given)
    sampled = "_target_" in (config.get("schedule") or {})
    require(sampled, f"run={folder} samples nothing (schedule=none), so there is no kernel; add schedule=default")
    past = of_the_run_alone(config, given)
    if past:
        words, config = recompose(conf, folder, [*defaults, *(f"~{key}" for key in past)], given)
    jobs = kind.jobs(folder, config, own[kind.choice])
    sweep = Path(str(config.paths.sweep)).resolve() if "paths.sweep" in keys(given) else folder / kind.name
    todo = _todo(kind, config, sweep, jobs)
    print(f"losskernel-{kind.name} of {folder}: {', '.join(jobs)}")
    print(f"  {len(jobs) - len(todo)} finished, {len(todo)} to do, in {sweep}")
    backward = [key.removeprefix("baselines.") for key in past if key.startswith("baselines.")]
    if backward:
        names = ", ".join(backward)
        print(f"  without the baselines that look back at training: {names}; baselines=... keeps those named")
    _note(sweep, jobs)
    failure = _launch(kind, words, sweep, [jobs[name] for name in todo], launch) if todo else None
    logging.root.setLevel(logging.WARNING)  # Hydra's own setting between jobs lets fonts and statistics talk
    try:
        tracker = tracker_of(config, sweep, group_of(sweep))
        found = kind.show(sweep, metrics=own["metrics"], alike=own["alike"], tracker=tracker)
    except InputError as error:
        if failure is None:
            raise
        print(f"losskernel: there is nothing to show yet: {error}", file=sys.stderr)
    else:
        print(found.overview())
    if failure is not None:
        raise failure


def _words(kind: Kind, conf: str, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the command's own values, with its words for the jobs as `defaults`, and the user's words for the jobs.

    Raises:
        InputError: a word is not for this command.
    """
    usual = yaml.safe_load((Path(conf) / f"{kind.name}.yaml").read_text(encoding="utf-8"))
    own = {key: usual[key] for key in ("run", kind.choice, "metrics", "alike")}
    others = [key for key in usual if key not in (*own, "defaults", "hydra")]
    given: list[str] = []
    for word in arguments:
        key, _, text = word.partition("=")
        if key == "run":
            own[key] = text[1:-1] if text[:1] in ("'", '"') and text[-1:] == text[:1] else text
        elif key in own:
            own[key] = one_value(word)
        elif word not in ("-m", "--multirun"):
            require(not word.startswith("-"), f"losskernel-{kind.name} takes key=value and --help, got {word}")
            one_value(word)
            given.append(word)
    require_number("alike", own["alike"], at_least=0)
    require(own["run"] not in ("???", ""), "run is missing; set run=..., the folder of a finished run")
    for key in keys(given):
        taken = key == kind.key or key == "experiment" or key.startswith("hydra.sweep")
        require(not taken, f"{key} is not to be set: it is the run's, or what is swept; choose by {kind.choice}=...")
        require(
            key != "paths.run", "paths.run is not to be set: the jobs are several; paths.sweep=... names their folder"
        )
    return own | {"defaults": [f"{key}={quoted(usual[key])}" for key in others]}, given


def _todo(kind: Kind, config: DictConfig, sweep: Path, jobs: dict[str, Any]) -> list[str]:
    """Return the names of the jobs that are not finished.

    Raises:
        InputError: the folder holds jobs with other settings.
    """
    from losskernel.runs.resume import decisive
    from losskernel.storage.settings_diff import differences

    asked = resolved(config) | {"control": config.control is not False}
    finished: list[str] = []
    for made in sorted(sweep.glob("*/config.yaml")):
        stored = yaml.safe_load(made.read_text(encoding="utf-8"))
        # A folder may have moved since, and its weights with it.
        for each in (stored, here := dict(asked)):
            each["checkpoint"] = Path(str(each["checkpoint"])).name
        lines = differences(decisive(stored), decisive(here))
        lines = [line for line in lines if not line.startswith(f"{kind.key}:")]
        if lines:
            raise InputError(
                f"{made.parent} was sampled with other settings: {'; '.join(lines)}; repeat these, or choose another "
                "folder by paths.sweep=..."
            )
        same = not differences(*_parts(_QUESTIONS, stored, here))
        if same and _finished(made.parent):
            finished.append(made.parent.name)
    return [name for name in jobs if name not in finished]


def _parts(names: Sequence[str], *configs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return some top-level parts of two configurations."""
    stored, asked = ({name: config.get(name) for name in names} for config in configs)
    return stored, asked


def _note(sweep: Path, jobs: dict[str, Any]) -> None:
    """Leave the jobs and their order in the folder, beside those that were asked for before."""
    from losskernel.runs.folder import RunFolder
    from losskernel.sweeps.read_runs import JOBS

    path = sweep / JOBS
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    RunFolder(sweep).write_json(JOBS, before | {name: value for name, value in jobs.items() if name not in before})


def _finished(folder: Path) -> bool:
    """Whether a job's page, which comes last, is there and no failure after it."""
    page, failure = folder / "report.html", folder / "failure.json"
    return page.is_file() and not (failure.is_file() and failure.stat().st_mtime_ns >= page.stat().st_mtime_ns)


def _launch(
    kind: Kind, words: Sequence[str], sweep: Path, values: Sequence[Any], launch: Callable[[], Any]
) -> Exception | None:
    """Sweep over the values, and return what failed: the kernels of the other jobs are shown all the same."""
    swept = [
        f"{kind.key}={','.join(map(quoted, values))}",
        f"paths.sweep={quoted(str(sweep))}",
        f"hydra.sweep.subdir={quoted(kind.subdir)}",
        "~hydra.callbacks.compare",
    ]
    given = sys.argv
    sys.argv = [given[0], "--multirun", *(word for word in words if keys([word]) != ["paths.sweep"]), *swept]
    try:
        launch()
    except Exception as error:
        return error
    finally:
        sys.argv = given
    return None


def _nothing(config: DictConfig) -> None:
    """Stand for a job where only help is wanted."""
