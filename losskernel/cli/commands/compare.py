"""Comparisons from the command line: of any run folders, and of a sweep once its jobs have ended."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra.utils
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, ListConfig, OmegaConf

if TYPE_CHECKING:
    from losskernel.sweeps.read_runs import Run

_ended: list[Callable[[], None]] = []  # what is left to do when this process' sweep has ended


class CompareRuns(Callback):
    """Hydra's callback that ends a sweep with a page comparing its runs.

    It only notes the sweep when it starts: Hydra's own hook for the end is passed over where a job has failed, and
    the page of those that finished is wanted then most.

    Args:
        metrics: what to draw; None for the usual ones.
        alike: CKA from which two kernels count as alike.
    """

    def __init__(self, metrics: Any = None, alike: float = 0.8) -> None:
        self._metrics, self._alike = metrics, alike

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the sweep's folder and logger."""
        folder = Path(str(config.hydra.sweep.dir))
        logger = OmegaConf.create(OmegaConf.to_container(config, resolve=False))  # Hydra goes on changing its own
        _ended.append(lambda: self._compare(folder, logger))

    def _compare(self, folder: Path, config: Any) -> None:
        from losskernel.errors import InputError
        from losskernel.sweeps import find_runs
        from losskernel.sweeps.joined_runs import parts_of_kernels
        from losskernel.sweeps.read_runs import read_run

        try:
            runs = [read_run(each) for each in find_runs(folder)]
        except InputError:  # refused before the first job
            return
        asked = {"metrics": self._metrics, "alike": self._alike}
        for line in _side_by_side(runs, folder, config, group_of(folder), parts_of_kernels(runs), **asked):
            print(f"losskernel: {line}", file=sys.stderr)


@contextmanager
def compared() -> Iterator[None]:
    """Around a command: where it was a sweep, compare its runs, whatever became of them.

    An error of the comparison is one line; it changes neither the sweep's own errors nor its exit code. Ctrl-C ends
    everything at once.
    """
    _ended.clear()
    interrupted = False
    try:
        yield
    except SystemExit as end:
        interrupted = isinstance(end.code, int) and end.code > 128
        raise
    finally:
        for compare in [] if interrupted else _ended:
            logging.root.setLevel(logging.WARNING)  # Hydra's own setting between jobs lets fonts and statistics talk
            try:
                compare()
            except Exception as error:
                line = " ".join(str(error).split()) or type(error).__name__
                print(f"losskernel: the sweep's runs are not compared: {line}", file=sys.stderr)


def note_failure(folder: Path, config: Any, error: BaseException) -> None:
    """Leave in a job's folder why it failed, for the comparison; that it cannot be written harms nobody."""
    text = str(error).strip() or type(error).__name__
    known = type(error).__module__.startswith(("losskernel", "omegaconf", "hydra"))
    record: dict[str, Any] = {"error": text if known else f"{type(error).__name__}: {text}"}
    with suppress(Exception):  # what fails to resolve is left out
        record["config"] = OmegaConf.to_container(config, resolve=True)
    with suppress(Exception):
        from losskernel.runs.folder import RunFolder
        from losskernel.sweeps import FAILURE

        RunFolder(folder).write_json(FAILURE, record)


def compare_from(config: DictConfig) -> None:
    """Compare the runs that a configuration names; print the table and the page's path.

    Raises:
        InputError: there are not two of them, or, where they are to be joined, no two of one kernel.
        TraceError: some are not joined.
    """
    from losskernel.errors import TraceError, require
    from losskernel.sweeps import find_runs
    from losskernel.sweeps.read_runs import read_run

    given, join = config.runs, config.join
    require(isinstance(join, bool), f"join must be true or false, got {join!r}; losskernel-compare --join says true")
    runs = find_runs([str(each) for each in given] if isinstance(given, ListConfig) else str(given))
    sweep = Path(str(given)) if isinstance(given, str) and Path(given).is_dir() else None
    folder = Path(str(config.out or sweep or config.paths.run))
    asked = {"metrics": config.metrics, "alike": config.alike, "title": config.title}
    group = sweep.name if sweep else None
    refused = _side_by_side([read_run(each) for each in runs], folder, config, group, join, **asked)
    if refused:
        raise TraceError("\n".join(refused))


def joining(arguments: Sequence[str]) -> list[str]:
    """Return a command line with --join as Hydra understands it."""
    return ["join=true" if word == "--join" else word for word in arguments]


def _side_by_side(
    runs: Sequence["Run"], folder: Path, config: Any, group: str | None, join: bool, **asked: Any
) -> list[str]:
    """Compare runs, or their joined kernels, and print what is found; return why some are not joined, a line each."""
    from losskernel.sweeps import compare

    refused: list[str] = []
    if join:
        from losskernel.cli.commands.join import HOME, together

        def record(made: Path) -> Any:
            return tracker_of(config, made, group, "join", f"{made.name}: joined")

        found = together(runs, folder / HOME, record)
        if found.joined:
            print(found.words())
        runs, refused = (found.runs if found.joined else runs), found.refused
        if len([run for run in found.runs if not run.missing]) < 2 and found.joined:
            return refused
    tracker = tracker_of(config, folder, group)
    print(compare(runs, folder, tracker=tracker, **asked).overview())
    return refused


def group_of(sweep: Path) -> str:
    """Return the name that the records of a sweep's jobs share: its folder's, with the run's where it lies in one."""
    return f"{sweep.parent.name}_{sweep.name}" if (sweep.parent / "config.yaml").is_file() else sweep.name


def tracker_of(config: Any, folder: Path, group: str | None, job_type: str = "compare", name: str | None = None) -> Any:
    """Return the record of a comparison, or of a joined kernel, with the configured logger: W&B's, else none.

    Raises:
        InputError: the logger does not take its settings.
    """
    from losskernel.errors import InputError
    from losskernel.runs.folder import RunFolder
    from losskernel.runs.tracking.tracker import Tracker

    if "project" not in config.logger:  # curves along draws are all that the others record
        return Tracker()
    RunFolder(folder).prepare()
    try:
        named = {} if name is None else {"name": name}
        return hydra.utils.instantiate(config.logger)(folder, group=group, job_type=job_type, **named)
    except TypeError as error:
        raise InputError(f"logger: {error}; check the values of logger") from error
