"""Signals as a request to stop where the code allows it: Ctrl-C, and what a scheduler sends before it ends a job."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# What schedulers send; Windows has the first only.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))

# Our handler while one is installed, and the signals that it handles.
_handler: Any = None
_handled: Sequence[int] = ()


class Stopped(KeyboardInterrupt):
    """A scheduler's signal, raised at once; no `except Exception` catches it as if it were an error.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped ({signal_name(number)})")
        self.number = number


def signal_name(number: int) -> str:
    """Return a signal's common name."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """Raise Stopped as soon as a scheduler's signal arrives, while the context lasts."""

    def stop(number: int, _: Any) -> None:
        raise Stopped(number)

    with handling(STOP_SIGNALS, stop):
        yield


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], int]]:
    """Note the first signal, for the code inside to stop at its next checkpoint; a second Ctrl-C interrupts at once.

    Yields:
        A function that returns the number of the signal that arrived, 0 before one has.

    Raises:
        Stopped: a scheduler's signal arrived after the function was last called.
        KeyboardInterrupt: Ctrl-C did.
    """
    received = 0

    def note(number: int, _: Any) -> None:
        nonlocal received
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received = received or number  # schedulers repeat a signal

    # Ctrl-C too: a stop at a checkpoint loses nothing, an exception in the middle of a draw would.
    with handling((signal.SIGINT, *STOP_SIGNALS), note):
        yield lambda: received
    if received:  # where the code inside stops, it leaves the context by an exception
        raise KeyboardInterrupt if received == signal.SIGINT else Stopped(received)


def reinstall_handler() -> None:
    """Install our handler again after a library has replaced it: Lightning's would end the process."""
    if _handler is not None and threading.current_thread() is threading.main_thread():
        for number in _handled:
            signal.signal(number, _handler)


@contextmanager
def handling(numbers: Sequence[int], handler: Any) -> Iterator[None]:
    """Handle signals while the context lasts; only the main thread can, others do nothing."""
    global _handler, _handled
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Contexts nest: sampling within a run handles the same signals, and the run's handler comes back after it.
    before = {number: signal.getsignal(number) for number in numbers}
    outer = _handler, _handled
    _handler, _handled = handler, tuple(numbers)
    reinstall_handler()
    try:
        yield
    finally:
        _handler, _handled = outer
        for number, was in before.items():
            signal.signal(number, was if was is not None else signal.SIG_DFL)
