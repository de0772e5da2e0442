"""What is taken from outside: weights, data and taxonomies that others publish, and pictures decoded from them."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SECONDS = 20  # that a server may keep silent
# What every message says where something is missing.
PREFETCH = "run losskernel-prefetch with the same words on a machine with internet"


@dataclass(frozen=True)
class Taken:
    """One thing that was taken.

    Attributes:
        what: it is.
        path: of its file or folder.
        new: whether it was fetched or made just now.
    """

    what: str
    path: Path
    new: bool


_listener: ContextVar[list[Taken] | None] = ContextVar("listener", default=None)


def taken(what: str, path: Path, *, new: bool) -> None:
    """Say what was taken, for whoever wants to hear it."""
    heard = _listener.get()
    if heard is not None:
        heard.append(Taken(what, path, new))


@contextmanager
def overheard() -> Iterator[list[Taken]]:
    """Yield a list in which all appears that is taken while the context lasts."""
    heard: list[Taken] = []
    token = _listener.set(heard)
    try:
        yield heard
    finally:
        _listener.reset(token)


@contextmanager
def impatient() -> Iterator[None]:
    """Bound how long a network that swallows packets can hang the run."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def connections(refused: bool = False) -> Iterator[list[str]]:
    """Yield a list of the addresses that this process connects to, or is refused to; sockets of the machine pass."""
    tried: list[str] = []
    real: dict[str, Any] = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
    find = socket.getaddrinfo

    def heed(address: str) -> None:
        tried.append(address)
        if refused:
            raise OSError(errno.ENETUNREACH, f"{address}: the network is cut off for this trial")

    def watched(name: str) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                heed(str(address[0]))
            return real[name](self, address)

        return connect

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        heed(str(host))
        return find(host, *arguments, **options)

    for name in real:
        setattr(socket.socket, name, watched(name))
    socket.getaddrinfo = getaddrinfo
    try:
        yield tried
    finally:
        socket.getaddrinfo = find
        for name, method in real.items():
            setattr(socket.socket, name, method)
