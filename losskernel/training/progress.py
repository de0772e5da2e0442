"""Progress in words: how fast something goes, how long the rest takes, and lines for a log, where no bar can move."""

import math
import sys
import time

from losskernel.figures.shared.presentation import TIMES, in_unit

MINUTE = 60.0  # between two lines of a log


class Pace:
    """Seconds that one unit of work takes, as of late.

    Args:
        memory: seconds over which what was measured counts less and less: machines are shared.
    """

    def __init__(self, memory: float = 2 * MINUTE) -> None:
        self._memory, self._seconds, self._units = memory, 0.0, 0.0

    def note(self, seconds: float, units: float) -> None:
        """Note that some units of work took so long."""
        kept = math.exp(-seconds / self._memory)
        self._seconds = kept * self._seconds + seconds
        self._units = kept * self._units + units

    @property
    def each(self) -> float | None:
        """Seconds a unit; None where nothing was measured."""
        return self._seconds / self._units if self._units else None


def lasting(seconds: float) -> str:
    """Return a time in its largest unit that suits, to whole numbers below a hundred."""
    count, unit = in_unit(seconds, TIMES)
    return f"{count:.0f} {unit}"


def rate(number: float) -> str:
    """Return a rate to two digits, with commas between thousands."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def in_a_log() -> bool:
    """Whether standard error is read later, as SLURM's logs are: no terminal, no notebook, where bars can move."""
    return not sys.stderr.isatty() and "ipykernel" not in sys.modules


def log_line(words: str, job: str = "") -> None:
    """Write a line with the local time on standard error.

    Args:
        words: what to say.
        job: of a sweep, where several may share a log.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    sys.stderr.write(f"{stamp} losskernel{job and f' {job}'}: {words}\n")
    sys.stderr.flush()
