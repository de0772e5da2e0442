"""Stacked chains as a LightningModule: module = target, optimiser = transition kernel, callback = observation."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from losskernel.data.base import Data
from losskernel.data.loading import BlockLoader, MinibatchLoader
from losskernel.errors import DivergenceError
from losskernel.judgement import judge
from losskernel.samplers.base import Sampler
from losskernel.schedule import Schedule
from losskernel.stacked import StackedModel
from losskernel.streams import MinibatchIndices, NoiseStream


class Stride(NamedTuple):
    """One Lightning batch: some sampler steps, and whether the probes are recorded after them.

    The stride without steps is the last: the chains are judged where they stand.
    """

    steps: int
    record: bool


JUDGE = Stride(0, False)


def strides(schedule: Schedule) -> list[Stride]:
    """Return the batches of one fit: burn-in in pieces of `thinning` steps, one batch a draw, and the judgement."""
    whole, rest = divmod(schedule.burn_in, schedule.thinning)
    burn_in = [Stride(rest, False)] * (rest > 0) + [Stride(schedule.thinning, False)] * whole
    return [*burn_in, *[Stride(schedule.thinning, True)] * schedule.draws, JUDGE]


class Chains(pl.LightningModule):
    """Chains that are stacked in one buffer of weights [C, P] and advance together.

    Args:
        model: the trained network, w*; copied.
        data: training set and probes.
        sampler: builds the Sampler from (params, noise).
        schedule: lengths.
        seed: with a chain's number it fixes all of the chain's randomness.
        chains: numbers of the chains in this stack.
        moving: names of the weights that move.
        resume: state of an interrupted stack, as `state()` gave it.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        sampler: Callable[..., Sampler],
        schedule: Schedule,
        seed: int,
        chains: Sequence[int],
        moving: Sequence[str],
        resume: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # In a tuple, so that Lightning neither moves the template nor switches it to training mode.
        self._stack = (StackedModel(model, data.loss, len(chains), moving),)
        start = self._stack[0].start
        self.weights = nn.Parameter(start.repeat(len(chains), 1))
        self._start = start
        self._data, self._sampler, self._schedule = data, sampler, schedule
        self._seed, self.chain_numbers, self._resume = seed, list(chains), resume
        self.step = 0 if resume is None else int(resume["step"])

    def configure_optimizers(self) -> Sampler:
        """Build the sampler on the chains' own device; w* are the weights as they are now."""
        self._noise = NoiseStream(self._seed, self.chain_numbers, self.weights)
        self._optimizer = self._sampler([self.weights], noise=self._noise)
        if self._resume is not None:
            self._restore(self._resume)
        return self._optimizer

    def on_fit_start(self) -> None:
        """Put data and frozen weights where the chains are."""
        schedule, device = self._schedule, self.weights.device
        self._start = self._start.to(device)
        self._stack[0].to(device)
        self._views = self._stack[0].views(self.weights.detach())
        train_size = len(self._data.train)  # pyright: ignore[reportArgumentType]
        indices = MinibatchIndices(self._seed, self.chain_numbers, train_size, schedule.batch_size, self.step)
        self._minibatches = MinibatchLoader(self._data, indices, device)
        self._probes = BlockLoader(self._data.probes, schedule.probe_batch_size, self._data.workers, device)

    def training_step(self, stride: Stride, _: int) -> dict[str, Tensor]:
        """Advance every chain by a stride; return what is observed after it, [C] or [C, N] each."""
        stack, views, weights = self._stack[0], self._views, self.weights
        if stride == JUDGE:
            return judge(stack, weights, self._start, self._optimizer, self._minibatches, self._noise)
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
            observed["losses"] = torch.cat([stack.losses(views, *block) for block in self._probes], dim=1)
        # One number says whether all are finite: a sum with any that is not is not.
        if not torch.stack([value.sum() for value in observed.values()]).sum().isfinite():
            self._report_divergence(steps, observed)
        return observed

    def _report_divergence(self, steps: Tensor, observed: dict[str, Tensor]) -> None:
        """Raise DivergenceError that names the first chain and step that left the finite numbers."""
        after = torch.stack([value.reshape(len(value), -1).sum(1) for value in observed.values()])
        bad = (~torch.cat([steps, after]).isfinite()).nonzero()  # rows: the stride's steps, then what followed
        row, chain = (int(number) for number in bad[0]) if len(bad) else (len(steps), 0)
        last = min(row, len(steps) - 1)
        raise DivergenceError(
            f"chain {self.chain_numbers[chain]} left the finite numbers at step {self.step - len(steps) + last + 1} "
            f"(minibatch loss {steps[last, chain]:.3g}, |w - w*| {observed['distance'][chain]:.3g}); "
            f"lower sampler.step_size (now {self._optimizer.step_size:g}, try {self._optimizer.step_size / 10:.1g}) "
            f"or raise sampler.localization (now {self._optimizer.localization:g})"
        )

    def state(self) -> dict[str, Any]:
        """Return all that a bit-identical continuation needs; minibatches follow from the step number."""
        own = self._optimizer.state[self.weights]
        kept = {key: value for key, value in own.items() if key != "start"}
        return {
            "step": self.step,
            "weights": self.weights.detach().cpu().clone(),
            "sampler": kept,
            "noise": self._noise.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self._noise.restore(state["noise"])
        own = self._optimizer.state[self.weights]
        for key, value in state["sampler"].items():
            own[key] = value.to(self.weights.device) if isinstance(value, Tensor) else value


class RecordLosses(pl.Callback):
    """Writes draws to a store, whole chunks at a time, with a state from which the run can be continued.

    Args:
        store: where arrays and state go.
        rows: the chains' places in the store.
        state_every: seconds between states; what a kill can cost.
        stop: asked after each batch; True ends the run between two draws.
        state: what an interrupted recorder saved, to go on from there.
    """

    def __init__(
        self,
        store: Any,
        rows: slice,
        *,
        state_every: float,
        stop: Callable[[], bool],
        state: dict[str, Any] | None,
    ) -> None:
        self._store, self._rows, self._state_every, self._stop = store, rows, state_every, stop
        state = state or {"written": 0, "batches_done": 0, "pending": [], "burn_in": []}
        self.written, self.batches_done = state["written"], state["batches_done"]
        self._pending: list[dict[str, Tensor]] = list(state["pending"])
        self._burn_in: list[Tensor] = list(state["burn_in"])
        self._last_state = time.monotonic()

    @property
    def draws_done(self) -> int:
        """Draws recorded so far, written or held."""
        return self.written + len(self._pending)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Stride, batch_idx: int
    ) -> None:
        """Keep what was observed; write full chunks, and the state when its time has come."""
        observed = {name: value.cpu() for name, value in outputs.items()}
        self.batches_done += 1
        if batch == JUDGE:
            self._store.write(self._rows, {name: value.numpy() for name, value in observed.items()}, 0)
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
        """Write the last, shorter chunk and the losses seen during burn-in; mark this stack as done."""
        self.flush()
        if self._burn_in:
            self._store.write(self._rows, {"burn_in_loss": torch.stack(self._burn_in, dim=1).numpy()}, 0)

    def flush(self) -> None:
        """Write the held draws as one chunk."""
        if self._pending:
            arrays = {name: _stack([draw[name] for draw in self._pending]) for name in self._pending[0]}
            self._store.write(self._rows, arrays, self.written)
            self.written += len(self._pending)
            self._pending = []

    def save(self, chains: Any) -> None:
        """Save the state of chains and recorder together."""
        self._store.save_state(
            {
                "chains": chains.state(),
                "rows": self._rows.start,
                "written": self.written,
                "batches_done": self.batches_done,
                "pending": self._pending,
                "burn_in": self._burn_in,
                "summary": f"chains {self._rows.start} to {self._rows.stop - 1}: {self.draws_done} draws done",
            }
        )
        self._last_state = time.monotonic()


def _stack(values: list[Tensor]) -> np.ndarray:
    return torch.stack(values, dim=1).numpy()  # [C, draws, ...]
