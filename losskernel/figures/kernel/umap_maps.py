"""Maps of the probes: points that are near each other react to the same changes of the weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.axes3d import Axes3D

from losskernel.figures.shared.checks import points_of
from losskernel.figures.shared.colouring import Colouring, colour_by, colour_key
from losskernel.figures.shared.panels import draw_points, new_figure
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import DOUBLE, FAINT, RASTERISE, SINGLE, paper

_MAX_DIRECT_LABELS = 12
_VIEWS = (-60, 0, 60)  # azimuths of the orbit, degrees
ELEVATION = 18


@paper()
def map_2d(xy: np.ndarray, labels: np.ndarray, label_name: str) -> Figure:
    """Probes in the plane, coloured by a label, which is named beside its points where there is room.

    xy: [N, 2], in arbitrary units. labels: [N].

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    xy = points_of(xy, 2, "xy")
    colouring = colour_by(labels, "labels", len(xy))
    figure = new_figure(SINGLE, SINGLE)
    axes = figure.subplots()
    draw_points(axes, xy, colouring.rgba, point_size(len(xy)))
    furnish_map(axes)
    if _has_room(xy, colouring):
        _label_directly(axes, xy, colouring)
        axes.set_title(f"coloured by {label_name}", fontsize=7)
    else:
        colour_key(figure, [axes], colouring, label_name)
    return figure


@paper()
def map_3d(xyz: np.ndarray, labels: np.ndarray, label_name: str) -> Figure:
    """One map in space seen from three sides, 60 degrees apart around the vertical axis.

    xyz: [N, 3], in arbitrary units. labels: [N].

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    xyz = points_of(xyz, 3, "xyz")
    colouring = colour_by(labels, "labels", len(xyz))
    figure = new_figure(DOUBLE, 2.9)
    views = [figure.add_subplot(1, 3, index, projection="3d") for index in (1, 2, 3)]
    draw_views(views, xyz, colouring.rgba)
    colour_key(figure, views, colouring, label_name)
    return figure


def point_size(count: int) -> float:
    """Return the size of each of so many points, in square points of print."""
    return float(np.clip(4000 / count, 1.0, 14.0))


def furnish_map(axes: Axes) -> None:
    """Give a map one scale for both axes, which have names and no numbers."""
    axes.set(xticks=[], yticks=[], xlabel="map axis 1", ylabel="map axis 2", aspect="equal", adjustable="datalim")


def _has_room(xy: np.ndarray, colouring: Colouring) -> bool:
    groups = len(colouring.names)
    if not 1 < groups <= _MAX_DIRECT_LABELS or max(map(len, colouring.names)) > 14:
        return False
    # The map is about 3 inches wide and a line of text 0.12 high; a name is some 0.07 inches a letter.
    inches = (_medians(xy, colouring) - xy.min(axis=0)) / (np.ptp(xy, axis=0).max() or 1.0) * 3.0
    apart = np.abs(inches[:, None] - inches[None])[~np.eye(groups, dtype=bool)]
    widest = 0.07 * max(map(len, colouring.names))
    return bool(((apart[:, 0] > widest) | (apart[:, 1] > 0.14)).all())


def _medians(xy: np.ndarray, colouring: Colouring) -> np.ndarray:
    return np.array([np.median(xy[colouring.codes == code], axis=0) for code in range(len(colouring.names))])


def _label_directly(axes: Axes, xy: np.ndarray, colouring: Colouring) -> None:
    for name, colour, (x, y) in zip(colouring.names, colouring.colours, _medians(xy, colouring), strict=True):
        outline = [withStroke(linewidth=3, foreground="white")]
        dark = 0.75 * colour[:3]  # the points' own colour is too light to read as text
        axes.text(x, y, name, color=dark, weight="bold", ha="center", va="center", path_effects=outline)


def draw_views(views: Sequence[Axes], xyz: np.ndarray, rgba: np.ndarray) -> None:
    """Draw points [N, 3] with colours [N, 4] on three axes in space, 60 degrees apart around the vertical axis.

    Raises:
        TypeError: axes that are flat.
    """
    middle = (xyz.max(axis=0) + xyz.min(axis=0)) / 2
    # One scale and one reach for all three axes: an orbit must not distort distances, and a cube fits every view.
    reach = 0.5 * float(np.ptp(xyz, axis=0).max()) or 1.0
    for axes, azimuth in zip(views, _VIEWS, strict=True):
        if not isinstance(axes, Axes3D):
            raise TypeError("views must be axes in space; make them with projection='3d'")
        look: dict[str, Any] = {"s": point_size(len(xyz)), "linewidths": 0, "depthshade": True, "clip_on": False}
        axes.scatter(*xyz.T, c=rgba, rasterized=len(xyz) > RASTERISE, **look)
        limits = [(centre - reach, centre + reach) for centre in middle]
        axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2], xticks=[], yticks=[], zticks=[])
        axes.set_box_aspect((1, 1, 1), zoom=1.25)  # pyright: ignore[reportArgumentType]
        axes.view_init(elev=ELEVATION, azim=azimuth)
        sides: list[Any] = [axes.xaxis, axes.yaxis, axes.zaxis]  # matplotlib types them as flat axes
        for axis in sides:
            axis.set_pane_color((1, 1, 1, 0))
            axis.line.set_color(FAINT)
        axes.set_title(minus(f"azimuth {azimuth}°"), fontsize=7, y=0.98)
