"""A trace on disk: Zarr arrays that grow while chains are sampled, and the state to continue them.

Order of writing is what makes a kill harmless: a chunk of draws is written once and whole, then the resume
state that counts it replaces the old one in one step, and the `complete` flag comes last of all. State and flag come
with the checksums of the chunks that they count, so that each is the one that was written there.
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

from losskernel.errors import TraceError
from losskernel.storage import zarr_integrity as integrity
from losskernel.storage.bound import Bound, checksum
from losskernel.storage.locks import Lease, only_writer
from losskernel.storage.places import Folder, Place, place_of, reading
from losskernel.storage.places import guard as guard
from losskernel.storage.settings_diff import differences as differences
from losskernel.storage.torch_files import restored, saved
from losskernel.storage.xarray_zarr import EVERY_CHUNK, create_arrays, dataset_of, files_of
from losskernel.storage.xarray_zarr import known_types as known_types
from losskernel.traces.records import CHAIN_RECORDS as CHAIN_RECORDS
from losskernel.traces.records import PRECISION_CHECKS as PRECISION_CHECKS
from losskernel.traces.records import layout, place

# In the store's folder.
STATE = "resume.pt"
# Of the resume state: the checksums of the trace's description, and of the chunks written so far.
_BOUND = "bound"
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
        self._chunks: dict[str, str] = {}  # written so far: name -> checksum
        self._unsettled: set[str] = set()  # those that are not on the disk itself
        self._trace: bytes | None = None  # the description of the trace that is written here

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
            create_arrays(group, arrays, about["chains_per_fit"], _CHUNK_BYTES, dtype, " ".join(labels))

        guard(self.place, self.place.lay_out, files_of(known, grow))
        self._require_ours()

    @cached_property
    def chunk_draws(self) -> int:
        """Draws per chunk of the store."""
        described = json.loads(reading(self.place, (self.place / "losses" / integrity.ROOT).read))
        return int(described["chunk_grid"]["configuration"]["chunk_shape"][1])

    def write(self, chains: slice, values: dict[str, np.ndarray], start: int) -> None:
        """Write arrays [chain, draw, ...] of some chains from draw `start` on, or [chain] ones."""
        self._require_ours()
        written: dict[str, str] = {}

        def write() -> None:
            with zarr.config.set(EVERY_CHUNK):
                group = zarr.open_group(Bound(self.place, written), mode="r+", zarr_format=3)
                for name, array in values.items():
                    cast(zarr.Array, group[name])[place(chains, start, array)] = array

        with integrity.named(self.place):
            guard(self.place, write)
        self._chunks |= written
        self._unsettled |= written.keys()

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the resume state in one step, so that a kill leaves the old one or the new one."""
        trace = self._require_ours()
        self._settle()
        bound = {"trace": checksum(trace), "chunks": self._chunks}
        guard(self.place, atomic_save, state | {_BOUND: bound}, self._state)

    def load_state(self) -> dict[str, Any] | None:
        """Return the resume state, or None where sampling has not begun.

        Raises:
            TraceError: it is damaged.
        """
        return self._loaded()[0]

    def _loaded(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        try:
            state = restored(reading(self.place, self._state.read))
            return state, state.pop(_BOUND, {})
        except (FileNotFoundError, NotADirectoryError):
            return None, {}
        except ValueError as error:
            raise integrity.damaged(self.place, STATE, str(error)) from error

    def continued(self) -> dict[str, Any] | None:
        """Return the resume state as `load_state` does, once all that it counts is read: nothing is built on damage.

        Raises:
            TraceError: something is damaged, or another trace's.
        """
        guard(self.place, self.place.sweep)
        (state, bound), attributes = self._loaded(), self._attributes()
        if bound and bound["trace"] != checksum(self._require_ours()):
            raise integrity.damaged(self.place, STATE, "it is another trace's")
        self._chunks = dict(bound.get("chunks", {}))
        rows, draws = (0, 0) if state is None else (state["rows"], state["written"])
        with integrity.named(self.place):
            growing = layout((1, 1, 1), 1, 1).keys()
            integrity.require_written(self.place, attributes, growing, rows, draws, self._chunks)
        return state

    def finish(self) -> None:
        """Set the complete flag, last of all; then drop the resume state.

        Raises:
            TraceError: a file is missing, or the store cannot be written.
        """
        self._require_ours()
        document = self._root()
        attributes = document["attributes"]
        integrity.require_whole(self.place, attributes, sure=("losses",))
        self._settle()
        known = attributes.get(integrity.CHECKSUMS)
        bound = {} if known is None else {integrity.CHECKSUMS: known | self._chunks}
        guard(self.place, (self.place / integrity.ROOT).write, integrity.root_with(document, complete=True, **bound))
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

    def _settle(self) -> None:
        """What a state or the complete flag counts on must outlive a loss of power."""
        guard(self.place, self.place.settle, self._unsettled)
        self._unsettled = set()

    def _require_ours(self) -> bytes:
        """Return the description of the trace; what another process has put in its place meanwhile is not written to.

        Raises:
            TraceError: another process writes here, the folder has vanished, or another trace lies there now.
        """
        if self._lease is not None:
            self._lease.require()
        found = guard(self.place, (self.place / integrity.ROOT).read)
        self._trace = self._trace or found
        if found != self._trace:
            raise TraceError(f"{self.place} was replaced while it was written; run again to see what lies there now")
        return found


def atomic_save(state: dict[str, Any], path: Path | Place) -> None:
    """Save with torch so that `path` is either the old file or the whole new one, which carries its own checksum."""
    (Folder(path) if isinstance(path, Path) else path).write(saved(state))
