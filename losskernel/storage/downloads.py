"""What is taken from the internet: weights, data and taxonomies of others, and pictures decoded from them."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_TIMEOUT = 20  # seconds that a server may be silent
# The remedy of every message about a missing download.
PREFETCH = "run losskernel-prefetch with the same words on a machine with internet"


@dataclass(frozen=True)
class Download:
    """A downloaded or decoded file or folder.

    Attributes:
        what: what it is, in words.
        path: of the file or folder.
        new: whether it was fetched or made just now, rather than found in its cache.
    """

    what: str
    path: Path
    new: bool


_downloads: ContextVar[list[Download] | None] = ContextVar("downloads", default=None)


def report_download(what: str, path: Path, *, new: bool) -> None:
    """Add a download to the list that `recorded_downloads` yields, if there is one."""
    downloads = _downloads.get()
    if downloads is not None:
        downloads.append(Download(what, path, new))


@contextmanager
def recorded_downloads() -> Iterator[list[Download]]:
    """Yield a list to which every download is added while the context lasts."""
    downloads: list[Download] = []
    # A context variable: two threads that build configurations do not see each other's downloads.
    token = _downloads.set(downloads)
    try:
        yield downloads
    finally:
        _downloads.reset(token)


@contextmanager
def network_timeout() -> Iterator[None]:
    """Bound how long a network that drops packets silently can hang the process."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# Contexts of `recorded_connections`, the innermost last: addresses, and whether they are refused.
_recordings: list[tuple[list[str], bool]] = []


@contextmanager
def recorded_connections(refused: bool = False) -> Iterator[list[str]]:
    """Yield a list of the addresses that this process connects to, or is refused to; sockets of the machine pass."""
    _install_hook()
    _recordings.append(([], refused))
    try:
        yield _recordings[-1][0]
    finally:
        _recordings.pop()


@cache
def _install_hook() -> None:
    sys.addaudithook(_record)  # for the rest of the process: hooks cannot be removed


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    """Record the address of an audit event that uses the network, and refuse it where that is asked for."""
    if not _recordings or not event.startswith("socket."):
        return
    if event == "socket.getaddrinfo":
        address = arguments[0]
    elif event == "socket.connect" and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        address = arguments[1][0]
    else:
        return
    for addresses, refused in reversed(_recordings):
        addresses.append(str(address))
        if refused:
            raise OSError(errno.ENETUNREACH, f"{address}: the network is cut off for this trial")
