"""A trace on disk: Zarr arrays that grow while chains are sampled, and the state to continue them.

Order of writing is what makes a kill harmless: a chunk of draws is written once and whole, then the resume
state that counts it replaces the old one in one step, and the `complete` flag comes last of all.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from losskernel.errors import TraceError

Arrays = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]  # name -> (dimensions, extent)
_CHUNK_BYTES = 4 * 2**20
# Measured once per chain, where it ends (judgement.py).
CHAIN_RECORDS = ("curvature", "minibatch_variance", "step_inflation", "acceptance", "relaxation_rate")
# Places of each chain at which losses are also computed in full precision, where probes are evaluated in a lower one.
PRECISION_CHECKS = 5


class TraceStore:
    """Writes one run's draws; `losses` [chain, draw, probe] and what else is recorded once a draw.

    Args:
        path: folder of the Zarr store; need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        """Whether something lies at the path."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def _attributes(self) -> dict[str, Any]:
        fault = TraceError(f"{self.path} holds no loss trace; give the folder of a run or of a traces.zarr")
        try:
            attributes = dict(zarr.open_group(self.path, mode="r").attrs)
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise fault from error
        if "provenance" not in attributes:
            raise fault
        return attributes

    def provenance(self) -> dict[str, Any]:
        """Return what is stored about the run.

        Raises:
            TraceError: the folder holds no trace.
        """
        return json.loads(self._attributes()["provenance"])

    @property
    def complete(self) -> bool:
        """Whether every draw of every chain is written."""
        return bool(self._attributes()["complete"])

    def create(
        self,
        coordinates: xr.Dataset,
        about: dict[str, Any],
        shape: tuple[int, int, int],
        burn_in: int,
        dtype: str,
        checks: int = 0,
    ) -> None:
        """Lay out an empty store for the arrays of `layout`."""
        # Laid out under another name first: a store either has all its arrays or is not there.
        partial = self.path.with_name(self.path.name + ".partial")

        def lay_out() -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            attributes = {"provenance": json.dumps(about), "complete": False}
            with known_types():
                coordinates.assign_attrs(attributes).to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
            _create_arrays(partial, coordinates, layout(shape, burn_in, checks), about["chains_per_fit"], dtype)
            os.replace(partial, self.path)

        guard(self.path, lay_out)

    @cached_property
    def chunk_draws(self) -> int:
        """Draws per chunk of the store."""
        return int(cast(zarr.Array, zarr.open_group(self.path, mode="r")["losses"]).chunks[1])

    def write(self, chains: slice, values: dict[str, np.ndarray], start: int) -> None:
        """Write arrays [chain, draw, ...] of some chains from draw `start` on, or [chain] ones."""

        def write() -> None:
            group = zarr.open_group(self.path, mode="r+")
            for name, array in values.items():
                cast(zarr.Array, group[name])[place(chains, start, array)] = array

        guard(self.path, write)

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the resume state in one step, so that a kill leaves the old one or the new one."""
        guard(self.path, atomic_save, state, self._state_path)

    def load_state(self) -> dict[str, Any] | None:
        """Return the resume state, or None where sampling has not begun."""
        if not self._state_path.exists():
            return None
        return torch.load(self._state_path, map_location="cpu", weights_only=True)

    def finish(self) -> None:
        """Set the complete flag, last of all; then drop the resume state."""

        def flag() -> None:
            zarr.open_group(self.path, mode="r+").attrs.update({"complete": True})
            self._state_path.unlink(missing_ok=True)

        guard(self.path, flag)

    @property
    def _state_path(self) -> Path:
        return self.path / "resume.pt"


def guard(path: Path, write: Any, *arguments: Any) -> None:
    """Run a write; turn the operating system's refusal into one line that says what is left.

    Raises:
        TraceError: the folder cannot be written (permissions, full disk, vanished file system).
    """
    try:
        write(*arguments)
    except OSError as error:
        raise TraceError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder; "
            "what was written before stays readable and the run can be continued"
        ) from error


@contextmanager
def known_types() -> Iterator[None]:
    """Silence Zarr's warning that text arrays (our labels) are not in its specification yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        yield


def atomic_save(state: dict[str, Any], path: Path) -> None:
    """Save with torch so that `path` is either the old file or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def differences(stored: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line per setting that differs between two nested mappings."""
    lines: list[str] = []
    for key in sorted(stored.keys() | asked.keys()):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif _plain(old) != _plain(new):
            lines.append(f"{prefix}{key}: stored {old!r}, asked {new!r}")
    return lines


def _plain(value: Any) -> Any:
    """Return a value as JSON would bring it back, so that tuples equal lists and 1 equals 1.0."""
    return json.loads(json.dumps(value, default=str))


def layout(shape: tuple[int, int, int], burn_in: int, checks: int = 0) -> Arrays:
    """Return name -> (dimensions, extent) of every array that grows while sampling.

    Args:
        shape: chains, draws and probes.
        burn_in: losses seen on the way.
        checks: places of each chain at which losses in a lower precision are compared with exact ones.
    """
    chains, draws, probes = shape
    arrays: Arrays = {"losses": (("chain", "draw", "probe"), shape)}
    for name in ("train_loss", "distance", "gradient_norm"):
        arrays[name] = (("chain", "draw"), (chains, draws))
    arrays |= dict.fromkeys(CHAIN_RECORDS, (("chain",), (chains,)))
    if burn_in:
        arrays["burn_in_loss"] = (("chain", "burn_in_batch"), (chains, burn_in))
    if checks:
        arrays["precision_noise"] = (("chain", "check", "probe"), (chains, checks, probes))
    return arrays


def place(chains: slice, start: int, array: np.ndarray) -> Any:
    """Return where an array [chain, ...] of some chains stands, from `start` on along its second axis."""
    return chains if array.ndim == 1 else (chains, slice(start, start + array.shape[1]))


def _create_arrays(path: Path, coordinates: xr.Dataset, arrays: Arrays, stacked: int, dtype: str) -> None:
    group, shape = zarr.open_group(path, mode="r+"), arrays["losses"][1]
    stacked = min(stacked, shape[0])
    chunk = max(1, min(shape[1], _CHUNK_BYTES // (shape[2] * np.dtype(dtype).itemsize * stacked)))
    labels = " ".join(str(name) for name in coordinates.coords if name not in coordinates.dims)
    for name, (dimensions, extent) in arrays.items():
        per_draw = {"draw": chunk, "chain": stacked}
        group.create_array(
            name,
            shape=extent,
            chunks=tuple(per_draw.get(each, length) for each, length in zip(dimensions, extent, strict=True)),
            dtype=dtype,
            dimension_names=dimensions,
            fill_value=np.nan,
            attributes={"coordinates": labels} if name == "losses" and labels else {},
            compressors=[ZstdCodec(level=1, checksum=True)],
        )
