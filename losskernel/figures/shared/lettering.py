"""Words that must fit: their width in print, lines of at most so many inches, labels that keep apart."""

from functools import lru_cache

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from scipy.optimize import isotonic_regression

LINE = 1.25 / 72  # inches from one line to the next, per point of type


@lru_cache(maxsize=4096)
def width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line of text in the figures' typeface, in inches, at a size in points."""
    font = FontProperties(family="sans-serif", size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def fit(text: str, inches: float, size: float, lines: int = 1, weight: str = "normal") -> str:
    """Return the text in at most so many lines of at most so many inches, cut at spaces and hyphens where it can be.

    What does not fit ends in an ellipsis.
    """
    rows: list[str] = []
    rest = " ".join(text.split())
    while rest and len(rows) < lines:
        longest = _longest(rest, inches, size, weight)
        if longest >= len(rest):
            return "\n".join([*rows, rest])
        if len(rows) == lines - 1:
            kept = _longest(rest, inches - width("…", size, weight), size, weight)
            return "\n".join([*rows, rest[:kept].rstrip(" -,(") + "…"])
        cut = max(rest.rfind(" ", 0, longest + 1), rest.rfind("-", 0, longest) + 1)
        cut = cut if cut > 0 else longest  # a word that is longer than the line
        rows.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return "\n".join(rows)


def _longest(text: str, inches: float, size: float, weight: str) -> int:
    """Return how many letters of the text fit on a line, at least one."""
    fits = (count for count in range(len(text), 1, -1) if width(text[:count], size, weight) <= inches)
    return next(fits, 1)


def spread(places: np.ndarray, sizes: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return centres [n] of labels as near to `places` [n] as they can be without touching, within [low, high].

    sizes: [n] along the line, gaps included. The order of the places is kept. Where the sizes exceed the room, the
    labels are evenly squeezed.

    Source: least squares under order, by isotonic regression of what is left after the sizes are packed.
    """
    places, sizes = np.asarray(places, dtype=float), np.asarray(sizes, dtype=float)
    if places.size == 0:
        return places
    if sizes.sum() > high - low:
        sizes = sizes * (high - low) / sizes.sum()
    order = np.argsort(places, kind="stable")
    packed = np.cumsum(sizes[order]) - sizes[order] / 2  # centres, were all packed from 0
    slack = isotonic_regression(places[order] - packed).x
    result = np.empty_like(places)
    result[order] = np.clip(slack, low, high - sizes.sum()) + packed
    return result
