"""Maps whose islands lie far apart, drawn closer together: UMAP gives the distances between islands no meaning."""

import numpy as np

_LONGEST = 0.03  # of the map's extent, of a stretch without points along an axis


def shortened(points: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the points [N, d] with long empty stretches of each axis shortened, and whether there were any.

    A stretch between neighbours along an axis is at most 3 % of the largest resulting extent. The order along every
    axis stays, and so does every shape without such a stretch.
    """
    order = np.argsort(points, axis=0, kind="stable")
    gaps = np.diff(np.take_along_axis(points, order, axis=0), axis=0)
    longest = float(np.ptp(points, axis=0).max())
    # The extent that the limit refers to shrinks with it: a contraction, so it settles.
    for _ in range(60):
        extent = float(np.minimum(gaps, longest).sum(axis=0).max(initial=0.0))
        if longest <= _LONGEST * extent * 1.001:
            break
        longest = _LONGEST * extent
    cut = gaps > longest
    # Where so few points lie that most stretches are long, nothing is an island.
    if not cut.any() or len(points) < 2 / _LONGEST:
        return points, False
    places = np.concatenate([np.zeros((1, points.shape[1])), np.cumsum(np.minimum(gaps, longest), axis=0)])
    result = np.empty_like(points)
    np.put_along_axis(result, order, places, axis=0)
    return result + points.min(axis=0), True
