"""Chains across jobs, from the command line: runs that sampled parts of one kernel become one run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from losskernel.cli.build import questions
from losskernel.cli.summary import summary
from losskernel.errors import InputError, TraceError
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sweeps.joined_runs import (
    JoinedKernel,
    JoinedRuns,
    folder_names,
    group_by_kernel,
    join_runs,
    why_waiting,
)
from losskernel.sweeps.read_runs import HOME as HOME
from losskernel.sweeps.read_runs import Run, read_run
from losskernel.traces.compatibility import differing_settings, shortened


@dataclass(frozen=True)
class Together:
    """Runs of whole kernels.

    Attributes:
        runs: joined ones, and those that were alone; one that cannot be joined yet has no result.
        joined: what was joined.
        refused: what was not, and why, a line each.
    """

    runs: list[Run]
    joined: list[JoinedKernel]
    refused: list[str]

    def words(self) -> str:
        """Return what was joined; of a kernel that is alone also what it shows."""
        lines = [each.words() for each in self.joined]
        if len(self.runs) == len(self.joined) == 1:
            label = self.runs[0].config.get("label")
            lines.append(summary(self.joined[0].outcome, str(label)))
        return "\n".join(lines)


def together(runs: Sequence[Run], home: Path, tracker: Callable[[Path], Tracker]) -> Together:
    """Join runs that sampled chains of one kernel, each kernel in a folder of its own.

    Raises:
        InputError: no two runs are of one kernel.
        TraceError: the folder cannot be written; or nothing is joined, and fewer than two runs have results to show.
    """
    groups = group_by_kernel(runs)
    several = [group for group in groups if len(group.all) > 1]
    if not several:
        lines = differing_settings([run.config for run in runs], [run.folder.name for run in runs])
        told = f"they differ in {'; '.join(lines)}" if lines else "give those of all its jobs"
        these = f"no two of these {len(runs)} runs" if len(runs) > 1 else "no other run than this one"
        raise InputError(f"{these} sampled chains of one kernel: {told}")
    folders = dict(zip(map(id, several), _folders(several, home), strict=True))
    found: list[Run] = []
    joined: list[JoinedKernel] = []
    refused: list[str] = []
    for group in groups:
        folder = folders.get(id(group))
        if folder is None:
            found += group.all
            continue
        try:
            joined.append(_joined(group, folder, tracker))
            found.append(read_run(folder))
        except TraceError as error:
            refused.append(f"{folder.name} is not joined: {error}")
            found.append(Run(folder, group.config, missing=refused[-1]))
        except InputError as error:  # an analysis broke; the others' answers are there
            refused.append(str(error))
            found.append(read_run(folder))
    if not joined and len([run for run in runs if not run.missing]) < 2:
        raise TraceError("\n".join(refused))
    return Together(found, joined, refused)


def _joined(group: JoinedRuns, folder: Path, tracker: Callable[[Path], Tracker]) -> JoinedKernel:
    if group.waiting:
        told = "; ".join(shortened([f"{run.folder}: {why_waiting(run)}" for run in group.waiting]))
        raise TraceError(f"{told}; continue what is unfinished, then join again")

    def asked(config: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
        return questions(OmegaConf.create(dict(config)), labels)

    return join_runs(group.runs, folder, asked, tracker)


def _folders(groups: Sequence[JoinedRuns], home: Path) -> list[Path]:
    """Return each kernel's folder: the one where it was joined before, or one that is free."""
    before = [read_run(made.parent) for made in sorted(home.glob("*/config.yaml"))]
    taken = {run.folder.name for run in before}
    found = []
    for group, name in zip(groups, folder_names(groups), strict=True):
        own = next((run.folder.name for run in before if group.has_kernel_of(run)), None)
        names = (name if number == 1 else f"{name}-{number}" for number in count(1))
        found.append(home / (own or next(each for each in names if each not in taken)))
        taken.add(found[-1].name)
    return found
