"""Kernels over fewer of the probes, read row by row so that a large one is never held whole."""

from dataclasses import replace

import numpy as np

from losskernel.geometry import Point


def evenly(count: int, most: int) -> np.ndarray:
    """Return the numbers of at most `most` of so many probes, evenly spaced."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(int)


def restricted(point: Point, probes: np.ndarray) -> Point:
    """Return the kernel over some of the probes, by their numbers in ascending order."""
    if len(probes) == point.inputs:
        return point
    ids = point.ids[probes]
    if point.factor is not None:
        return replace(point, ids=ids, factor=point.factor[probes])
    # Row i is there from its diagonal on.
    rows = [point.rows(row, row + 1)[0, probes[place:] - row] for place, row in enumerate(probes.tolist())]
    return replace(point, ids=ids, triangle=np.concatenate(rows))
