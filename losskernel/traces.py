"""Loss traces [chain, draw, probe]: xarray in memory, Zarr on disk."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from losskernel.errors import InputError, TraceError, require
from losskernel.store import TraceStore, differences, guard, known_types


class LossTraces:
    """What a sampling run recorded; everything else is a function of it.

    Attributes:
        dataset: `losses` [chain, draw, probe]; where sampled also `train_loss` (mean minibatch loss over the
            steps of a draw), `distance` |w - w*| and `gradient_norm` [chain, draw], `start_losses` [probe] at
            w*, and `burn_in_loss` [chain, burn_in_batch]; `precision_noise` [chain, check, probe], by how much
            losses in a lower precision differ from exact ones. Labels are coordinates of `probe`.
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
        values = np.asarray(losses)
        require(values.ndim == 3, f"losses must be [chain, draw, probe], got shape {values.shape}")
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
        """What is known of each probe: name -> [N]."""
        stored = [str(name) for name in self.losses.coords if name not in self.losses.dims]
        order = list(self.dataset.attrs.get("labels", stored))  # Zarr itself keeps no order
        names = sorted(stored, key=lambda name: order.index(name) if name in order else len(order))
        return {name: self.losses[name].values for name in names}

    @property
    def meta(self) -> dict[str, Any]:
        """Provenance of the run."""
        return json.loads(self.dataset.attrs.get("provenance", "{}"))

    def record(self, name: str) -> np.ndarray | None:
        """Return a further record by name as float64 (train_loss, distance, ...), or None where absent."""
        return self.dataset[name].values.astype(np.float64) if name in self.dataset else None

    @property
    def baselines(self) -> dict[str, np.ndarray]:
        """Other representations of the probes, such as features: name -> [N, d]."""
        prefix = "baseline_"
        names = [str(name) for name in self.dataset.data_vars if str(name).startswith(prefix)]
        return {name.removeprefix(prefix): self.dataset[name].values for name in names}

    def with_baselines(self, baselines: Mapping[str, np.ndarray]) -> "LossTraces":
        """Return the same traces with other representations of the probes beside them."""
        rows = {f"baseline_{name}": (("probe", f"{name}_unit"), values) for name, values in baselines.items()}
        return LossTraces(self.dataset.assign(rows))

    def save(self, path: str | Path) -> Path:
        """Write to a new Zarr store; whole or not at all.

        Raises:
            TraceError: the path exists, or cannot be written.
        """
        path = Path(path)
        if path.exists():
            raise TraceError(f"{path} exists; choose another path or remove it")
        partial = path.with_name(path.name + ".partial")

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            with known_types():
                self.dataset.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
            os.replace(partial, path)

        guard(path, write)
        return path

    def __repr__(self) -> str:
        chains, draws, probes = self.losses.shape
        return f"LossTraces({chains} chains, {draws} draws, {probes} probes, labels {sorted(self.labels)})"


def open_traces(path: str | Path | Sequence[str | Path]) -> LossTraces:
    """Open finished traces: a traces.zarr, a run folder, or several of one kernel joined along `chain`.

    Raises:
        TraceError: no trace there, an unfinished one, or traces that do not belong together.
    """
    if isinstance(path, (str, Path)):
        return _open(Path(path))
    require(len(path) > 0, "open_traces got an empty list; give at least one path")
    parts = [_open(Path(each)) for each in path]
    return _join(parts, [str(each) for each in path]) if len(parts) > 1 else parts[0]


def _open(path: Path) -> LossTraces:
    folder = path / "traces.zarr" if (path / "traces.zarr").exists() else path
    store = TraceStore(folder)
    if not store.complete:
        state = store.load_state()
        done = "" if state is None else f" ({state['summary']})"
        raise TraceError(
            f"{folder} is unfinished{done}; run the same command again with the same folder to continue it, "
            "or remove the folder"
        )
    with known_types():
        return LossTraces(xr.open_zarr(folder, consolidated=False, chunks=None).load())


def _join(parts: list[LossTraces], names: list[str]) -> LossTraces:
    first = parts[0]
    for part, name in zip(parts[1:], names[1:], strict=True):
        # What may differ between jobs of one kernel: which chains they ran.
        own, base = (dict(traces.meta.get("identity", {})) for traces in (part, first))
        lines = [line for line in differences(base, own) if not line.startswith(("seed:", "schedule.chains:"))]
        if not part.losses["probe"].equals(first.losses["probe"]):
            lines.append("probes: the ids differ")
        if not lines and part.losses.sizes["draw"] != first.losses.sizes["draw"]:
            lines.append(f"draws: {first.losses.sizes['draw']} and {part.losses.sizes['draw']}")
        if lines:
            raise TraceError(f"{names[0]} and {name} are not chains of one kernel; " + "; ".join(lines))
    seeds = [part.meta.get("identity", {}).get("seed") for part in parts]
    drawn = [(seed, int(chain)) for seed, part in zip(seeds, parts, strict=True) for chain in part.losses["chain"]]
    twice = sorted({each for each in drawn if drawn.count(each) > 1 and each[0] is not None})
    if twice:
        raise TraceError(
            f"chain {twice[0][1]} of seed {twice[0][0]} stands in more than one of the traces; "
            "join each chain once, or sample with another seed"
        )
    common = set.intersection(*(set(map(str, part.dataset.data_vars)) for part in parts))
    chained = sorted(name for name in common if "chain" in first.dataset[name].dims)
    joined = xr.concat([part.dataset[chained] for part in parts], dim="chain", coords="minimal", compat="override")
    joined = joined.assign({name: first.dataset[name] for name in common.difference(chained)})
    return LossTraces(joined.assign_coords(chain=np.arange(joined.sizes["chain"])).assign_attrs(first.dataset.attrs))


def coordinates_of(
    probes: int, chains: Sequence[int] | range, draws: int, labels: Mapping[str, Any], ids: Sequence[Any] | None
) -> xr.Dataset:
    """Return the coordinates of a trace as a Dataset without variables.

    Raises:
        InputError: labels or ids do not match the number of probes.
    """
    for name, values in labels.items():
        found = np.asarray(values).shape
        require(found == (probes,), f"labels[{name!r}] has shape {found}, but there are {probes} probes; give one each")
    identities = np.arange(probes) if ids is None else np.asarray(ids)
    require(len(identities) == probes, f"ids has {len(identities)} entries, but there are {probes} probes")
    axes = {"chain": list(chains), "draw": np.arange(draws), "probe": identities}
    coordinates = {name: ("probe", np.asarray(values)) for name, values in labels.items()}
    return xr.Dataset(coords=axes | coordinates, attrs={"labels": list(labels)})


def require_finite(losses: np.ndarray) -> None:
    """Raise InputError that names the first loss [chain, draw, probe] that is not finite."""
    if np.isfinite(losses).all():
        return
    chain, draw, probe = np.argwhere(~np.isfinite(losses))[0]
    raise InputError(
        f"losses hold {losses[chain, draw, probe]} at chain {chain}, draw {draw}, probe {probe}; "
        "a kernel of non-finite losses means nothing: lower step_size or raise localization and sample again"
    )
