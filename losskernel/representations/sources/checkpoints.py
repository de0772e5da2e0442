"""Which of the weights kept along training a source looks at, beside the trained ones."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from losskernel.errors import require
from losskernel.representations.baselines.collect import History

# "none", "all", or a list of steps.
Checkpoints = str | Sequence[int]


def require_checkpoints(key: str, asked: Any) -> None:
    """Raise InputError unless `asked` is "none", "all" or a list of steps."""
    listed = isinstance(asked, Sequence) and not isinstance(asked, str)
    steps = listed and all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in asked)
    require(asked in ("none", "all") or steps, f"{key} must be all, none or a list of steps, got {asked!r}")


def chosen_checkpoints(history: History, asked: Checkpoints, key: str) -> Iterator[tuple[int, nn.Module]]:
    """Yield (step, network) of the weights asked for, in the order of training, but for the trained ones.

    Raises:
        InputError: none were kept of a step.
    """
    if asked == "none" or len(asked) == 0:
        return
    kept = [step for step, _ in history.checkpoints()]
    steps = kept if isinstance(asked, str) else asked
    missing = [step for step in steps if step not in kept]
    known = ", ".join(map(str, kept)) or "none"
    require(not missing, f"{key}={asked}: the run kept {known}; raise training.checkpoints or name others")
    for step, network in history.checkpoints():
        if step in steps and step != history.step:  # the last that was kept is the trained network
            yield step, network
