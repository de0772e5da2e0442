"""Which of the checkpoints that a run kept are looked at."""

from pathlib import Path
from typing import Any

from losskernel.errors import require


def kept_checkpoints(run: Path, asked: Any = "all") -> dict[str, str]:
    """Return the checkpoints kept along a run's training, in order: step-0000123 -> path.

    Args:
        run: the run's folder.
        asked: "all", "last", a step, or a list of steps.

    Raises:
        InputError: the run kept none, its training has not ended, or a step is not among them.
    """
    folder = run / "checkpoints"
    found = {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.pt"))}
    require(
        len(found) > 0,
        f"run={run} kept no checkpoints along its training; train it with training.checkpoints=8, not from checkpoint=",
    )
    require(
        (folder / "trained.pt").is_file(), f"run={run} has not ended its training; continue it with paths.run={run}"
    )
    if asked == "last":
        asked = [max(found)]
    steps = list(found) if asked == "all" else list(asked) if isinstance(asked, (list, tuple)) else [asked]
    known = ", ".join(map(str, found))
    for step in steps:
        there = isinstance(step, int) and not isinstance(step, bool) and step in found
        require(there, f"checkpoints={asked}: there is none of step {step}; choose all, last, or from [{known}]")
    require(len(steps) > 0, f"checkpoints=[] names none; choose all, last, or from [{known}]")
    return {found[step].stem: str(found[step]) for step in sorted(set(steps))}
