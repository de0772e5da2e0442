"""What is taken from the internet: weights, data and taxonomies of others, and pictures decoded from them."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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


@contextmanager
def recorded_connections(refused: bool = False) -> Iterator[list[str]]:
    """Yield a list of the addresses that this process connects to, or is refused to; sockets of the machine pass."""
    addresses: list[str] = []
    originals: dict[str, Any] = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
    resolve = socket.getaddrinfo

    def record(address: str) -> None:
        addresses.append(address)
        if refused:
            raise OSError(errno.ENETUNREACH, f"{address}: the network is cut off for this trial")

    def recording(name: str) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                record(str(address[0]))
            return originals[name](self, address)

        return connect

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        record(str(host))
        return resolve(host, *arguments, **options)

    for name in originals:
        setattr(socket.socket, name, recording(name))
    socket.getaddrinfo = getaddrinfo
    try:
        yield addresses
    finally:
        socket.getaddrinfo = resolve
        for name, method in originals.items():
            setattr(socket.socket, name, method)
