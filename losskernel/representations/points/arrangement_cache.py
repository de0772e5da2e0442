"""Arrangements kept on disk: cosines and distances of points that have been compared before."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losskernel.errors import TraceError
from losskernel.geometry import Arrangement, Point
from losskernel.storage.locations import guard
from losskernel.storage.npz import read_arrays, write_arrays


def known_of(folder: Path, space: Any, digests: Sequence[str]) -> tuple[list[int], Arrangement | None]:
    """Return the points' numbers, those first that have been compared in this space, and how these stand.

    Args:
        folder: where arrangements are kept, one a space.
        space: in which points are compared.
        digests: of the points, see `digest`.
    """
    path = _path(folder, space)
    everyone = list(range(len(digests)))
    if not path.is_file():
        return everyone, None
    try:
        kept = read_arrays(path)
        stored = {str(own): row for row, own in enumerate(kept["digests"])}
        distances, cosines = kept["distances"], kept.get("cosines")
    except (TraceError, KeyError):  # a kept answer can always be found again
        return everyone, None
    rows = {number: stored[own] for number, own in enumerate(digests) if own in stored}
    if not rows:
        return everyone, None
    order = [*rows, *(number for number in everyone if number not in rows)]
    return order, Arrangement(distances, cosines).of(list(rows.values()))


def write_kept(folder: Path, space: Any, digests: Sequence[str], found: Arrangement) -> None:
    """Keep how points stand to each other, in place of what was kept in this space; whole or not at all."""
    arrays: dict[str, Any] = {"digests": np.array(digests), "distances": found.distances}
    if found.cosines is not None:
        arrays["cosines"] = found.cosines
    path = _path(folder, space)
    guard(path, write_arrays, path, arrays)


def _path(folder: Path, space: Any) -> Path:
    words = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in repr(space))
    return folder / f"arrangement-{words.strip('-')}.npz"


def digest(point: Point) -> str:
    """Return what tells a point from others: its kernel and its probes, to the last bit."""
    found = hashlib.sha256()
    held = point.triangle is not None or point.factor is not None
    # A kernel that stays on disk is told by what it keeps of every row.
    parts = (point.triangle, point.factor) if held else (point.diagonal(), point.sums())
    for part in (point.ids, *parts):
        if part is not None:
            array = np.ascontiguousarray(part)
            found.update(f"{array.shape}{array.dtype}{point.centring}".encode())
            found.update(array.tobytes())
    return found.hexdigest()
