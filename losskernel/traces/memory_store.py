"""A trace in memory, with the interface of TraceStore, for a run that is not kept on disk."""

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import xarray as xr

from losskernel.traces.records import Arrays, region


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

    def create(self, coordinates: xr.Dataset, about: dict[str, Any], arrays: Arrays, dtype: str) -> None:
        """Create the arrays of a layout, filled with NaN; `about` is the run's provenance."""
        # Memory needs no chunks: all draws are one.
        self.chunk_draws = arrays["losses"][1][1]
        empty = {name: (dimensions, np.full(shape, np.nan, dtype)) for name, (dimensions, shape) in arrays.items()}
        self.dataset = coordinates.assign(empty).assign_attrs(provenance=json.dumps(about), complete=False)

    def provenance(self) -> dict[str, Any]:
        """Return the run's provenance."""
        return json.loads(self.dataset.attrs["provenance"])

    def write(self, chains: slice, values: dict[str, np.ndarray], start: int) -> None:
        """Write values [chain, draw, ...] of some chains from draw `start` on, or [chain]."""
        for name, array in values.items():
            # Into the array itself: assignment through xarray would copy it for each draw.
            self.dataset[name].values[region(chains, start, array)] = array

    def save_state(self, state: dict[str, Any]) -> None:
        """Do nothing: memory is lost with the process, so there is nothing to resume from."""

    def finish(self) -> None:
        """Mark the trace complete."""
        self.dataset = self.dataset.assign_attrs(complete=True)
