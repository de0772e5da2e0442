"""Lightning callbacks that report a run's progress: how far, how fast, how long yet, and the diagnosis so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from losskernel.kernel.diagnosis.diagnose import ENOUGH, Interim, interim
from losskernel.kernel.diagnosis.statistics import load_arviz
from losskernel.runs.status.status_file import RunStatus
from losskernel.sampling.chains import STEP_CHECKS, Stride
from losskernel.sampling.setup import Schedule
from losskernel.storage.locations import locate
from losskernel.training.progress import MINUTE, Pace, lasting, rate

_EVERY = 1.0  # seconds between two updates of the status
_DIAGNOSIS_EVERY = 30.0  # seconds between two diagnoses
_SOON = 5.0  # seconds where the draws have doubled since the last one
_SHARE = 200  # the least time between two, in units of the time that the last one took: at most 0.5 % of the run


class ProgressCallback(pl.Callback):
    """Updates the status at most once a second, and logs a line once a minute.

    Args:
        status: of the run; its clock measures all progress.
        state: file or URL of the checkpoint from which a killed run would resume.
    """

    speaks: ClassVar[bool] = True  # the progress bar then writes no lines of its own to a log

    def __init__(self, status: RunStatus, state: Path | str | None = None) -> None:
        self._status, self._state = status, state

    def _start(self) -> None:
        if self._state is not None:
            self._status.follow_checkpoint(locate(self._state).modified)
        self._started = self._updated = self._logged = self._status.clock()

    def _update(self, now: float, facts: dict[str, Any], line: Callable[[], str]) -> None:
        self._updated = now
        self._status.update(**facts)
        if now - self._logged >= MINUTE:
            self._logged = now
            self._status.log(line())

    def _restart(self) -> str:
        return f", restart {self._status.restarts}" if self._status.restarts else ""


class TrainingCallback(ProgressCallback):
    """Reports the progress of training.

    Args:
        status, state: as of ProgressCallback.
        steps: of training.
    """

    def __init__(self, status: RunStatus, steps: int, state: Path | str | None = None) -> None:
        super().__init__(status, state)
        self._steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self._start()
        self._pace, self._done = Pace(), pl_module.step
        resumed = f"continued at step {pl_module.step:,} of {self._steps:,}{self._restart()}"
        self._status.log(f"training: {resumed if pl_module.step else f'{self._steps:,} steps'}")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Report the step, at intervals."""
        now, step = self._status.clock(), pl_module.step
        if now - self._updated < _EVERY:
            return
        self._pace.note(now - self._updated, step - self._done)
        self._done, left = step, (self._steps - step) * (self._pace.seconds_per_unit or 0.0)
        # Sampling and analyses follow, which nobody has timed yet: the seconds left are a lower bound.
        facts = {"step": step, "steps": self._steps, "seconds_left": left, "at_least": True}
        self._update(now, facts, lambda: f"training: {step:,} of {self._steps:,} steps, {lasting(left)} left")

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the duration."""
        if pl_module.step >= self._steps:
            self._status.log(f"trained in {lasting(self._status.clock() - self._started)}")


@dataclass(frozen=True)
class SamplingProgress:
    """The progress of one kernel's chains, which are sampled in stacks, one after another.

    Attributes:
        schedule: lengths.
        first: number of the kernel's first chain.
        chains: numbers of the chains of the present stack; all earlier chains are complete.
        step: steps that the present stack has taken.
    """

    schedule: Schedule
    first: int
    chains: Sequence[int]
    step: int

    @property
    def stack_draws(self) -> int:
        """Draws of each chain of the present stack."""
        return max(0, self.step - self.schedule.burn_in) // self.schedule.thinning

    @property
    def draws(self) -> int:
        """Draws of all chains, those of complete stacks included."""
        return (self.chains[0] - self.first) * self.schedule.draws + len(self.chains) * self.stack_draws

    @property
    def total(self) -> int:
        """Draws of all chains in the end."""
        return self.schedule.chains * self.schedule.draws

    @property
    def burning_in(self) -> bool:
        """Whether the present stack has not finished its burn-in."""
        return self.step < self.schedule.burn_in

    def seconds_left(self, step: float, draw: float, checks: float, further_kernels: int) -> float:
        """Return the seconds left; the cost of stacks to come is that of the present one per chain.

        Args:
            step: seconds per step of burn-in.
            draw: seconds per draw.
            checks: seconds of the step checks of the present stack.
            further_kernels: kernels of the same cost that follow.
        """
        schedule = self.schedule
        remaining_steps, remaining_draws = max(0, schedule.burn_in - self.step), schedule.draws - self.stack_draws
        this_stack = remaining_steps * step + remaining_draws * draw + checks
        full_stack = schedule.burn_in * step + schedule.draws * draw + checks
        later_chains = self.first + schedule.chains - 1 - self.chains[-1] + further_kernels * schedule.chains
        return this_stack + full_stack * later_chains / len(self.chains)

    def __str__(self) -> str:
        last = self.first + self.schedule.chains - 1
        stack = f"chains {self.chains[0]}-{self.chains[-1]}" if len(self.chains) > 1 else f"chain {self.chains[0]}"
        if self.first == 0:
            return f"{stack} of {self.schedule.chains}"
        return stack if len(self.chains) == self.schedule.chains else f"{stack} of {self.first}-{last}"


class SamplingCallback(ProgressCallback):
    """Reports the progress of one kernel's chains; one callback serves all stacks of the kernel.

    Args:
        status, state: as of ProgressCallback.
        schedule: lengths of the run.
        kernel: name of the kernel, "" for the run's own.
        first: number of the first chain.
        further_kernels: kernels of the same cost that are known to follow.
        open_ended: whether still other kernels may follow.
    """

    def __init__(
        self,
        status: RunStatus,
        schedule: Schedule,
        kernel: str = "",
        *,
        first: int = 0,
        further_kernels: int = 0,
        open_ended: bool = False,
        state: Path | str | None = None,
    ) -> None:
        super().__init__(status, state)
        self._schedule, self._kernel, self._first = schedule, kernel, first
        self._further_kernels, self._open_ended = further_kernels, open_ended
        self._step, self._draw, self._checks = Pace(), Pace(), Pace()
        self._drawing = self._checking = 0.0  # seconds, of all stacks of this process
        self._diagnosis = InterimDiagnosis(schedule.draws, status.clock)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clock of a stack, which may resume an interrupted one."""
        self._start()
        self._before, self._whole = self._started, pl_module.step == 0
        self._check_gradients = pl_module.effort.gradients(self._schedule.batch_size)
        nbeta = getattr(trainer.optimizers[0], "nbeta", None)
        loss_scale = None if nbeta is None else 2 * nbeta / pl_module.weights.shape[1]
        self._diagnosis.start_stack(pl_module.chain_numbers, loss_scale, at_start=pl_module.step == 0)
        progress, schedule = self._progress(pl_module), self._schedule
        lengths = f"{schedule.burn_in:,} steps of burn-in, then {schedule.draws:,} draws each"
        if pl_module.step:
            lengths = f"continued at {progress.draws:,} of {progress.total:,} draws{self._restart()}"
        self._status.log(f"{self._prefix()}{progress}: {lengths}")
        self._status.update(**self._facts(progress))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Stride, batch_idx: int) -> None:
        """Report that step checks begin, which take longer than a draw."""
        if batch == STEP_CHECKS:
            self._status.update(**self._facts(self._progress(pl_module), ", checking steps"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Stride, batch_idx: int
    ) -> None:
        """Report the draw, at intervals."""
        before, self._before = self._before, self._status.clock()
        passed = self._before - before
        if batch == STEP_CHECKS:  # the last batch of a stack
            self._checks.note(passed, 1)
            self._checking += passed * self._whole
            self._finish_stack(self._progress(pl_module), passed)
            return
        self._drawing += passed * self._whole  # what an earlier process drew is not known
        self._draw.note(passed, 1) if batch.record else self._step.note(passed, batch.steps)
        self._diagnosis.add(outputs)
        if self._before - self._updated >= _EVERY:
            progress = self._progress(pl_module)
            self._diagnosis.refresh()
            self._update(self._before, self._facts(progress), lambda: self._line(progress))

    def _finish_stack(self, progress: SamplingProgress, checking: float) -> None:
        self._diagnosis.refresh(force=True)
        self._diagnosis.finish_stack()
        self._status.update(**self._facts(progress))
        if self._drawing > 0 and not self._kernel:
            self._status.update(checking_to_drawing=self._checking / self._drawing)
        duration = f"{lasting(self._before - self._started)}, {lasting(checking)} of it checking the steps"
        self._status.log(f"{self._prefix()}{progress}: drawn and checked in {duration}{self._so_far()}")

    def _progress(self, module: Any) -> SamplingProgress:
        return SamplingProgress(self._schedule, self._first, module.chain_numbers, module.step)

    def _speed(self, progress: SamplingProgress) -> float | None:
        """Return draws per second of all chains of the stack; None before the first draw."""
        return len(progress.chains) / self._draw.seconds_per_unit if self._draw.seconds_per_unit else None

    def _seconds_left(self, progress: SamplingProgress) -> float | None:
        # Before the first draw its probes' forward passes are unknown: burn-in steps then give a lower bound. After a
        # resume within the draws no burn-in step was timed: thinning steps of a draw stand for it.
        step = self._step.seconds_per_unit or (self._draw.seconds_per_unit or 0.0) / self._schedule.thinning
        draw = self._draw.seconds_per_unit or step * self._schedule.thinning
        checks = self._checks.seconds_per_unit or self._check_gradients * step
        return progress.seconds_left(step, draw, checks, self._further_kernels) if draw else None

    def _facts(self, progress: SamplingProgress, task: str = "") -> dict[str, Any]:
        latest = self._diagnosis.latest
        # `so_far` speaks of the run's own kernel alone; that of a control or a point's kernel must not replace it.
        so_far = "so_far_aside" if self._kernel else "so_far"
        return {
            "doing": f"{self._prefix()}{progress}{task or ', burn-in' * progress.burning_in}",
            "kernel": self._kernel,
            "chains": [progress.chains[0], progress.chains[-1]],
            "step": progress.step,
            "steps": self._schedule.steps,
            "draws": progress.draws,
            "of": progress.total,
            "draws_per_second": self._speed(progress),
            "seconds_left": self._seconds_left(progress),
            "at_least": self._open_ended or self._draw.seconds_per_unit is None,
            so_far: None if latest is None else {"of": "the probes' mean loss", **asdict(latest)},
        }

    def _line(self, progress: SamplingProgress) -> str:
        speed, left = self._speed(progress), self._seconds_left(progress)
        parts = [f"{progress.draws:,} of {progress.total:,} draws"]
        if progress.burning_in:
            parts.append(f"burn-in, step {progress.step:,} of {self._schedule.burn_in:,}")
        parts += [] if speed is None else [f"{rate(speed)} draws/s"]
        parts += [] if left is None else [f"{'at least ' * (self._open_ended or speed is None)}{lasting(left)} left"]
        return f"{self._prefix()}{progress}: {', '.join(parts)}{self._so_far()}"

    def _so_far(self) -> str:
        latest = self._diagnosis.latest
        return "" if latest is None else f"; mean loss so far: {latest.words}"

    def _prefix(self) -> str:
        return f"{self._kernel}: " if self._kernel else ""


# The diagnosis of an unfinished run: often enough to be useful, rarely enough to cost nothing.


class InterimDiagnosis:
    """Collects three numbers per draw and chain, and diagnoses them at intervals.

    The numbers are the probes' mean loss, the minibatch loss and the distance from w*. Draws from before an
    interruption are not among them, since the trace on disk is not read back.

    Args:
        draws: of each chain in the end.
        clock: seconds that pass.

    Attributes:
        latest: the last diagnosis; None before the first.
    """

    def __init__(self, draws: int, clock: Callable[[], float]) -> None:
        self._total, self._clock = draws, clock
        self._finished: list[tuple[Sequence[int], np.ndarray]] = []  # complete stacks: their chains, [C, D, 3]
        self.latest: Interim | None = None

    def start_stack(self, chains: Sequence[int], loss_scale: float | None, at_start: bool) -> None:
        """Begin a stack of chains.

        Args:
            chains: their numbers.
            loss_scale: 2 nbeta / P, which turns an excess loss into units of its stationary mean; None if unknown.
            at_start: whether the chains are still at w*.
        """
        self._chains, self._loss_scale, self._at_start = chains, loss_scale, at_start
        self._draws: list[list[Tensor]] = []  # three tensors [C] each
        self._start_loss: float | None = None
        self._last_time, self._last_count, self._cost = self._clock(), 0, 0.0

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Add the outputs of a stride, a draw or burn-in steps."""
        if self._at_start:
            # After one stride the chains have hardly left w*, so this overestimates the loss there, if anything:
            # the excess loss is never exaggerated.
            self._start_loss, self._at_start = float(outputs["train_loss"].mean()), False
        if "losses" in outputs:
            values = (outputs["losses"].mean(1), outputs["train_loss"], outputs["distance"])
            self._draws.append([value.cpu() for value in values])

    def finish_stack(self) -> None:
        """Keep the draws of a complete stack."""
        if len(self._draws) == self._total:
            self._finished.append((self._chains, self._observed()))

    def refresh(self, force: bool = False) -> None:
        """Diagnose the draws so far, if the interval has passed.

        Args:
            force: diagnose even if it has not.
        """
        waited, doubled = self._clock() - self._last_time, len(self._draws) >= 2 * self._last_count
        due = waited >= (_SOON if doubled else _DIAGNOSIS_EVERY) and waited >= _SHARE * self._cost
        if len(self._draws) >= ENOUGH and (due or force):
            load_arviz()  # takes seconds, once; the final diagnosis needs it anyway, so it does not count as cost
            began = self._clock()
            self.latest = self._diagnose()
            self._last_time, self._last_count = self._clock(), len(self._draws)
            self._cost = self._last_time - began

    def _diagnose(self) -> Interim:
        # One chain alone can only be split in halves. Two complete chains say more: whether they agree.
        if len(self._chains) > 1 or len(self._finished) < 2:
            observed = self._observed()
            excess = float("nan")
            if self._start_loss is not None and self._loss_scale is not None:
                excess = (observed[:, :, 1].mean() - self._start_loss) * self._loss_scale
            return interim(observed, self._total, self._chains, float(excess))
        chains = [chain for stack, _ in self._finished for chain in stack]
        return interim(np.concatenate([observed for _, observed in self._finished]), self._total, chains)

    def _observed(self) -> np.ndarray:
        flat = torch.stack([value for draw in self._draws for value in draw])  # [3 D, C]
        return flat.double().numpy().reshape(len(self._draws), 3, -1).transpose(2, 0, 1)  # [C, D, 3]
