"""Compute the baselines of a run once, at the trained weights, and store them beside the traces."""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from losskernel.data.base import Data, size
from losskernel.errors import InputError, TraceError, require
from losskernel.representations.evaluation import History
from losskernel.storage.locations import LocalLocation, guard
from losskernel.storage.zarr_integrity import dataset_of, files_of, read_root, require_whole

# Name -> callable (model, data) -> rows [N, d] of the probes. One with a true class attribute `needs_history` is called
# (model, data, history); one that returns a mapping gives several representations, named `name_key`.
Baselines = Mapping[str, Callable[..., Any]]
BASELINES = "baselines.zarr"  # in the run's folder


def represent(
    baselines: Baselines,
    model: nn.Module,
    data: Data,
    path: Path,
    history: History | None = None,
    report: Callable[[str], None] | None = None,
) -> dict[str, np.ndarray]:
    """Return name -> [N, d], computed, or read from the store of an earlier, interrupted job of the same run.

    Args:
        baselines: name -> callable.
        model: the trained network.
        data: whose probes have the rows.
        path: of the store.
        history: of the network, for baselines that need it.
        report: called with the name of each baseline before it is computed.

    Raises:
        InputError: a baseline fails, does not give one row a probe, or gives a number that is not finite.
        TraceError: the folder cannot be written, or holds other baselines.
    """
    settings = {name: settings_of(baseline) for name, baseline in baselines.items()}
    if path.exists():
        _require_same(path, settings)
        return read_representations(path)
    representations: dict[str, np.ndarray] = {}
    for name, baseline in baselines.items():
        if report is not None:
            report(name)
        representations |= _rows(name, baseline, model, data, history)
    # Written at once at the end: an interrupted job computes all of them again.
    if representations:
        arrays = {name: (("probe", f"{name}_unit"), rows) for name, rows in representations.items()}
        # Zarr does not keep the order of arrays.
        dataset = xr.Dataset(arrays, attrs={"order": list(representations), "asked": settings})
        guard(path, LocalLocation(path).write_group, files_of(dataset))
    return representations


def read_representations(path: Path) -> dict[str, np.ndarray]:
    """Return name -> [N, d] of a run; empty where it computed none.

    Raises:
        TraceError: they are damaged.
    """
    if not path.exists():
        return {}
    require_whole(LocalLocation(path), read_root(LocalLocation(path))["attributes"])
    stored = dataset_of(LocalLocation(path))
    return {str(name): stored[name].values for name in stored.attrs["order"]}


def stored_settings(path: Path) -> dict[str, str]:
    """Return name -> settings of the baselines in a store; one baseline may have given several representations."""
    return dict(read_root(LocalLocation(path))["attributes"]["asked"])


def settings_of(part: object) -> str:
    """Return the settings that determine a part's numbers: the repr of a dataclass, of other callables the name."""
    return repr(part) if is_dataclass(part) else getattr(part, "__name__", type(part).__name__)


def _require_same(path: Path, settings: Mapping[str, str]) -> None:
    """Raise TraceError where a store holds other baselines, or the same ones with other settings."""
    stored = stored_settings(path)
    if list(stored) != list(settings):
        names, wanted = (", ".join(baselines) or "none" for baselines in (stored, settings))
        raise TraceError(f"{path} holds the baselines {names}, but the run has {wanted}; remove it")
    for name, wanted in settings.items():
        if stored[name] != wanted:
            raise TraceError(f"{path}: {name} was {stored[name]}, but the run has {wanted}; remove it")


def _rows(
    name: str, baseline: Callable[..., Any], model: nn.Module, data: Data, history: History | None
) -> dict[str, np.ndarray]:
    """Return the representations of one baseline, checked."""
    # Asked of the class, so that plain functions (model, data) are baselines too.
    needs = bool(getattr(baseline, "needs_history", False))
    require(history is not None or not needs, f"baselines.{name} needs the run that trained the network; use run()")
    try:
        result = baseline(model, data, history) if needs else baseline(model, data)
    except InputError as error:
        raise InputError(f"baselines.{name}: {error}") from error
    several = {f"{name}_{key}": rows for key, rows in result.items()} if isinstance(result, Mapping) else {name: result}
    return {key: _checked(key, np.asarray(rows), data) for key, rows in several.items()}


def _checked(name: str, rows: np.ndarray, data: Data) -> np.ndarray:
    count = size(data.probes)
    require(
        rows.ndim == 2 and len(rows) == count,
        f"baselines.{name} must give rows [{count}, d], one per probe, got shape {rows.shape}; flatten the units",
    )
    require(bool(np.isfinite(rows).all()), f"baselines.{name} gives numbers that are not finite; check the weights")
    return rows
