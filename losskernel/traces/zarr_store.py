"""A trace on disk: Zarr arrays that grow while chains are sampled, and the state from which sampling resumes.

The order of writes makes a kill harmless: a chunk of draws is written once and whole; then the resume state that counts
it replaces the old one atomically; the `complete` flag comes last of all. State and flag hold the checksums of the
chunks that they count.
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
from losskernel.storage.locations import StorageLocation, guard, locate, reading
from losskernel.storage.locks import Lease, locked_store
from losskernel.storage.torch_files import atomic_save, state_from_bytes
from losskernel.storage.zarr_integrity import CODEC, EVERY_CHUNK, dataset_of, files_of
from losskernel.traces.records import Arrays, region

# In the store's folder.
STATE = "resume.pt"
# Of the resume state: the checksums of the trace's description, and of the chunks written so far.
_BOUND = "bound"
_CHUNK_BYTES = 4 * 2**20


class TraceStore:
    """Writes one run's draws: `losses` [chain, draw, probe] and what else is recorded once a draw.

    Args:
        path: folder or URL of the Zarr store, which need not exist, or a pointer to it.

    Raises:
        InputError: a URL that nothing installed reaches.
    """

    def __init__(self, path: str | Path) -> None:
        self.location = locate(path)
        self.path: Path | str = self.location.path
        self._lease: Lease | None = None
        self._chunks: dict[str, str] = {}  # written so far: name -> checksum
        self._unsynced: set[str] = set()  # chunks that may not have reached the disk itself
        self._root_bytes: bytes | None = None  # the description of the trace that is written here

    @property
    def exists(self) -> bool:
        """Whether something lies at the path."""
        return reading(self.location, lambda: self.location.occupied)

    def provenance(self) -> dict[str, Any]:
        """Return the run's provenance.

        Raises:
            TraceError: the folder holds no trace, or its description is damaged.
        """
        return json.loads(self._root()["attributes"]["provenance"])

    @property
    def complete(self) -> bool:
        """Whether every draw of every chain is written."""
        return bool(self._root()["attributes"]["complete"])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here; a finished trace is only read, and needs no lock.

        Raises:
            TraceError: another process is writing here.
        """
        if self.exists and self.complete:
            yield
            return
        with locked_store(self.location) as self._lease:
            yield

    def create(self, coordinates: xr.Dataset, about: dict[str, Any], arrays: Arrays, dtype: str) -> None:
        """Create the arrays of a layout in a new store, filled with NaN; a chunk holds draws of one stack of chains.

        Args:
            coordinates: of the trace, and what is known before sampling.
            about: the run's provenance.
            arrays: name -> (dimensions, shape), as `records.layout` returns them.
            dtype: of all arrays.
        """
        known = coordinates.assign_attrs(provenance=json.dumps(about), complete=False)
        labels = " ".join(str(name) for name in known.coords if name not in known.dims)
        chains, draws, probes = arrays["losses"][1]
        # One stack of chains is sampled at a time, so a chunk of two would be written twice.
        stack = min(about["chains_per_fit"], chains)
        chunk = max(1, min(draws, _CHUNK_BYTES // (probes * np.dtype(dtype).itemsize * stack)))

        def add_arrays(group: zarr.Group) -> None:
            chunked = {"chain": stack, "draw": chunk}
            for name, (dimensions, shape) in arrays.items():
                group.create_array(
                    name,
                    shape=shape,
                    chunks=tuple(chunked.get(axis, length) for axis, length in zip(dimensions, shape, strict=True)),
                    dtype=dtype,
                    dimension_names=dimensions,
                    fill_value=np.nan,
                    attributes={"coordinates": labels} if name == "losses" and labels else {},
                    compressors=[CODEC],
                )

        # Built in memory, then written as one group: a kill leaves no store without its arrays.
        guard(self.location, self.location.write_group, files_of(known, add_arrays))
        self._check_unchanged()

    @cached_property
    def chunk_draws(self) -> int:
        """Draws per chunk of the store."""
        description = json.loads(reading(self.location, (self.location / "losses" / integrity.ROOT).read))
        return int(description["chunk_grid"]["configuration"]["chunk_shape"][1])

    def write(self, chains: slice, values: dict[str, np.ndarray], start: int) -> None:
        """Write values [chain, draw, ...] of some chains from draw `start` on, or [chain]."""
        self._check_unchanged()
        written: dict[str, str] = {}

        def write() -> None:
            with zarr.config.set(EVERY_CHUNK):
                store = integrity.ChunkChecksums(self.location, written)
                group = zarr.open_group(store, mode="r+", zarr_format=3)
                for name, array in values.items():
                    cast(zarr.Array, group[name])[region(chains, start, array)] = array

        # A write within a chunk reads it first, so damage of what is there already can surface here.
        with integrity.named(self.location):
            guard(self.location, write)
        self._chunks |= written
        self._unsynced |= written.keys()

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the resume state atomically."""
        root = self._check_unchanged()
        self._sync()  # chunks first: a state must never count what a loss of power can undo
        bound = {"trace": integrity.checksum(root), "chunks": self._chunks}
        guard(self.location, atomic_save, state | {_BOUND: bound}, self._state)

    def load_state(self) -> dict[str, Any] | None:
        """Return the resume state, or None before the first was saved.

        Raises:
            TraceError: it is damaged.
        """
        return self._load_state()[0]

    def _load_state(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the resume state and the checksums it holds; older versions saved none."""
        try:
            state = state_from_bytes(reading(self.location, self._state.read))
            return state, state.pop(_BOUND, {})
        except (FileNotFoundError, NotADirectoryError):
            return None, {}
        except ValueError as error:
            raise integrity.damaged(self.location, STATE, str(error)) from error

    def verified_state(self) -> dict[str, Any] | None:
        """Return the resume state as `load_state` does, after reading everything it counts: nothing builds on damage.

        Raises:
            TraceError: something is damaged, or another trace's.
        """
        guard(self.location, self.location.remove_partial)
        state, bound = self._load_state()
        attributes = self._root()["attributes"]
        if bound and bound["trace"] != integrity.checksum(self._check_unchanged()):
            raise integrity.damaged(self.location, STATE, "it is another trace's")
        # Further chunks add to these, and `finish` moves all of them into the root's description.
        self._chunks = dict(bound.get("chunks", {}))
        integrity.require_unchanged(self.location, attributes, self._chunks)
        return state

    def finish(self) -> None:
        """Set the complete flag, last of all; then remove the resume state.

        Raises:
            TraceError: a file is missing, or the store cannot be written.
        """
        self._check_unchanged()
        document = self._root()
        attributes = document["attributes"]
        integrity.require_whole(self.location, attributes, dense=("losses",))
        self._sync()
        known = attributes.get(integrity.CHECKSUMS)
        bound = {} if known is None else {integrity.CHECKSUMS: known | self._chunks}
        root = integrity.root_with(document, complete=True, **bound)
        guard(self.location, (self.location / integrity.ROOT).write, root)
        with suppress(TraceError):  # some stores permit writing and forbid removing; the state is not read any more
            guard(self.location, self._state.remove)

    def dataset(self) -> xr.Dataset:
        """Return a finished trace as a dataset in memory, its checksums compared.

        Raises:
            TraceError: a file of it is missing or damaged.
        """
        integrity.require_whole(self.location, self._root()["attributes"], dense=("losses",))
        return dataset_of(self.location)

    @property
    def _state(self) -> StorageLocation:
        return self.location / STATE

    def _root(self) -> dict[str, Any]:
        """Return the root's description.

        Raises:
            TraceError: it is damaged; or the folder holds no trace, not even its arrays.
        """
        try:
            document = integrity.read_root(self.location)
            if "provenance" in document["attributes"]:
                return document
            fault = integrity.damaged(self.location, integrity.ROOT, "it does not describe the trace")
        except (FileNotFoundError, NotADirectoryError):
            fault = integrity.missing(self.location, integrity.ROOT)
        except TraceError as error:
            fault = error
        # With arrays below it is a damaged trace; without, another kind of folder.
        if reading(self.location, (self.location / "losses" / integrity.ROOT).exists):
            raise fault
        raise TraceError(
            f"{self.location} holds no loss trace; give the folder of a run or of a traces.zarr"
        ) from fault

    def _sync(self) -> None:
        """Flush chunks before a state or the flag counts them, so that they outlive a loss of power."""
        guard(self.location, self.location.sync, self._unsynced)
        self._unsynced = set()

    def _check_unchanged(self) -> bytes:
        """Return the root's description, which must be that of the trace that is being written.

        Raises:
            TraceError: another process writes here, the folder has vanished, or it holds another trace now.
        """
        if self._lease is not None:
            self._lease.check()
        root = guard(self.location, (self.location / integrity.ROOT).read)
        # Remembered at the first write, so that a trace which replaces this one later is recognised.
        self._root_bytes = self._root_bytes or root
        if root != self._root_bytes:
            raise TraceError(f"{self.location} was replaced while it was written; run again to see what lies there now")
        return root
