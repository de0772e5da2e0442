"""How a trained network came about: its kept checkpoints, and ways to train or sample again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from losskernel.data.base import Data
from losskernel.errors import require, require_number
from losskernel.representations.evaluation import device_of
from losskernel.traces.loss_traces import LossTraces

# Which kept checkpoints to look at: "none", "all", or a list of steps.
Checkpoints = str | Sequence[int]


@dataclass(frozen=True)
class History:
    """What baselines and sources may ask about a network's past.

    Attributes:
        retrain: (data, seed) -> another network trained the same way on other data, from its own initial weights; it
            can be pickled and sent to another process.
        checkpoints: -> (step, network) of the weights kept along training, in order; empty for a loaded network.
        folder: where a baseline may store expensive intermediate results, in a subfolder of its own.
        sample: (network, name below the folder, changed sampler settings) -> the traces of another loss kernel,
            sampled as the run's; a complete one is opened, an interrupted one resumed.
        step: of training at the trained network's weights; None for a loaded network.
    """

    retrain: Callable[[Data, int], nn.Module]
    checkpoints: Callable[[], Iterator[tuple[int, nn.Module]]]
    folder: Path
    sample: Callable[[nn.Module, str, Mapping[str, float]], LossTraces] | None = None
    step: int | None = None

    def trained_part(self, model: nn.Module, until: float = 1.0) -> Iterator[nn.Module]:
        """Yield the networks kept in the first `until` share of training's steps, on the device of `model`.

        The untrained weights of step 0 are left out; the last network kept marks the end of training.
        """
        device = device_of(model)
        # A first pass over the checkpoints for their steps: the networks are loaded one at a time.
        last = max((step for step, _ in self.checkpoints()), default=0)
        for step, network in self.checkpoints():
            if 0 < step <= until * last:
                yield network.to(device)

    def selected(self, checkpoints: Checkpoints, key: str) -> Iterator[tuple[int, nn.Module]]:
        """Yield (step, network) of the selected checkpoints in the order of training, without the trained network.

        Args:
            checkpoints: "none", "all" or a list of steps.
            key: config key that messages name.

        Raises:
            InputError: no weights were kept of a step.
        """
        if checkpoints == "none" or len(checkpoints) == 0:
            return
        kept = [step for step, _ in self.checkpoints()]
        steps = kept if isinstance(checkpoints, str) else checkpoints
        missing = [step for step in steps if step not in kept]
        known = ", ".join(map(str, kept)) or "none"
        require(not missing, f"{key}={checkpoints}: the run kept {known}; raise training.checkpoints or name others")
        for step, network in self.checkpoints():
            if step in steps and step != self.step:  # the last checkpoint is the trained network itself
                yield step, network


def require_checkpoints(key: str, value: Any) -> None:
    """Raise InputError unless a value is "none", "all" or a list of steps."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    steps = listed and all(isinstance(step, int) and not isinstance(step, bool) and step >= 0 for step in value)
    require(value in ("none", "all") or steps, f"{key} must be all, none or a list of steps, got {value!r}")


def require_share(key: str, until: object) -> None:
    """Raise InputError unless `until` is a share of training's steps."""
    require_number(key, until, above=0)
    require(until <= 1, f"{key} must be <= 1, got {until}; it is a share of training's steps")  # pyright: ignore


def require_kept(count: int, until: float = 1.0) -> None:
    """Raise InputError where training kept no weights early enough."""
    when = "along training" if until == 1 else f"in the first {until:.0%} of training"
    require(
        count > 0,
        f"no weights were kept {when}; set training.checkpoints=8 and train, for a loaded network has no past",
    )
