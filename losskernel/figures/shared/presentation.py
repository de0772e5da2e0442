"""How verdicts, numbers and durations are shown to readers: on pages, in figures, in logs and on the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard


@dataclass(frozen=True)
class VerdictLook:
    """How a verdict is shown: icon, marker and word as well as colour, for grey prints and colour-blind eyes."""

    word: str  # in legends, tables and chips
    icon: str  # one character of text
    marker: str  # of matplotlib
    colour: str  # of marks in figures
    ink: str  # of text on a page, dark enough for white and for the tint
    tint: str  # behind such text


VERDICTS = {
    "pass": VerdictLook("pass", "✓", "o", "#009E73", "#17633a", "#edf7f0"),
    "warn": VerdictLook("warn", "!", "^", "#E69F00", "#8a5a00", "#fff7e3"),
    "fail": VerdictLook("fail", "✕", "X", "#B00020", "#a3001b", "#fdeeef"),
    "none": VerdictLook("no result", "–", "_", "#7A7A7A", "#5c6570", "#f5f7f9"),
    "unsampled": VerdictLook("nothing sampled", "·", "o", "#262626", "#5c6570", "#f5f7f9"),
}

# (size in seconds, name, the number of seconds from which it is used)
TIMES = ((86_400, "d", 2 * 86_400), (3600, "h", 5400), (60, "min", 90), (1, "s", 0))


def in_unit(value: float, units: Sequence[tuple[int, str, int]]) -> tuple[float, str]:
    """Return a value in the largest unit that suits it, and the unit's name.

    Args:
        value: in the smallest unit; below 0 counts as 0.
        units: (size, name, the value from which it is used), the largest first, the last used from 0.
    """
    value = max(value, 0)
    size, name = next((size, name) for size, name, least in units if value >= least)
    return value / size, name


def is_number(value: object) -> TypeGuard[float]:
    """Whether something is a number, a truth value being none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether something is a finite number."""
    return is_number(value) and math.isfinite(value)


def number(value: object) -> str:
    """Return a number in four digits, anything else as it is."""
    if not is_finite(value):
        return "–" if value is None else str(value)
    return minus(f"{value:,}" if isinstance(value, int) else f"{value:.4g}")


def with_error(value: object, error: object) -> str:
    """Return a number with its standard error: two digits of the error, the value to the same place."""
    if not (is_finite(value) and is_finite(error) and error > 0):
        return number(value)
    decimals = 1 - math.floor(math.log10(error))
    if 0 <= decimals <= 6:
        return minus(f"{value:.{decimals}f} ± {error:.{decimals}f}")
    return minus(f"{number(value)} ± {error:.2g}")


def minus(text: str) -> str:
    """Return the text of a number with a minus sign as in print in place of the hyphen."""
    return text.replace("-", "−")
