"""losskernel-compare, and the comparison that ends a sweep; runs of one kernel's chains are joined on the way."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

from losskernel import sweeps
from losskernel.cli import group_of
from losskernel.cli.build import build_analyses, summary
from losskernel.errors import InputError, TraceError, require
from losskernel.runs.folder import RunFolder
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sweeps import joined_runs
from losskernel.sweeps.read_runs import HOME, Run, find_runs, read_run
from losskernel.traces.compatibility import differing_settings, shortened


def compare_sweep(folder: Path, config: Any, options: Mapping[str, Any]) -> None:
    """Compare the runs of a sweep that has ended.

    Args:
        folder: of the sweep.
        config: of the sweep, with `logger`.
        options: metrics and alike, as of compare().
    """
    try:
        runs = [read_run(run) for run in find_runs(folder)]
    except InputError:  # the sweep was refused before its first job
        return
    # Jobs that differ in chain_offset sampled parts of kernels: those are joined first, and wholes are compared.
    for line in _compare_and_print(runs, folder, config, group_of(folder), joined_runs.parts_of_kernels(runs), options):
        print(f"losskernel: {line}", file=sys.stderr)


def compare_from(config: DictConfig) -> None:
    """Compare the runs that a configuration names; print the table and the page's path.

    Raises:
        InputError: there are fewer than two, or, where they are to be joined, no two of one kernel.
        TraceError: some are not joined.
    """
    given, join = config.runs, config.join
    require(isinstance(join, bool), f"join must be true or false, got {join!r}; losskernel-compare --join says true")
    runs = find_runs([str(run) for run in given] if isinstance(given, ListConfig) else str(given))
    # A sweep's page is written into its own folder, as that of its end; any other choice of runs gets a new folder.
    sweep = Path(str(given)) if isinstance(given, str) and Path(given).is_dir() else None
    folder = Path(str(config.out or sweep or config.paths.run))
    options = {"metrics": config.metrics, "alike": config.alike, "title": config.title}
    group = sweep.name if sweep else None
    refused = _compare_and_print([read_run(run) for run in runs], folder, config, group, join, options)
    if refused:
        raise TraceError("\n".join(refused))


def _compare_and_print(
    runs: Sequence[Run], folder: Path, config: Any, group: str | None, join: bool, options: Mapping[str, Any]
) -> list[str]:
    """Compare runs, or their joined kernels, and print the result; return why some are not joined, a line each."""
    refused: list[str] = []
    if join:
        joined = join_kernels(
            runs, folder / HOME, lambda made: tracker_of(config, made, group, "join", f"{made.name}: joined")
        )
        refused = joined.refused
        if joined.joined:
            print(joined.overview())
            runs = joined.runs
            # A single kernel is shown by itself: there is nothing to compare it with.
            if len([run for run in runs if not run.missing]) < 2:
                return refused
    print(sweeps.compare(runs, folder, tracker=tracker_of(config, folder, group), **options).overview())
    return refused


def tracker_of(
    config: Any, folder: Path, group: str | None, job_type: str = "compare", name: str | None = None
) -> Tracker:
    """Return the record of a comparison, or of a joined kernel, with the configured logger: W&B's, else none.

    Args:
        config: with `logger`.
        folder: of the comparison.
        group: name that the records of a sweep share.
        job_type: of W&B's run.
        name: of W&B's run; None for the configured one.

    Raises:
        InputError: the logger does not take its settings.
    """
    if "project" not in config.logger:  # the other loggers record curves along draws alone
        return Tracker()
    RunFolder(folder).prepare()
    try:
        named = {} if name is None else {"name": name}
        return hydra.utils.instantiate(config.logger)(folder, group=group, job_type=job_type, **named)
    except TypeError as error:
        raise InputError(f"logger: {error}; check the values of logger") from error


# Joining: runs that sampled parts of one kernel's chains become one run.


@dataclass(frozen=True)
class WholeKernels:
    """Runs of whole kernels.

    Attributes:
        runs: joined ones, and those that were alone; one that cannot be joined yet has no result.
        joined: what was joined.
        refused: why others were not, a line each.
    """

    runs: list[Run] = field(default_factory=list)
    joined: list[joined_runs.JoinedKernel] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def overview(self) -> str:
        """Return what was joined, a line each; where that is one kernel and no other, its summary as well."""
        lines = [kernel.words() for kernel in self.joined]
        if len(self.runs) == len(self.joined) == 1:
            label = self.runs[0].config.get("label")
            lines.append(summary(self.joined[0].outcome, str(label)))
        return "\n".join(lines)


def join_kernels(runs: Sequence[Run], home: Path, tracker: Callable[[Path], Tracker]) -> WholeKernels:
    """Join runs that sampled chains of one kernel, each kernel in a folder of its own.

    Args:
        runs: of any kernels.
        home: holds the folders of the joined kernels.
        tracker: folder of a joined kernel -> where else to record it.

    Raises:
        InputError: no two runs are of one kernel.
        TraceError: the folder cannot be written; or nothing is joined, and fewer than two runs have results to show.
    """
    groups = joined_runs.group_by_kernel(runs)
    several = [group for group in groups if len(group.all) > 1]
    if not several:
        raise _nothing_to_join(runs)
    # Groups are not hashable: they hold configurations.
    folders = dict(zip(map(id, several), _folders(several, home), strict=True))
    kernels = WholeKernels()
    for group in groups:
        folder = folders.get(id(group))
        if folder is None:  # a whole kernel already
            kernels.runs.extend(group.all)
            continue
        try:
            kernels.joined.append(_join(group, folder, tracker))
            kernels.runs.append(read_run(folder))
        except TraceError as error:
            kernels.refused.append(f"{folder.name} is not joined: {error}")
            kernels.runs.append(Run(folder, group.config, missing=kernels.refused[-1]))
        except InputError as error:  # an analysis failed; the joined run holds the results of the others
            kernels.refused.append(str(error))
            kernels.runs.append(read_run(folder))
    if not kernels.joined and len([run for run in runs if not run.missing]) < 2:
        raise TraceError("\n".join(kernels.refused))
    return kernels


def _nothing_to_join(runs: Sequence[Run]) -> InputError:
    lines = differing_settings([run.config for run in runs], [run.folder.name for run in runs])
    remedy = f"they differ in {'; '.join(lines)}" if lines else "give those of all its jobs"
    these = f"no two of these {len(runs)} runs" if len(runs) > 1 else "no other run than this one"
    return InputError(f"{these} sampled chains of one kernel: {remedy}")


def _join(group: joined_runs.JoinedRuns, folder: Path, tracker: Callable[[Path], Tracker]) -> joined_runs.JoinedKernel:
    if group.waiting:
        unfinished = "; ".join(shortened([f"{run.folder}: {joined_runs.why_waiting(run)}" for run in group.waiting]))
        raise TraceError(f"{unfinished}; continue what is unfinished, then join again")
    return joined_runs.join_runs(group.runs, folder, _analyses_of, tracker)


def _analyses_of(config: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    return build_analyses(OmegaConf.create(dict(config)), labels)


def _folders(groups: Sequence[joined_runs.JoinedRuns], home: Path) -> list[Path]:
    """Return each kernel's folder: the one where it was joined before, or one that is free."""
    before = [read_run(path.parent) for path in sorted(home.glob("*/config.yaml"))]
    taken = {run.folder.name for run in before}
    folders = []
    for group, name in zip(groups, joined_runs.folder_names(groups), strict=True):
        # The same kernel keeps its folder, and with it its W&B run, when further chains are joined.
        same = next((run.folder.name for run in before if group.has_kernel_of(run)), None)
        names = (name if number == 1 else f"{name}-{number}" for number in count(1))
        folders.append(home / (same or next(free for free in names if free not in taken)))
        taken.add(folders[-1].name)
    return folders
