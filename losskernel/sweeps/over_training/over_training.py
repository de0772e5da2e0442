"""dynamics(): the kernels at the checkpoints of one training run, side by side."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from losskernel.errors import require
from losskernel.runs.folder import Tracker
from losskernel.sweeps.around import look, read_jobs, side_by_side
from losskernel.sweeps.around.specs import specs_around
from losskernel.sweeps.compare import ALIKE, Comparison
from losskernel.sweeps.over_training.kernel_path import STEP, path_of
from losskernel.sweeps.over_training.levels import levels_of
from losskernel.sweeps.over_training.maps import maps_of

# Probes of which maps are made; the kernels' distances take as many.
LIMIT = 1000


def dynamics(
    folder: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Put the kernels sampled along a training run side by side; report.html, figures and tables in their folder.

    Args:
        folder: holds one run per checkpoint, in folders called step-0000123.
        metrics: what to draw against the step; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two checkpoints have a kernel, or a metric is not there.
        TraceError: a run's files are damaged, or the folder cannot be written.
    """
    folder = Path(folder)
    require(
        folder.is_dir(), f"{folder} is not a folder; give one of runs at checkpoints, as losskernel-dynamics leaves"
    )
    runs, looks = look(read_jobs(folder, STEP, step_of, lambda step: step), LIMIT)
    questions = [path_of, levels_of, partial(maps_of, looks=looks)]
    specs = specs_around(runs, metrics)
    return side_by_side("dynamics", runs, folder, specs, questions, alike=alike, tracker=tracker)


def step_of(folder: Path) -> int:
    """Return the training step of a job's checkpoint, by the job's name.

    Raises:
        InputError: the folder is none of a checkpoint.
    """
    found = re.fullmatch(r"step-(\d+)", folder.name)
    require(found is not None, f"{folder} must be called step-<number>, as losskernel-dynamics does; move it elsewhere")
    return int(found.group(1))  # pyright: ignore[reportOptionalMemberAccess]
