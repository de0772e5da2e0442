"""The callback that writes what chains observe into a store, with states from which a run resumes."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from losskernel.sampling.chains import STEP_CHECKS, Chains, Stride


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
        self._store, self._rows, self._state_every, self._stop = store, rows, state_every, stop
        state = state or {"written": 0, "batches_done": 0, "pending": [], "burn_in": []}
        self.written, self.batches_done = state["written"], state["batches_done"]
        self._pending: list[dict[str, Tensor]] = list(state["pending"])
        self._burn_in: list[Tensor] = list(state["burn_in"])
        self._last_state, self._saved = time.monotonic(), self.batches_done

    @property
    def draws_done(self) -> int:
        """Draws of each chain recorded so far, written or pending."""
        return self.written + len(self._pending)

    def drawn(self, draws: int) -> int:
        """Return the draws of all chains recorded so far; chains of earlier stacks have `draws` each."""
        return self._rows.start * draws + (self._rows.stop - self._rows.start) * self.draws_done

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
        """Write the last, shorter chunk and the minibatch losses of burn-in."""
        self.flush()
        if self._burn_in:
            self._store.write(self._rows, {"burn_in_loss": torch.stack(self._burn_in, dim=1).numpy()}, 0)

    def flush(self) -> None:
        """Write the pending draws as one chunk."""
        if self._pending:
            arrays = {name: _stack([draw[name] for draw in self._pending]) for name in self._pending[0]}
            self._store.write(self._rows, arrays, self.written)
            self.written += len(self._pending)
            self._pending = []

    def save(self, chains: Any) -> None:
        """Save the state of chains and recorder together."""
        numbers = chains.chain_numbers
        self._store.save_state(
            {
                "chains": chains.state(),
                "rows": self._rows.start,
                "written": self.written,
                "batches_done": self.batches_done,
                "pending": self._pending,
                "burn_in": self._burn_in,
                "summary": f"chains {numbers[0]} to {numbers[-1]}: {self.draws_done} draws done",
            }
        )
        self._last_state, self._saved = time.monotonic(), self.batches_done


def _stack(values: list[Tensor]) -> np.ndarray:
    return torch.stack(values, dim=1).numpy()  # [C, draws, ...]
