"""A trace on disk: Zarr arrays that grow while chains are sampled, and the state to continue them.

Order of writing is what makes a kill harmless: a chunk of draws is written once and whole, then the resume
state that counts it replaces the old one in one step, and the `complete` flag comes last of all.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr

from losskernel import integrity
from losskernel.datasets import CODEC, EVERY_CHUNK, dataset_of, files_of
from losskernel.datasets import known_types as known_types
from losskernel.differences import differences as differences
from losskernel.errors import TraceError
from losskernel.locks import Lease, only_writer
from losskernel.places import Folder, Place, place_of, reading
from losskernel.places import guard as guard
from losskernel.records import CHAIN_RECORDS as CHAIN_RECORDS
from losskernel.records import PRECISION_CHECKS as PRECISION_CHECKS
from losskernel.records import Arrays, layout, place
from losskernel.states import restored, saved

# In the store's folder.
STATE = "resume.pt"
_CHUNK_BYTES = 4 * 2**20


class TraceStore:
    """Writes one run's draws; `losses` [chain, draw, probe] and what else is recorded once a draw.

    Args:
        path: folder or URL of the Zarr store, which need not exist, or what a run left to say where that is.

    Raises:
        InputError: a URL that nothing installed reaches.
    """

    def __init__(self, path: str | Path) -> None:
        self.place = place_of(path)
        self.path: Path | str = self.place.path
        self._lease: Lease | None = None
        self._descriptions: dict[str, dict[str, Any]] = {}
        self._unsettled: set[str] = set()  # chunks that are written, but not to the disk itself

    @property
    def exists(self) -> bool:
        """Whether something lies at the path."""
        return reading(self.place, lambda: self.place.occupied)

    def provenance(self) -> dict[str, Any]:
        """Return what is stored about the run.

        Raises:
            TraceError: the folder holds no trace, or its description is damaged.
        """
        return json.loads(self._attributes()["provenance"])

    @property
    def complete(self) -> bool:
        """Whether every draw of every chain is written."""
        return bool(self._attributes()["complete"])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from writing here; a finished trace is only read, and needs that of nobody.

        Raises:
            TraceError: another process is at work here.
        """
        if self.exists and self.complete:
            yield
            return
        with only_writer(self.place) as self._lease:
            yield

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
        known = coordinates.assign_attrs(provenance=json.dumps(about), complete=False)
        arrays, labels = layout(shape, burn_in, checks), [str(name) for name in known.coords if name not in known.dims]

        def grow(group: zarr.Group) -> None:
            _create_arrays(group, arrays, about["chains_per_fit"], dtype, " ".join(labels))

        guard(self.place, self.place.lay_out, files_of(known, grow))

    @cached_property
    def chunk_draws(self) -> int:
        """Draws per chunk of the store."""
        return int(self._described("losses")["chunk_grid"]["configuration"]["chunk_shape"][1])

    def write(self, chains: slice, values: dict[str, np.ndarray], start: int) -> None:
        """Write arrays [chain, draw, ...] of some chains from draw `start` on, or [chain] ones."""
        self._require_alone()

        def write() -> None:
            with zarr.config.set(EVERY_CHUNK):
                group = zarr.open_group(self.place.zarr, mode="r+", zarr_format=3)
                for name, array in values.items():
                    region = place(chains, start, array)
                    cast(zarr.Array, group[name])[region] = array
                    self._unsettled |= set(integrity.touched(name, self._described(name), region))

        with integrity.named(self.place):
            guard(self.place, write)

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the resume state in one step, so that a kill leaves the old one or the new one."""
        self._require_alone()
        self._settle()
        guard(self.place, atomic_save, state, self._state)

    def load_state(self) -> dict[str, Any] | None:
        """Return the resume state, or None where sampling has not begun.

        Raises:
            TraceError: it is damaged.
        """
        try:
            return restored(reading(self.place, self._state.read))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise integrity.damaged(self.place, STATE, str(error)) from error

    def continued(self) -> dict[str, Any] | None:
        """Return the resume state as `load_state` does, once all that it counts is read: nothing is built on damage.

        Raises:
            TraceError: something is damaged.
        """
        guard(self.place, self.place.sweep)
        state = self.load_state()
        rows, draws = (0, 0) if state is None else (state["rows"], state["written"])
        with integrity.named(self.place):
            integrity.require_written(self.place, self._attributes(), layout((1, 1, 1), 1, 1).keys(), rows, draws)
        return state

    def finish(self) -> None:
        """Set the complete flag, last of all; then drop the resume state.

        Raises:
            TraceError: a file is missing, or the store cannot be written.
        """
        self._require_alone()
        guard(self.place, (self.place / integrity.ROOT).read)  # a folder that has vanished is no other fault
        document = self._root()
        integrity.require_whole(self.place, document["attributes"], sure=("losses",))
        self._settle()
        guard(self.place, (self.place / integrity.ROOT).write, integrity.root_with(document, complete=True))
        with suppress(TraceError):  # some let write and not remove; nobody reads it any more
            guard(self.place, self._state.remove)

    def dataset(self) -> xr.Dataset:
        """Return all of a finished trace, checked on the way.

        Raises:
            TraceError: a file of it is missing or damaged.
        """
        integrity.require_whole(self.place, self._attributes(), sure=("losses",))
        return dataset_of(self.place)

    @property
    def _state(self) -> Place:
        return self.place / STATE

    def _root(self) -> dict[str, Any]:
        """Return the root's description.

        Raises:
            TraceError: arrays of a trace without it are a damaged trace, and anything else is none.
        """
        try:
            document = integrity.read_root(self.place)
            if "provenance" in document["attributes"]:
                return document
            fault = integrity.damaged(self.place, integrity.ROOT, "it does not describe the trace")
        except (FileNotFoundError, NotADirectoryError):
            fault = integrity.missing(self.place, integrity.ROOT)
        except TraceError as error:
            fault = error
        if reading(self.place, (self.place / "losses" / integrity.ROOT).exists):
            raise fault
        raise TraceError(f"{self.place} holds no loss trace; give the folder of a run or of a traces.zarr") from fault

    def _attributes(self) -> dict[str, Any]:
        return self._root()["attributes"]

    def _described(self, array: str) -> dict[str, Any]:
        if array not in self._descriptions:
            self._descriptions[array] = json.loads(reading(self.place, (self.place / array / integrity.ROOT).read))
        return self._descriptions[array]

    def _settle(self) -> None:
        """What a state or the complete flag counts on must outlive a loss of power."""
        guard(self.place, self.place.settle, self._unsettled)
        self._unsettled = set()

    def _require_alone(self) -> None:
        if self._lease is not None:
            self._lease.require()


def atomic_save(state: dict[str, Any], path: Path | Place) -> None:
    """Save with torch so that `path` is either the old file or the whole new one, which carries its own checksum."""
    (Folder(path) if isinstance(path, Path) else path).write(saved(state))


def _create_arrays(group: zarr.Group, arrays: Arrays, stacked: int, dtype: str, labels: str) -> None:
    shape = arrays["losses"][1]
    stacked = min(stacked, shape[0])
    chunk = max(1, min(shape[1], _CHUNK_BYTES // (shape[2] * np.dtype(dtype).itemsize * stacked)))
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
            compressors=[CODEC],
        )
