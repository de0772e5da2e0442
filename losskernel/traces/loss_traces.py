"""LossTraces [chain, draw, probe]: xarray in memory, Zarr on disk; open_traces() reads and joins them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from losskernel.errors import InputError, TraceError, require
from losskernel.storage.locations import guard, locate, reading
from losskernel.storage.zarr_integrity import files_of
from losskernel.traces.join import join
from losskernel.traces.zarr_store import TraceStore


class LossTraces:
    """The losses that a sampling run recorded, and what else it measured; everything else is a function of them.

    Attributes:
        dataset: `losses` [chain, draw, probe]; where sampled also `train_loss` (mean minibatch loss over the steps of
            a draw), `distance` |w - w*| and `gradient_norm` [chain, draw], `start_losses` [probe] at w*,
            `burn_in_loss` [chain, burn_in_batch], the records of each chain [chain], and `precision_noise`
            [chain, check, probe], the losses in a lower precision minus exact ones. Labels are coordinates of `probe`.
        meta: provenance: settings, seed, versions, counts.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self.dataset = dataset

    @classmethod
    def from_arrays(
        cls,
        losses: Any,
        labels: Mapping[str, Any] | None = None,
        ids: Sequence[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> "LossTraces":
        """Build traces in memory from losses [C, D, N] and labels of the N probes.

        Raises:
            InputError: wrong shape, fewer than two draws, a non-finite loss, or labels that do not match.
        """
        values = np.asarray(losses)  # [C, D, N]
        require(values.ndim == 3, f"losses must be [chain, draw, probe], got shape {values.shape}")
        # Half precision and whole numbers would lose digits in the covariances that are computed from them.
        values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
        require(values.shape[2] > 0 and values.shape[0] > 0, f"losses are empty, shape {values.shape}; give probes")
        require_finite(values)
        coordinates = coordinates_of(values.shape[2], range(values.shape[0]), values.shape[1], labels or {}, ids)
        require(values.shape[1] >= 2, f"draws must be >= 2 to estimate a covariance, got {values.shape[1]}; draw more")
        dataset = coordinates.assign(losses=(("chain", "draw", "probe"), values))
        return cls(dataset.assign_attrs(provenance=json.dumps(dict(meta or {})), complete=True))

    @property
    def losses(self) -> xr.DataArray:
        """The losses, dims (chain, draw, probe)."""
        return self.dataset["losses"]

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Labels of the probes, in the order they were given: name -> [N]."""
        stored = [str(name) for name in self.losses.coords if name not in self.losses.dims]
        # Zarr keeps no order of coordinates, so it is stored apart; traces of older versions have none.
        order = list(self.dataset.attrs.get("labels", stored))
        names = sorted(stored, key=lambda name: order.index(name) if name in order else len(order))
        return {name: self.losses[name].values for name in names}

    @property
    def meta(self) -> dict[str, Any]:
        """Provenance of the run."""
        return json.loads(self.dataset.attrs.get("provenance", "{}"))

    def record(self, name: str) -> np.ndarray | None:
        """Return another record as float64 (train_loss, distance, ...), or None where it was not recorded."""
        return self.dataset[name].values.astype(np.float64) if name in self.dataset else None

    @property
    def baselines(self) -> dict[str, np.ndarray]:
        """Other representations of the probes, such as features: name -> [N, d]."""
        prefix = "baseline_"
        names = [str(name) for name in self.dataset.data_vars if str(name).startswith(prefix)]
        return {name.removeprefix(prefix): self.dataset[name].values for name in names}

    def with_baselines(self, baselines: Mapping[str, np.ndarray]) -> "LossTraces":
        """Return the same traces with other representations of the probes beside them."""
        # Each representation has a dimension of its own: they differ in width.
        rows = {f"baseline_{name}": (("probe", f"{name}_unit"), values) for name, values in baselines.items()}
        return LossTraces(self.dataset.assign(rows))

    def save(self, path: str | Path) -> Path | str:
        """Write to a new Zarr store, a folder or URL, atomically.

        Raises:
            TraceError: the path exists, or cannot be written.
        """
        location = locate(path)
        if reading(location, location.exists):
            raise TraceError(f"{location} exists; choose another path or remove it")
        guard(location, location.write_group, files_of(self.dataset))
        return location.path

    def __repr__(self) -> str:
        chains, draws, probes = self.losses.shape
        return f"LossTraces({chains} chains, {draws} draws, {probes} probes, labels {sorted(self.labels)})"


def open_traces(path: str | Path | Sequence[str | Path]) -> LossTraces:
    """Open finished traces: a traces.zarr, a run folder, a URL, or several of one kernel joined along `chain`.

    Raises:
        TraceError: no trace there, an unfinished or damaged one, or traces that do not belong together.
    """
    if isinstance(path, (str, Path)):
        return _open(path)
    require(len(path) > 0, "open_traces got an empty list; give at least one path")
    parts = [_open(part) for part in path]
    return parts[0] if len(parts) == 1 else LossTraces(join([part.dataset for part in parts], list(map(str, path))))


def _open(path: str | Path) -> LossTraces:
    run = locate(path)
    # A run's folder holds the store, or a pointer to it, which TraceStore follows.
    inner = run / "traces.zarr"
    store = TraceStore(inner.path if reading(run, inner.exists) else path)
    if not store.complete:
        state = store.load_state()
        done = "" if state is None else f" ({state['summary']})"
        raise TraceError(
            f"{store.path} is unfinished{done}; run the same command again with the same folder to continue it, "
            "or remove the folder"
        )
    return LossTraces(store.dataset())


def coordinates_of(
    probes: int, chains: Sequence[int] | range, draws: int, labels: Mapping[str, Any], ids: Sequence[Any] | None
) -> xr.Dataset:
    """Return the coordinates of a trace as a Dataset without variables.

    Raises:
        InputError: labels or ids do not match the number of probes.
    """
    for name, values in labels.items():
        shape = np.asarray(values).shape
        require(shape == (probes,), f"labels[{name!r}] has shape {shape}, but there are {probes} probes; give one each")
    identities = np.arange(probes) if ids is None else np.asarray(ids)
    require(len(identities) == probes, f"ids has {len(identities)} entries, but there are {probes} probes")
    axes = {"chain": list(chains), "draw": np.arange(draws), "probe": identities}
    coordinates = {name: ("probe", np.asarray(values)) for name, values in labels.items()}
    return xr.Dataset(coords=axes | coordinates, attrs={"labels": list(labels)})


def require_finite(losses: np.ndarray) -> None:
    """Raise InputError that names the first loss [chain, draw, probe] that is not finite."""
    if np.isfinite(losses).all():
        return
    # Only now, since the indices of all losses take eight times their memory.
    chain, draw, probe = np.argwhere(~np.isfinite(losses))[0]
    raise InputError(
        f"losses hold {losses[chain, draw, probe]} at chain {chain}, draw {draw}, probe {probe}; "
        "a kernel of non-finite losses means nothing: lower step_size or raise localization and sample again"
    )
