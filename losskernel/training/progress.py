"""Progress as text: rates, durations, and lines for a log, where no bar can move.

Without Lightning, for the command line reports the status of jobs with it.
"""

import math
import sys
import time

from losskernel.figures.shared.presentation import TIMES, in_unit

MINUTE = 60.0  # between two lines of a log


class Pace:
    """Seconds that one unit of work takes, as an average that forgets.

    Args:
        memory: seconds after which a measurement has 1/e of its weight: machines are shared, and speeds change.
    """

    def __init__(self, memory: float = 2 * MINUTE) -> None:
        self._memory, self._seconds, self._units = memory, 0.0, 0.0

    def note(self, seconds: float, units: float) -> None:
        """Record that some units of work took so many seconds."""
        weight = math.exp(-seconds / self._memory)
        self._seconds = weight * self._seconds + seconds
        self._units = weight * self._units + units

    @property
    def seconds_per_unit(self) -> float | None:
        """Seconds that a unit takes; None where nothing was measured."""
        return self._seconds / self._units if self._units else None


def lasting(seconds: float) -> str:
    """Return a duration in the largest unit that suits, to whole numbers."""
    count, unit = in_unit(seconds, TIMES)
    return f"{count:.0f} {unit}"


def rate(number: float, digits: int = 2) -> str:
    """Return a rate to some digits, with commas between thousands."""
    rounded = float(f"{number:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) else f"{rounded:g}"


def in_a_log() -> bool:
    """Whether standard error goes to a log, such as SLURM's: neither a terminal nor a notebook, where bars can move."""
    return not sys.stderr.isatty() and "ipykernel" not in sys.modules


def log_line(words: str, job: str = "") -> None:
    """Write a line with the local time on standard error.

    Args:
        words: of the line.
        job: name of a job of a sweep, where several jobs may share a log.
    """
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} losskernel{job and f' {job}'}: {words}\n")
    sys.stderr.flush()
