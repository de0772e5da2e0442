"""Where a trace lies: a folder of this machine, or below any URL that fsspec knows."""

import re
import uuid
from contextlib import suppress
from pathlib import Path

from losskernel.errors import require
from losskernel.storage.places.io_errors import Place as Place
from losskernel.storage.places.io_errors import guard as guard
from losskernel.storage.places.io_errors import reading as reading
from losskernel.storage.places.local import Folder as Folder
from losskernel.storage.places.pointers import LOCAL, pointed
from losskernel.storage.places.pointers import below as below
from losskernel.storage.places.pointers import point as point
from losskernel.storage.places.remote import LEASE as LEASE
from losskernel.storage.places.remote import Remote as Remote

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::)")  # two letters at least: C:\ is a drive
_SHORTENED = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


def is_url(path: str | Path) -> bool:
    """Whether something is to be reached by fsspec; file:// is a folder as any other."""
    return isinstance(path, str) and bool(_URL.match(path)) and not path.startswith(LOCAL)


def place_of(path: str | Path) -> Place:
    """Return the place of a path or URL; a pointer that a run left is followed.

    Raises:
        InputError: a URL that pathlib has shortened, or that nothing installed reaches.
    """
    if is_url(path):
        return Remote(str(path))
    text = str(path)
    shortened = isinstance(path, Path) and _SHORTENED.match(text) and not text.startswith(LOCAL)
    require(
        not shortened, f"{text} was a URL before pathlib shortened it; give it as text, such as 's3://bucket/place'"
    )
    own = Path(text.split("://", 1)[1]) if text.startswith(LOCAL) else Path(path)
    elsewhere = pointed(own)
    return Folder(own) if elsewhere is None else place_of(elsewhere)


def probe(place: Place) -> None:
    """Prove that a place can be written.

    Raises:
        TraceError: it cannot.
    """

    def write() -> None:
        if isinstance(place, Folder):
            place.path.mkdir(parents=True, exist_ok=True)
        mark = place / f".writable-{uuid.uuid4().hex[:8]}"
        mark.write(b"")
        with suppress(Exception):  # some let write and not remove
            mark.remove()

    guard(place, write)
