"""Other representations of the probes, computed once at the trained weights and kept beside the traces."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from losskernel.data.base import Data, size
from losskernel.errors import InputError, TraceError, require
from losskernel.storage.locations import LocalLocation, guard
from losskernel.storage.xarray_zarr import dataset_of, files_of
from losskernel.storage.zarr_integrity import read_root, require_whole
from losskernel.traces.loss_traces import LossTraces

# Name -> what gives rows [N, d] of a model on the probes of some data, called (model, data). One with a true class
# attribute `needs_history` is called (model, data, history); one that returns a mapping gives several, `name_key` each.
Baselines = Mapping[str, Callable[..., Any]]

# In the run's folder.
BASELINES = "baselines.zarr"


@dataclass(frozen=True)
class History:
    """How a trained network came about, for baselines that look back or train again.

    Attributes:
        retrain: (data, seed) -> another network trained the same way on other data, from weights of its own; it can
            be sent to another process.
        checkpoints: -> (step, network) of the weights kept along training, in order; empty for a loaded network.
        folder: where a baseline may keep what is dear, below a name of its own.
        sample: (network, name below the folder, settings of the sampler that differ) -> the traces of another loss
            kernel, sampled as the run's own; a finished one is opened, an interrupted one continued.
        step: of training at the trained network's weights; None for a loaded network.
    """

    retrain: Callable[[Data, int], nn.Module]
    checkpoints: Callable[[], Iterator[tuple[int, nn.Module]]]
    folder: Path
    sample: Callable[[nn.Module, str, Mapping[str, float]], LossTraces] | None = None
    step: int | None = None


def represent(
    baselines: Baselines,
    model: nn.Module,
    data: Data,
    path: Path,
    history: History | None = None,
    says: Callable[[str], None] | None = None,
) -> dict[str, np.ndarray]:
    """Return name -> [N, d], computed or, where this run was interrupted later, read again.

    `says` is told the name of each baseline before it is computed.

    Raises:
        InputError: a baseline fails, does not give one row a probe, or gives a number that is not finite.
        TraceError: the folder cannot be written, or holds other baselines.
    """
    if path.exists():
        there, asked = asked_of(path), {name: settings_of(each) for name, each in baselines.items()}
        if list(there) != list(asked):
            names, wanted = (", ".join(found) or "none" for found in (there, asked))
            raise TraceError(f"{path} holds the baselines {names}, but {wanted} are asked for; remove it")
        for name, settings in asked.items():
            if there[name] != settings:
                raise TraceError(f"{path}: {name} was {there[name]}, but {settings} is asked for; remove it")
        return read_representations(path)
    found: dict[str, np.ndarray] = {}
    for name, baseline in baselines.items():
        if says is not None:
            says(name)
        found |= _rows(name, baseline, model, data, history)
    if found:
        guard(path, _write, found, {name: settings_of(each) for name, each in baselines.items()}, path)
    return found


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


def asked_of(path: Path) -> dict[str, str]:
    """Return name -> settings of the baselines that a store was made for, each of which may have given several rows."""
    return dict(read_root(LocalLocation(path))["attributes"]["asked"])


def settings_of(maker: object) -> str:
    """Return what decides the numbers, as far as it can be told: of other callables than dataclasses the name."""
    return repr(maker) if is_dataclass(maker) else getattr(maker, "__name__", type(maker).__name__)


def _rows(
    name: str, baseline: Callable[..., Any], model: nn.Module, data: Data, history: History | None
) -> dict[str, np.ndarray]:
    """Return what one baseline gives, each checked."""
    needs = bool(getattr(baseline, "needs_history", False))
    require(history is not None or not needs, f"baselines.{name} needs the run that trained the network; use run()")
    try:
        given = baseline(model, data, history) if needs else baseline(model, data)
    except InputError as error:
        raise InputError(f"baselines.{name}: {error}") from error
    several = {f"{name}_{key}": rows for key, rows in given.items()} if isinstance(given, Mapping) else {name: given}
    return {key: _checked(key, np.asarray(rows), data) for key, rows in several.items()}


def _checked(name: str, rows: np.ndarray, data: Data) -> np.ndarray:
    count = size(data.probes)
    require(
        rows.ndim == 2 and len(rows) == count,
        f"baselines.{name} must give rows [{count}, d], one a probe, got shape {rows.shape}; flatten the units",
    )
    require(bool(np.isfinite(rows).all()), f"baselines.{name} gives numbers that are not finite; check the weights")
    return rows


def _write(found: Mapping[str, np.ndarray], asked: Mapping[str, str], path: Path) -> None:
    arrays = {name: (("probe", f"{name}_unit"), rows) for name, rows in found.items()}
    dataset = xr.Dataset(arrays, attrs={"order": list(found), "asked": dict(asked)})  # Zarr itself keeps no order
    LocalLocation(path).write_group(files_of(dataset))
