"""Signals as a stop at the next convenient place: Ctrl-C, and what a scheduler sends before it ends a job."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# What a scheduler sends; Windows knows the first alone.
HEEDED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))

_handler: Callable[..., None] | None = None  # ours, while there is one
_heeded: Sequence[int] = ()  # by it


class Stopped(KeyboardInterrupt):
    """A scheduler's signal that came where nothing waits for it; no `except Exception` takes it for a fault.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped ({name_of(number)})")
        self.number = number


def name_of(number: int) -> str:
    """Return what people call a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextmanager
def heeding() -> Iterator[None]:
    """Raise Stopped where a scheduler's signal arrives, for as long as the context lasts."""

    def at_once(number: int, _: Any) -> None:
        raise Stopped(number)

    with _handling(HEEDED, at_once):
        yield


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], int]]:
    """Turn the first signal into a stop at the next place that asks; a second Ctrl-C interrupts at once.

    Yields:
        What to ask: the number of the signal that wants a stop, 0 while there is none.

    Raises:
        Stopped: a scheduler's signal came after the last time that anybody asked.
        KeyboardInterrupt: Ctrl-C did.
    """
    asked = 0

    def ask(number: int, _: Any) -> None:
        nonlocal asked
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked = asked or number  # schedulers say it several times

    with _handling((signal.SIGINT, *HEEDED), ask):
        yield lambda: asked
    if asked:
        raise KeyboardInterrupt if asked == signal.SIGINT else Stopped(asked)


def take_back() -> None:
    """Install our handler again, where a library has put its own before it: Lightning's ends the process."""
    if _handler is not None and threading.current_thread() is threading.main_thread():
        for number in _heeded:
            signal.signal(number, _handler)


@contextmanager
def _handling(numbers: Sequence[int], handler: Callable[..., None]) -> Iterator[None]:
    """Handle signals; only the main thread can, and what was there before is put back."""
    global _handler, _heeded
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    outer = _handler, _heeded
    _handler, _heeded = handler, tuple(numbers)
    take_back()
    try:
        yield
    finally:
        _handler, _heeded = outer
        for number, was in before.items():
            signal.signal(number, was if was is not None else signal.SIG_DFL)
