"""What is recorded while chains are sampled: the arrays' names, dimensions and shapes; and the trace kept in memory."""

import json
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import xarray as xr

from losskernel.errors import require

_STORABLE = re.compile(r"[^/\\\x00-\x1f]{1,200}")
Arrays = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]  # name -> (dimensions, shape)
# Measured once per chain, at its end (sampling/step_checks.py).
CHAIN_RECORDS = ("curvature", "minibatch_variance", "step_inflation", "acceptance", "relaxation_rate")
# Draws of each chain at which losses are computed in full precision too, where the probes' precision is lower.
PRECISION_CHECKS = 5


def layout(shape: tuple[int, int, int], burn_in: int, checks: int = 0) -> Arrays:
    """Return name -> (dimensions, shape) of every array that grows while sampling.

    Args:
        shape: chains, draws and probes.
        burn_in: losses recorded during burn-in.
        checks: draws of each chain at which losses in a lower precision are compared with exact ones.
    """
    chains, draws, probes = shape
    # Every array starts with the chains, so that a stack of chains is written as one block of rows.
    arrays: Arrays = {"losses": (("chain", "draw", "probe"), shape)}
    for name in ("train_loss", "distance", "gradient_norm"):
        arrays[name] = (("chain", "draw"), (chains, draws))
    arrays |= dict.fromkeys(CHAIN_RECORDS, (("chain",), (chains,)))
    if burn_in:
        arrays["burn_in_loss"] = (("chain", "burn_in_batch"), (chains, burn_in))
    if checks:
        arrays["precision_noise"] = (("chain", "check", "probe"), (chains, checks, probes))
    return arrays


# Arrays and dimensions of a trace, and the file that describes a Zarr group.
_TAKEN = {name for array, (dimensions, _) in layout((1, 1, 1), 1, 1).items() for name in (array, *dimensions)}
_TAKEN |= {"start_losses", "thumbnails", "height", "width", "colour", "zarr.json"}


def check_label_names(names: Iterable[str]) -> None:
    """Raise InputError for labels of the probes whose names a trace cannot keep beside its own arrays."""
    for name in names:
        fits = _STORABLE.fullmatch(name) is not None and not name.startswith(("__", "."))
        require(
            fits and name not in _TAKEN,
            f"data.labels: {name!r} cannot name a label of the probes: "
            + ("the trace has an array of that name" if fits else "stores take no '/', '\\' or control characters")
            + "; rename it",
        )


def region(chains: slice, start: int, values: np.ndarray) -> tuple[slice, ...]:
    """Return where values [chain, ...] of some chains go in their array, from `start` on along its second axis."""
    return (chains,) if values.ndim == 1 else (chains, slice(start, start + values.shape[1]))


class MemoryStore:
    """A trace in memory, filled while chains are sampled; it is not kept on disk."""

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
