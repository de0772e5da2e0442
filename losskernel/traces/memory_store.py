"""The store's interface in memory, for a run that is not kept on disk."""

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import xarray as xr

from losskernel.traces.records import layout, place


class MemoryStore:
    """Keeps draws in memory."""

    def __init__(self) -> None:
        self.dataset = xr.Dataset()

    @property
    def exists(self) -> bool:
        """Whether it was laid out."""
        return bool(self.dataset.attrs)

    def alone(self) -> AbstractContextManager[None]:
        """No other process can write here."""
        return nullcontext()

    def create(
        self,
        coordinates: xr.Dataset,
        about: dict[str, Any],
        shape: tuple[int, int, int],
        burn_in: int,
        dtype: str,
        checks: int = 0,
    ) -> None:
        """Lay out empty arrays."""
        self.chunk_draws = shape[1]
        arrays = {
            name: (dimensions, np.full(extent, np.nan, dtype))
            for name, (dimensions, extent) in layout(shape, burn_in, checks).items()
        }
        self.dataset = coordinates.assign(arrays).assign_attrs(provenance=json.dumps(about), complete=False)

    def provenance(self) -> dict[str, Any]:
        """Return what is stored about the run."""
        return json.loads(self.dataset.attrs["provenance"])

    def write(self, chains: slice, values: dict[str, np.ndarray], start: int) -> None:
        """Write arrays [chain, draw, ...] of some chains from draw `start` on, or [chain] ones."""
        for name, array in values.items():
            self.dataset[name].values[place(chains, start, array)] = array

    def save_state(self, state: dict[str, Any]) -> None:
        """Memory is lost with the process; there is nothing to continue from."""

    def finish(self) -> None:
        """Mark the trace complete."""
        self.dataset = self.dataset.assign_attrs(complete=True)
