"""Stacked chains as a LightningModule, and the callback that records them.

Module = target distribution, optimiser = transition kernel, callback = observation.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from losskernel.data.base import size
from losskernel.data.loading import NOISE, BlockLoader, MinibatchIndices, MinibatchLoader, generator
from losskernel.errors import DivergenceError, Interrupted
from losskernel.models.evaluation_copy import evaluation_copy
from losskernel.sampling.engine.stacked_model import LARGEST, StackedModel
from losskernel.sampling.samplers.base import Sampler
from losskernel.sampling.setup import Schedule, Setup
from losskernel.sampling.step_checks import StepChecks, effort_for
from losskernel.traces.records import PRECISION_CHECKS

# Noise is drawn in blocks of about this many numbers per chain: one call then serves many steps of a small model, and
# a single step of a large one. Another length gives every chain other noise, hence other draws.
BLOCK_NUMBERS = 8192


class Stride(NamedTuple):
    """One Lightning batch: some sampler steps, and whether the probes' losses are recorded after them."""

    steps: int
    record: bool


# The last batch, without steps of its own: the step size is checked at the chains' last draws.
STEP_CHECKS = Stride(0, False)


def strides(schedule: Schedule) -> list[Stride]:
    """Return the batches of one fit: burn-in in pieces of `thinning` steps, one batch a draw, and the step checks."""
    whole, rest = divmod(schedule.burn_in, schedule.thinning)
    burn_in = [Stride(rest, False)] * (rest > 0) + [Stride(schedule.thinning, False)] * whole
    return [*burn_in, *[Stride(schedule.thinning, True)] * schedule.draws, STEP_CHECKS]


class StepChecksInterrupted(Interrupted):
    """A signal arrived during the step checks. All draws are saved; a resumed run repeats the checks."""


class NoiseStream:
    """Standard normal numbers [C, P], one set a step; a chain's do not depend on the chains beside it.

    Args:
        seed: of the run.
        chains: numbers of the chains.
        like: weights [C, P] that the numbers are for.
    """

    def __init__(self, seed: int, chains: Sequence[int], like: Tensor) -> None:
        length = max(1, min(64, BLOCK_NUMBERS // like.shape[1]))
        self._block = torch.empty(len(chains), length, like.shape[1], dtype=like.dtype, device=like.device)
        self._begin: Callable[[], list[torch.Generator]] = lambda: [
            generator(seed, NOISE, chain, like.device) for chain in chains
        ]
        self._generators, self._before, self._next = self._begin(), [], length

    def __call__(self, _: Tensor | None = None) -> Tensor:
        """Return the next step's numbers."""
        if self._next == self._block.shape[1]:
            self._draw()
        self._next += 1
        return self._block[:, self._next - 1]

    def _draw(self) -> None:
        self._before = [stream.get_state() for stream in self._generators]
        for row, stream in zip(self._block, self._generators, strict=True):
            row.normal_(generator=stream)
        self._next = 0

    def state(self) -> dict[str, Any]:
        """Return the generators' states before the current block, none before the first, and the position in it."""
        return {"generators": self._before, "next": self._next}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._generators = self._begin()
        if state["generators"]:
            for stream, before in zip(self._generators, state["generators"], strict=True):
                stream.set_state(before)
            self._draw()  # draws the interrupted block again
        self._next = state["next"]


class Chains(pl.LightningModule):
    """Chains that are stacked in one buffer of weights [C, P] and advance together.

    Args:
        setup: model, data, sampler, schedule; its seed and a chain's number fix all of the chain's randomness.
        chains: numbers of the chains in this stack.
        block: probes evaluated at once; None takes the schedule's.
        resume: state of an interrupted stack, from `state()`.
        stack: the same model stacked as often, if there is one: its recorded operations are shared.

    Attributes:
        stop: called during the step checks, which take long; a signal number ends them with StepChecksInterrupted.
    """

    def __init__(
        self,
        setup: Setup,
        chains: Sequence[int],
        block: int | None = None,
        resume: dict[str, Any] | None = None,
        stack: StackedModel | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # In a tuple, so that Lightning neither moves the template nor switches it to training mode.
        self._stack = (stack or StackedModel(setup.model, setup.data.loss, len(chains), setup.moving),)
        start = self._stack[0].start
        self.weights = nn.Parameter(start.repeat(len(chains), 1))
        self._start = start
        self._setup, self.chain_numbers, self._resume = setup, list(chains), resume
        self.step = 0 if resume is None else int(resume["step"])
        self.probes = size(setup.data.probes)
        self.effort = effort_for(self._stack[0], setup.schedule, self.probes)
        self.stop: Callable[[], int] = lambda: 0
        block = block or setup.schedule.probe_batch_size or LARGEST
        self.block = block if resume is None else int(resume["block"])
        precision = setup.schedule.probe_precision
        self._lowered = None if precision == "float32" else getattr(torch, precision)

    def configure_optimizers(self) -> Sampler:
        """Return the sampler, built at the first call: the weights must be w*, on the device where they will run."""
        if not hasattr(self, "_optimizer"):
            self._noise = NoiseStream(self._setup.seed, self.chain_numbers, self.weights)
            self._optimizer = self._setup.sampler([self.weights], noise=self._noise)
            if self._resume is not None:
                self.restore(self._resume)
        return self._optimizer

    def on_fit_start(self) -> None:
        """Move data and frozen weights to the chains' device."""
        setup, data, device = self._setup, self._setup.data, self.weights.device
        self._start = self._start.to(device)
        self._stack[0].to(device)
        self._views = self._stack[0].views(self.weights.detach())
        batch_size = setup.schedule.batch_size
        indices = MinibatchIndices(setup.seed, self.chain_numbers, size(data.train), batch_size, self.step)
        self._minibatches = MinibatchLoader(data, indices, device)
        self._probes = BlockLoader(data.probes, self.block, data.workers, device)

    def teardown(self, stage: str) -> None:
        """End the processes that load minibatches, which Lightning's references would keep alive."""
        self._minibatches.close()

    def training_step(self, stride: Stride, _: int) -> dict[str, Tensor]:
        """Advance every chain by a stride; return the observations after it, [C] or [C, N]."""
        stack, views, weights = self._stack[0], self._views, self.weights
        if stride == STEP_CHECKS:
            return self._check_steps()
        losses: list[Tensor] = []
        gradient = weights.detach()
        for _ in range(stride.steps):
            gradient, loss = stack.gradient(views, *self._minibatches())
            weights.grad = gradient
            self._optimizer.step()
            self.step += 1
            losses.append(loss)
        steps = torch.stack(losses)  # [steps, C]
        observed = {
            "train_loss": steps.mean(0),
            "distance": (weights.detach() - self._start).norm(dim=1),
            "gradient_norm": gradient.norm(dim=1),
        }
        if stride.record:
            observed["losses"] = self.probe_losses(self._lowered)
        # One transfer from the device instead of many: a sum is finite only if every term is.
        if not torch.stack([value.sum() for value in observed.values()]).sum().isfinite():
            self._report_divergence(steps, observed)
        return observed

    def probe_losses(self, lowered: torch.dtype | None, check_interrupt: Callable[[], None] = lambda: None) -> Tensor:
        """Return the losses [C, N] of all probes at the current weights, multiplied in a lower type if one is given.

        Blocks that do not fit into memory are halved. `check_interrupt` is called before each block and may raise.
        """
        while True:
            evaluate = self._stack[0].evaluator(self._views, lowered)
            try:
                losses: list[Tensor] = []
                for block in self._probes:
                    check_interrupt()
                    losses.append(evaluate(*block))
                return torch.cat(losses, dim=1)
            except torch.OutOfMemoryError:
                if self.block == 1:
                    raise
            self.block //= 2
            data = self._setup.data
            self._probes = BlockLoader(data.probes, self.block, data.workers, self.weights.device)

    def one_block(self) -> tuple[Callable[[], Tensor], int]:
        """Return how to evaluate one block of probes, and how many probes it has."""
        inputs, targets = next(iter(self._probes))
        return lambda: self._stack[0].evaluator(self._views, self._lowered)(inputs, targets), len(inputs)

    def _check_steps(self) -> dict[str, Tensor]:
        """Check the steps at the chains' last draws, and the precision of the probes' losses after further steps."""
        stack, weights, sampler = self._stack[0], self.weights, self._optimizer
        checks = StepChecks(
            stack, weights, self._start, sampler, self.effort, self._minibatches, self._noise, self._check_interrupt
        ).measured()
        if self._lowered is None:
            return checks
        errors: list[Tensor] = []
        for _ in range(PRECISION_CHECKS):
            for _ in range(self._setup.schedule.thinning):
                self._check_interrupt()
                weights.grad = stack.gradient(self._views, *self._minibatches())[0]
                sampler.step()
            lowered = self.probe_losses(self._lowered, self._check_interrupt)
            errors.append(lowered - self.probe_losses(None, self._check_interrupt))
        return checks | {"precision_noise": torch.stack(errors, dim=1)}

    def _check_interrupt(self) -> None:
        """Raise StepChecksInterrupted if a signal arrived."""
        # A GPU runs behind the calls: without waiting, a signal would be seen only when the queue is done.
        if self.weights.is_cuda:
            torch.cuda.synchronize(self.weights.device)
        if number := self.stop():
            self._minibatches.close()  # after an exception Lightning does not call `teardown`
            raise StepChecksInterrupted("stopped during the step checks", number)

    def _report_divergence(self, steps: Tensor, observed: dict[str, Tensor]) -> None:
        """Raise DivergenceError that names the first chain and step that left the finite numbers."""
        after = torch.stack([value.reshape(len(value), -1).sum(1) for value in observed.values()])
        bad = (~torch.cat([steps, after]).isfinite()).nonzero()  # rows: the stride's steps, then what followed
        row, chain = (int(number) for number in bad[0]) if len(bad) else (len(steps), 0)
        last = min(row, len(steps) - 1)
        self._blame_sample(self.step - len(steps) + last, chain)
        raise DivergenceError(
            f"chain {self.chain_numbers[chain]} left the finite numbers at step {self.step - len(steps) + last + 1} "
            f"(minibatch loss {steps[last, chain]:.3g}, |w - w*| {observed['distance'][chain]:.3g}); "
            f"lower sampler.step_size (now {self._optimizer.step_size:g}, try {self._optimizer.step_size / 10:.1g}) "
            f"or raise sampler.localization (now {self._optimizer.localization:g})"
        )

    def _blame_sample(self, step: int, chain: int) -> None:
        """Raise DivergenceError if a sample of a step's minibatch has no finite loss at w* either.

        The check before sampling sees a part of a large training set.
        """
        setup = self._setup
        samples, batch_size = size(setup.data.train), setup.schedule.batch_size
        rows = MinibatchIndices(setup.seed, self.chain_numbers, samples, batch_size, step)()[chain].tolist()
        device = self.weights.device
        (block,) = BlockLoader(Subset(setup.data.train, rows), len(rows), setup.data.workers, device)
        with torch.no_grad():
            losses = setup.data.loss(evaluation_copy(setup.model).to(device)(block[0]), block[1])
        for row, loss in zip(rows, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"the loss of training sample {row} at the trained weights is {loss}; check its input and target, "
                    "or leave it out"
                )

    def state(self) -> dict[str, Any]:
        """Return all that a bit-identical continuation needs; the minibatches follow from the step number."""
        # Clones, because the sampler changes its tensors in place; "start" is w*, which every process has.
        kept = {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in self._optimizer.state[self.weights].items()
            if key != "start"
        }
        return {
            "step": self.step,
            "block": self.block,
            "weights": self.weights.detach().cpu().clone(),
            "sampler": kept,
            "noise": self._noise.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a state: weights, what the sampler keeps, and the noise to come."""
        self.step = int(state["step"])
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self._noise.restore(state["noise"])
        kept = self._optimizer.state[self.weights]
        for key, value in state["sampler"].items():
            kept[key] = value.to(self.weights.device) if isinstance(value, Tensor) else value


class RecordLosses(pl.Callback):
    """Writes draws to a store, whole chunks at a time, with a state from which the run can be continued.

    Args:
        store: where arrays and state go.
        rows: the chains' rows in the store.
        state_every: seconds between states, the most that a kill can cost.
        stop: called after each batch and during the step checks; the number of a signal ends the run there.
        state: of an interrupted recorder, to continue from.
    """

    def __init__(
        self, store: Any, rows: slice, *, state_every: float, stop: Callable[[], int], state: dict[str, Any] | None
    ) -> None:
        self._store, self.rows, self._state_every, self._stop = store, rows, state_every, stop
        state = state or {"written": 0, "batches_done": 0, "pending": [], "burn_in": []}
        self.written, self.batches_done = state["written"], state["batches_done"]
        self._pending: list[dict[str, Tensor]] = list(state["pending"])
        self._burn_in: list[Tensor] = list(state["burn_in"])
        self._last_state, self._saved = time.monotonic(), self.batches_done

    @property
    def draws_done(self) -> int:
        """Draws of each chain recorded so far, written or pending."""
        return self.written + len(self._pending)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Stride, batch_idx: int) -> None:
        """Save a state before the step checks: a run stopped during them repeats the checks from there."""
        if batch == STEP_CHECKS:
            if self._saved != self.batches_done:
                self.save(pl_module)
            pl_module.stop = self._stop

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Stride, batch_idx: int
    ) -> None:
        """Keep the observations; write full chunks, and a state when it is due."""
        observed = {name: value.cpu() for name, value in outputs.items()}
        self.batches_done += 1
        if batch == STEP_CHECKS:
            self._store.write(self.rows, {name: value.numpy() for name, value in observed.items()}, 0)
        elif batch.record:
            self._pending.append(observed)
        else:
            self._burn_in.append(observed["train_loss"])
        full = len(self._pending) == self._store.chunk_draws
        if full:
            self.flush()
        stopping = self._stop()
        if full or stopping or time.monotonic() - self._last_state > self._state_every:
            self.save(pl_module)
        if stopping:
            trainer.should_stop = True

    def finish(self, chains: Chains) -> None:
        """Write the last, shorter chunk and the minibatch losses of burn-in."""
        self.flush()
        if self._burn_in:
            self._store.write(self.rows, {"burn_in_loss": torch.stack(self._burn_in, dim=1).numpy()}, 0)

    def flush(self) -> None:
        """Write the pending draws as one chunk."""
        if self._pending:
            stacked = {name: torch.stack([draw[name] for draw in self._pending], dim=1) for name in self._pending[0]}
            # [C, draws, ...]
            self._store.write(self.rows, {name: values.numpy() for name, values in stacked.items()}, self.written)
            self.written += len(self._pending)
            self._pending = []

    def save(self, chains: Any) -> None:
        """Save the state of chains and recorder together."""
        numbers = chains.chain_numbers
        self._store.save_state(
            {
                "chains": chains.state(),
                "rows": self.rows.start,
                "written": self.written,
                "batches_done": self.batches_done,
                "pending": self._pending,
                "burn_in": self._burn_in,
                "summary": f"chains {numbers[0]} to {numbers[-1]}: {self.draws_done} draws done",
            }
        )
        self._last_state, self._saved = time.monotonic(), self.batches_done
