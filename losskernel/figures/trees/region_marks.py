"""Regions of a map, outlined and numbered on it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.ndimage import distance_transform_edt, label
from scipy.spatial import KDTree

from losskernel.figures.shared.style import INK
from losskernel.figures.trees.region_strips import RADIUS, Region, draw_number

_PAD = 0.07  # inches between a region's members and its outline
_BRIDGED = 0.3  # half of the widest gap, in inches, across which an outline stays whole
_GRID = 200


def mark_regions(axes: Axes, xy: np.ndarray, regions: Sequence[Region], inches: float) -> None:
    """Outline the parts of every region and put its number on the nearest bare spot beside each.

    axes: a square map with its limits set. xy: [N, 2], all points of the map. inches: the map's width in print.
    """
    inch = float(np.diff(axes.get_xlim())[0]) / inches
    # wider than the map by what an outline reaches, so that none is cut at the map's edge
    margin, edge = 1.2 * _BRIDGED * inch, 1.5 * RADIUS * inch
    corner, far = np.array([axes.get_xlim(), axes.get_ylim()]).T
    x, y = np.linspace(corner - margin, far + margin, _GRID).T
    spots = np.stack(np.meshgrid(x, y), axis=-1)
    covered = np.array(KDTree(xy).query_ball_point(spots, 1.15 * RADIUS * inch, return_length=True), dtype=float)
    free = ((corner + edge < spots) & (spots < far - edge)).all(-1)
    parts: list[tuple[int, np.ndarray, np.ndarray]] = []
    for region in regions:
        for depth in _parts(xy[region.members], spots, inch):
            outline = axes.contour(x, y, depth, levels=[0.0], colors=[INK], linewidths=0.7, zorder=4)
            parts.append((region.number, depth, np.concatenate([path.vertices for path in outline.get_paths()])))
    drawn = KDTree(np.concatenate([corners for _, _, corners in parts])) if parts else None
    for number, depth, corners in parts:
        away, nearest = map(np.asarray, KDTree(corners).query(spots))
        crossed = 0.0 if drawn is None else 50.0 * (drawn.query(spots)[0] < 1.2 * RADIUS * inch)
        fit = free & (depth < 0)
        row, column = divmod(int(np.argmin(np.where(fit, away / inch + 0.15 * covered + crossed, np.inf))), _GRID)
        best = spots[row, column]
        axes.plot(*np.stack([best, corners[nearest[row, column]]]).T, color=INK, linewidth=0.6, zorder=4)
        draw_number(axes, number, (float(best[0]), float(best[1])))
        # the next number must keep away from this one
        covered += 100.0 * (np.linalg.norm(spots - best, axis=-1) < 2.3 * RADIUS * inch)


def _parts(points: np.ndarray, spots: np.ndarray, inch: float) -> list[np.ndarray]:
    """Return, for each part of a region, how deep every spot [n, n] lies within its outline; below 0 outside.

    An outline keeps a small distance from the points and bridges gaps of up to twice the wider one. Parts of less
    than a tenth of the points have none.
    """
    step = spots[0, 1, 0] - spots[0, 0, 0]
    wide, pad = _BRIDGED * inch / step, _PAD * inch / step
    core = _core(points)
    near = KDTree(core).query(spots)[0] / step <= wide
    depth = distance_transform_edt(near) - (wide - pad)
    names = np.zeros(depth.shape, dtype=int)
    count = int(label(depth > 0, output=names))  # pyright: ignore[reportArgumentType]
    columns, rows = np.rint((core - spots[0, 0]) / step).astype(int).T
    held = np.bincount(names[rows, columns], minlength=count + 1)[1:]
    kept = 1 + np.flatnonzero(held >= min(0.1 * len(core), held.max()))
    return [np.where(names == part, depth, -np.abs(depth) - 1e-6) for part in kept]


def _core(points: np.ndarray) -> np.ndarray:
    # A few strays would blow up the outline.
    far = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[far <= np.quantile(far, 0.95)]
