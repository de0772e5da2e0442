"""Kernels of one sweep around a run side by side: a comparison of its jobs, with findings of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from losskernel.runs.folder import Tracker
from losskernel.sweeps.compare import Comparison
from losskernel.sweeps.compare import side_by_side as compared
from losskernel.sweeps.finding import Finding
from losskernel.sweeps.metric_panels import Spec
from losskernel.sweeps.read_runs import Run

__all__ = ["Finding", "side_by_side"]


def side_by_side(
    name: str,
    runs: list[Run],
    folder: Path,
    specs: list[Spec],
    questions: Sequence[Callable[[Comparison], Finding]],
    *,
    alike: float,
    tracker: Tracker | None,
) -> Comparison:
    """Compare the jobs of a sweep, ask further questions of them, and leave report.html, figures and tables.

    Args:
        name: of the sweep, as in its title and `<name>.json`, which holds the numbers.
        runs: its jobs, with what was varied as the only key that differs.
        folder: where to write.
        specs: metrics to draw.
        questions: what else to ask.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two jobs have a result.
        TraceError: `folder` cannot be written.
    """
    return compared(
        runs,
        folder,
        lambda: specs,
        title=f"{runs[0].config.get('name', folder.parent.name)}: {name}",
        name=name,
        questions=questions,
        alike=alike,
        tracker=tracker,
    )
