"""Chunks bound to their names: the checksum of each is kept, so that no other chunk is taken for it.

The checksum within a chunk says whether it is whole. It cannot say whether it is the one that was written there: two
that were exchanged, one of another run, or one that a backup brought back are whole too.
"""

import hashlib
from typing import Any

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from losskernel.errors import TraceError
from losskernel.storage.places import Place

CHANGED = "its content has changed since it was written"


class Bound(WrapperStore[Store]):
    """What Zarr reads and writes at a place.

    Args:
        place: where.
        checksums: name -> checksum. What is read must have them; files without a checksum are read unchecked. What is
            written is added.
    """

    def __init__(self, place: Place, checksums: dict[str, str], store: Store | None = None) -> None:
        super().__init__(place.zarr if store is None else store)
        self._place, self._checksums = place, checksums

    def _with_store(self, store: Store) -> "Bound":
        return Bound(self._place, self._checksums, store)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return a file's content.

        Raises:
            TraceError: it is not what was written.
        """
        found = await self._store.get(key, prototype, byte_range)
        known = None if byte_range is not None else self._checksums.get(key)
        if found is not None and known is not None and checksum(found.to_bytes()) != known:
            raise damaged(self._place, key, CHANGED)
        return found

    async def set(self, key: str, value: Any) -> None:
        """Write a file, and keep its checksum."""
        await self._store.set(key, value)
        self._checksums[key] = checksum(value.to_bytes())


def checksum(content: bytes) -> str:
    """Return what tells a content from others."""
    return hashlib.sha256(content).hexdigest()[:16]


def damaged(place: Place, name: str, reason: str) -> TraceError:
    """Return the error of a file that is not what was written."""
    return TraceError(f"{place}/{name} is damaged: {reason}; {_remedy(place)}")


def missing(place: Place, name: str) -> TraceError:
    """Return the error of a file that is not there."""
    return TraceError(f"{place}/{name} is missing; {_remedy(place)}")


def _remedy(place: Place) -> str:
    return f"restore it from a copy, or remove {place} and run again"
