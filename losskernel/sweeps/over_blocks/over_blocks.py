"""blockwise(): the kernels of single blocks of a network's weights, side by side."""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from losskernel.errors import require
from losskernel.runs.folder import Tracker
from losskernel.sweeps.around import JOBS, look, read_jobs, side_by_side
from losskernel.sweeps.around.specs import specs_around
from losskernel.sweeps.compare import ALIKE, Comparison
from losskernel.sweeps.over_blocks.blocks import WHOLE
from losskernel.sweeps.over_blocks.shares import BLOCK, coupled_groups, shares

# Probes behind means over groups and behind neighbours; the kernels' distances take as many.
LIMIT = 1000


def blockwise(
    folder: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Put the kernels of blocks of a network's weights side by side; report.html, figures and tables in their folder.

    Args:
        folder: holds one run per block, in a folder of the block's name; `jobs.json` there gives their order, the whole
            first. Without it the whole is the one called so.
        metrics: what to draw for each block; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two blocks have a kernel, or a metric is not there.
        TraceError: a run's files are damaged, or the folder cannot be written.
    """
    folder = Path(folder)
    require(folder.is_dir(), f"{folder} is not a folder; give one of runs of blocks, as losskernel-layers leaves")
    order = known_order(folder)
    runs, looks = look(read_jobs(folder, BLOCK, lambda path: path.name, partial(_place, order)), LIMIT)
    questions = [partial(coupled_groups, looks=looks), partial(shares, looks=looks, whole=order[0])]
    specs = specs_around(runs, metrics)
    return side_by_side("layers", runs, folder, specs, questions, alike=alike, tracker=tracker)


def known_order(folder: Path) -> list[str]:
    """Return the blocks' names in the order of the network, the whole first, as far as it is known."""
    path = folder / JOBS
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else [WHOLE]


def _place(order: Sequence[str], name: str) -> tuple[int, list[tuple[int, str]]]:
    parts = re.split(r"(\d+)", name)  # layers.10 comes after layers.9
    natural = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return (order.index(name) if name in order else len(order)), natural
