"""Other representations of the probes, computed once at the trained weights and kept beside the traces."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from torch import nn

from losskernel.data.base import Data
from losskernel.errors import InputError, TraceError, require
from losskernel.store import guard, known_types

# Name -> rows [N, d] of a model on the probes of some data.
Baselines = Mapping[str, Callable[[nn.Module, Data], np.ndarray]]

# In the run's folder.
BASELINES = "baselines.zarr"


def represent(baselines: Baselines, model: nn.Module, data: Data, path: Path) -> dict[str, np.ndarray]:
    """Return name -> [N, d], computed or, where this run was interrupted later, read again.

    Raises:
        InputError: a baseline fails, does not give one row a probe, or gives a number that is not finite.
        TraceError: the folder cannot be written, or holds other baselines.
    """
    if path.exists():
        known = read_representations(path)
        if known.keys() != baselines.keys():
            there, asked = (", ".join(names) or "none" for names in (known, baselines))
            raise TraceError(f"{path} holds the baselines {there}, but {asked} are asked for; remove it")
        return known
    found = {name: _rows(name, baseline, model, data) for name, baseline in baselines.items()}
    if found:
        guard(path, _write, found, path)
    return found


def read_representations(path: Path) -> dict[str, np.ndarray]:
    """Return name -> [N, d] of a run; empty where it computed none."""
    if not path.exists():
        return {}
    with known_types():
        stored = xr.open_zarr(path, consolidated=False, chunks=None).load()
    return {str(name): stored[name].values for name in stored.attrs["order"]}


def _rows(name: str, baseline: Callable[[nn.Module, Data], np.ndarray], model: nn.Module, data: Data) -> np.ndarray:
    try:
        rows = np.asarray(baseline(model, data))
    except InputError as error:
        raise InputError(f"baselines.{name}: {error}") from error
    count = len(data.probes)  # pyright: ignore[reportArgumentType]
    require(
        rows.ndim == 2 and len(rows) == count,
        f"baselines.{name} must give rows [{count}, d], one a probe, got shape {rows.shape}; flatten the units",
    )
    require(bool(np.isfinite(rows).all()), f"baselines.{name} gives numbers that are not finite; check the weights")
    return rows


def _write(found: Mapping[str, np.ndarray], path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    arrays = {name: (("probe", f"{name}_unit"), rows) for name, rows in found.items()}
    with known_types():
        dataset = xr.Dataset(arrays, attrs={"order": list(found)})  # Zarr itself keeps no order
        dataset.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    partial.rename(path)
