"""Regions of a map: outlined and numbered on it, and shown by a few of their members in strips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy.ndimage import distance_transform_edt, label
from scipy.spatial import KDTree

from losskernel.figures.shared.lettering import LINE, fit
from losskernel.figures.shared.style import INK

SHOWN = 4  # members of each region
COLUMNS = 4
_SIZE = 7.0  # points
_GAP = 0.03  # inches between thumbnails
_BETWEEN = 0.14  # inches between strips
RADIUS = 0.075  # of a number's disc
_PAD = 0.07  # inches between a region's members and its outline
_BRIDGED = 0.3  # half of the widest gap, in inches, across which an outline stays whole
_GRID = 200


@dataclass(frozen=True)
class Region:
    """A coherent part of a map."""

    number: int  # printed on the map and at its strip, from 1
    name: str  # of the branch of the hierarchy that it holds
    members: np.ndarray  # [n], indices of its probes
    centre: np.ndarray  # [2], on the map


def strips_height(regions: int, across: float, pictures: bool) -> float:
    """Return the inches that the strips of so many regions need."""
    rows = -(-regions // COLUMNS)
    return rows * _row(across, pictures)


def draw_strips(
    axes: Axes,
    regions: Sequence[Region],
    shown: Sequence[np.ndarray],
    colours: np.ndarray,
    images: np.ndarray | None,
    inches: tuple[float, float],
) -> None:
    """Draw a strip per region on bare axes: number and name, and below them its members' thumbnails in a frame.

    shown: the probes of each region to show, at most 4. colours: [N, 4] of the probes, for the frames. images: uint8
    [N, h, w, c] or None for names alone.
    """
    across, along = inches
    cell, side = _cell(across), _side(across)
    for index, (region, probes) in enumerate(zip(regions, shown, strict=True)):
        row, column = divmod(index, COLUMNS)
        left, top = column * (cell + _BETWEEN), along - row * _row(across, images is not None)
        middle = top - _SIZE * LINE * 0.6
        draw_number(axes, region.number, (left + RADIUS, middle))
        name = fit(region.name, cell - 2 * RADIUS - 0.05, _SIZE)
        axes.text(left + 2 * RADIUS + 0.05, middle, name, fontsize=_SIZE, va="center_baseline")
        if images is None:
            continue
        for step, probe in enumerate(probes):
            x, y = left + step * (side + _GAP), top - _SIZE * LINE - 0.06 - side
            draw_thumbnail(axes, images[probe], (x, y), side, colours[probe])


def draw_thumbnail(axes: Axes, image: np.ndarray, corner: tuple[float, float], side: float, colour: np.ndarray) -> None:
    """Draw an image [h, w, c] in a square frame whose lower left corner is given, in the axes' coordinates."""
    x, y = corner
    tall, wide = image.shape[:2]
    scale = side / max(tall, wide)
    x0, y0 = x + (side - scale * wide) / 2, y + (side - scale * tall) / 2
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.shape[-1] == 1 else {}
    picture = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(picture, extent=(x0, x0 + scale * wide, y0, y0 + scale * tall), interpolation="nearest", **grey)
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=colour, linewidth=1.2, clip_on=False))


def draw_number(axes: Axes, number: int, at: tuple[float, float]) -> None:
    """Draw a number in a dark disc, of the same size in print whatever the axes' coordinates."""
    points = 2 * RADIUS * 72
    axes.plot(*at, "o", color=INK, markersize=points, markeredgecolor="white", markeredgewidth=0.5, zorder=5)
    axes.text(*at, str(number), color="white", fontsize=6.5, ha="center", va="center_baseline", zorder=6)


def typical(region: Region, xy: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """Return up to 4 members nearest to the region's centre, [k], of different classes as far as it has them."""
    far = np.linalg.norm(xy[region.members] - region.centre, axis=1)
    nearest = region.members[np.argsort(far, kind="stable")]
    _, first = np.unique(leaf[nearest], return_index=True)
    first = np.sort(first)
    rest = np.setdiff1d(np.arange(len(nearest)), first)
    return nearest[np.concatenate([first, rest])[:SHOWN]]


def _cell(across: float) -> float:
    return (across - (COLUMNS - 1) * _BETWEEN) / COLUMNS


def _side(across: float) -> float:
    return (_cell(across) - (SHOWN - 1) * _GAP) / SHOWN


def _row(across: float, pictures: bool) -> float:
    return _SIZE * LINE + (_side(across) + 0.16 if pictures else 0.06)


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
    # A few strays would blow up the outline.
    far = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    core = points[far <= np.quantile(far, 0.95)]
    near = KDTree(core).query(spots)[0] / step <= wide
    depth = distance_transform_edt(near) - (wide - pad)
    names = np.zeros(depth.shape, dtype=int)
    count = int(label(depth > 0, output=names))  # pyright: ignore[reportArgumentType]
    columns, rows = np.rint((core - spots[0, 0]) / step).astype(int).T
    held = np.bincount(names[rows, columns], minlength=count + 1)[1:]
    kept = 1 + np.flatnonzero(held >= min(0.1 * len(core), held.max()))
    return [np.where(names == part, depth, -np.abs(depth) - 1e-6) for part in kept]
