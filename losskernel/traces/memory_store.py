"""A trace in memory, with the interface of TraceStore, for a run that is not kept on disk."""

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import xarray as xr

from losskernel.traces.records import layout, region


class MemoryStore:
    """Keeps draws in memory."""

    def __init__(self) -> None:
        self.dataset = xr.Dataset()

    @property
    def exists(self) -> bool:
        """Whether it was created."""
        return bool(self.dataset.attrs)

    def locked(self) -> AbstractContextManager[None]:
        """Do nothing: no other process can write here."""
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
        """Create the arrays of `layout`, filled with NaN."""
        self.chunk_draws = shape[1]
        arrays = {
            name: (dimensions, np.full(extent, np.nan, dtype))
            for name, (dimensions, extent) in layout(shape, burn_in, checks).items()
        }
        self.dataset = coordinates.assign(arrays).assign_attrs(provenance=json.dumps(about), complete=False)

    def provenance(self) -> dict[str, Any]:
        """Return the run's provenance."""
        return json.loads(self.dataset.attrs["provenance"])

    def write(self, chains: slice, values: dict[str, np.ndarray], start: int) -> None:
        """Write values [chain, draw, ...] of some chains from draw `start` on, or [chain]."""
        for name, array in values.items():
            self.dataset[name].values[region(chains, start, array)] = array

    def save_state(self, state: dict[str, Any]) -> None:
        """Do nothing: memory is lost with the process, so there is nothing to resume from."""

    def finish(self) -> None:
        """Mark the trace complete."""
        self.dataset = self.dataset.assign_attrs(complete=True)
