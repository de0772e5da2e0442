"""A run's signs of life while it trains and samples: how far, how fast, how long yet, and the verdict so far."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl

from losskernel.runs.status.interim_diagnosis import Glances
from losskernel.runs.status.status_file import Heartbeat
from losskernel.sampling.chains import STEP_CHECKS, Stride
from losskernel.sampling.schedule import Schedule
from losskernel.storage.locations import locate
from losskernel.training.progress import MINUTE, Pace, lasting, rate

_EVERY = 1.0  # seconds between two notes to the heart, which writes more seldom


class _Told(pl.Callback):
    """What signs of life have in common: seldom ones to the heart, more seldom ones to the log."""

    speaks: ClassVar[bool] = True  # a bar's own lines are not wanted beside these

    def __init__(self, heart: Heartbeat, state: Path | str | None, clock: Callable[[], float]) -> None:
        self._heart, self._state, self._clock = heart, state, clock

    def _begin(self) -> None:
        if self._state is not None:
            self._heart.watches(partial(written, self._state))
        self._began = self._noted = self._logged = self._clock()

    def _note(self, now: float, facts: dict[str, Any], words: Callable[[], str]) -> None:
        self._noted = now
        self._heart.beats(**facts)
        if now - self._logged >= MINUTE:
            self._logged = now
            self._heart.line(words())

    def _again(self) -> str:
        return f", restart {self._heart.restarts}" if self._heart.restarts else ""


def written(state: Path | str) -> float:
    """Return when a file, or what lies at a URL, was written; seconds since 1970.

    Raises:
        OSError: it is not there, or cannot be reached.
    """
    return locate(state).modified()


class BeatTraining(_Told):
    """Says after each step how far training has come.

    Args:
        heart: where to say it.
        steps: of training.
        state: file of the state from which training would go on.
        clock: seconds that go by.
    """

    def __init__(
        self, heart: Heartbeat, steps: int, state: Path | str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(heart, state, clock)
        self._steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin to measure."""
        self._begin()
        self._pace, self._done = Pace(), pl_module.step
        went_on = f"continued at step {pl_module.step:,} of {self._steps:,}{self._again()}"
        self._heart.line(f"training: {went_on if pl_module.step else f'{self._steps:,} steps'}")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Say it, if it is time."""
        now, step = self._clock(), pl_module.step
        if now - self._noted < _EVERY:
            return
        self._pace.note(now - self._noted, step - self._done)
        self._done, left = step, (self._steps - step) * (self._pace.each or 0.0)
        self._note(
            now,
            # Of what comes after training nothing is known yet.
            {"step": step, "steps": self._steps, "seconds_left": left, "at_least": True},
            lambda: f"training: {step:,} of {self._steps:,} steps, {lasting(left)} left",
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Say how long it took."""
        if pl_module.step >= self._steps:
            self._heart.line(f"trained in {lasting(self._clock() - self._began)}")


@dataclass(frozen=True)
class Standing:
    """A stack of chains at work; the chains before it have all their draws.

    Attributes:
        schedule: lengths.
        first: number of the kernel's first chain.
        chains: numbers of this stack's.
        step: steps that these have taken.
    """

    schedule: Schedule
    first: int
    chains: Sequence[int]
    step: int

    @property
    def own_draws(self) -> int:
        """Draws of each chain of this stack."""
        return max(0, self.step - self.schedule.burn_in) // self.schedule.thinning

    @property
    def draws(self) -> int:
        """Draws of all chains, stacks that are done among them."""
        return (self.chains[0] - self.first) * self.schedule.draws + len(self.chains) * self.own_draws

    @property
    def of(self) -> int:
        """Draws of all chains in the end."""
        return self.schedule.chains * self.schedule.draws

    @property
    def burning_in(self) -> bool:
        """Whether draws have not begun."""
        return self.step < self.schedule.burn_in

    def left(self, step: float, draw: float, judging: float, after: int) -> float:
        """Return the seconds that are left, stacks to come counted by their chains.

        Args:
            step: seconds a step of burn-in.
            draw: seconds from a draw to the next.
            judging: seconds of judging this stack.
            after: further kernels that cost the same.
        """
        schedule, count = self.schedule, len(self.chains)
        own = max(0, schedule.burn_in - self.step) * step + (schedule.draws - self.own_draws) * draw + judging
        stack = schedule.burn_in * step + schedule.draws * draw + judging
        later = self.first + schedule.chains - 1 - self.chains[-1]
        return own + stack * (later + after * schedule.chains) / count

    def __str__(self) -> str:
        last = self.first + self.schedule.chains - 1
        own = f"chains {self.chains[0]}-{self.chains[-1]}" if len(self.chains) > 1 else f"chain {self.chains[0]}"
        if self.first == 0:
            return f"{own} of {self.schedule.chains}"
        return own if len(self.chains) == self.schedule.chains else f"{own} of {self.first}-{last}"


class Beat(_Told):
    """Says after each stride how far the chains of one kernel have come; the same one for all its stacks.

    Args:
        heart: where to say it.
        schedule: lengths of the run.
        kernel: which of the run's kernels is sampled; "" for its own.
        first: number of the first chain.
        after: kernels of the same cost that are known to come.
        more: whether still others may come.
        state: file or URL of the state from which sampling would go on.
        clock: seconds that go by.
    """

    def __init__(
        self,
        heart: Heartbeat,
        schedule: Schedule,
        kernel: str = "",
        *,
        first: int = 0,
        after: int = 0,
        more: bool = False,
        state: Path | str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(heart, state, clock)
        self._schedule, self._kernel, self._first, self._after, self._more = schedule, kernel, first, after, more
        self._step, self._draw, self._judging = Pace(), Pace(), Pace()
        self._glances = Glances(schedule.draws, clock)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin to measure the speed, where an interrupted run goes on."""
        self._begin()
        self._before = self._began
        chains, nbeta = pl_module.chain_numbers, getattr(trainer.optimizers[0], "nbeta", None)
        per_loss = None if nbeta is None else 2 * nbeta / pl_module.weights.shape[1]
        self._glances.begin(chains, per_loss, pl_module.step == 0)
        now, schedule = self._standing(pl_module), self._schedule
        told = f"{schedule.burn_in:,} steps of burn-in, then {schedule.draws:,} draws each"
        if pl_module.step:
            told = f"continued at {now.draws:,} of {now.of:,} draws{self._again()}"
        self._heart.line(f"{self._of_kernel()}{now}: {told}")
        self._heart.beats(**self._facts(now))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Stride, batch_idx: int) -> None:
        """Say that the chains will be judged, which takes longer than a draw."""
        if batch == STEP_CHECKS:
            self._heart.beats(**self._facts(self._standing(pl_module), ", judging"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Stride, batch_idx: int
    ) -> None:
        """Say it, if it is time."""
        before, self._before = self._before, self._clock()
        passed = self._before - before
        if batch == STEP_CHECKS:
            self._judging.note(passed, 1)
            self._end(self._standing(pl_module))
            return
        self._draw.note(passed, 1) if batch.record else self._step.note(passed, batch.steps)
        self._glances.add(outputs)
        if self._before - self._noted >= _EVERY:
            now = self._standing(pl_module)
            self._glances.look()
            self._note(self._before, self._facts(now), lambda: self._words(now))

    def _end(self, now: Standing) -> None:
        """Say what all the draws of a stack look like."""
        self._glances.look(at_once=True)
        self._glances.end()
        self._heart.beats(**self._facts(now))
        took = lasting(self._before - self._began)
        self._heart.line(f"{self._of_kernel()}{now}: drawn and judged in {took}{self._so_far()}")

    def _standing(self, module: Any) -> Standing:
        return Standing(self._schedule, self._first, module.chain_numbers, module.step)

    def _speed(self, now: Standing) -> float | None:
        """Return draws a second, of all chains of the stack; None before the first."""
        return len(now.chains) / self._draw.each if self._draw.each else None

    def _left(self, now: Standing) -> float | None:
        """Return the seconds left; before the first draw, whose probes take their time, at least these."""
        step = self._step.each or (self._draw.each or 0.0) / self._schedule.thinning
        draw = self._draw.each or step * self._schedule.thinning
        return now.left(step, draw, self._judging.each or 0.0, self._after) if draw else None

    def _facts(self, now: Standing, judging: str = "") -> dict[str, Any]:
        found = self._glances.last
        # The run's own kernel is what its verdict is about, whatever else is sampled before or after.
        so_far = "so_far_aside" if self._kernel else "so_far"
        return {
            "doing": f"{self._of_kernel()}{now}{judging or ', burn-in' * now.burning_in}",
            "kernel": self._kernel,
            "chains": [now.chains[0], now.chains[-1]],
            "step": now.step,
            "steps": self._schedule.steps,
            "draws": now.draws,
            "of": now.of,
            "draws_per_second": self._speed(now),
            "seconds_left": self._left(now),
            "at_least": self._more or self._draw.each is None,
            so_far: None if found is None else {"of": "the probes' mean loss", **asdict(found)},
        }

    def _words(self, now: Standing) -> str:
        speed, left = self._speed(now), self._left(now)
        parts = [f"{now.draws:,} of {now.of:,} draws"]
        if now.burning_in:
            parts.append(f"burn-in, step {now.step:,} of {self._schedule.burn_in:,}")
        parts += [] if speed is None else [f"{rate(speed)} draws/s"]
        parts += [] if left is None else [f"{'at least ' * (self._more or speed is None)}{lasting(left)} left"]
        return f"{self._of_kernel()}{now}: {', '.join(parts)}{self._so_far()}"

    def _so_far(self) -> str:
        found = self._glances.last
        return "" if found is None else f"; mean loss so far: {found.words}"

    def _of_kernel(self) -> str:
        return f"{self._kernel}: " if self._kernel else ""
