"""Points in space seen from three sides."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from mpl_toolkits.mplot3d.axes3d import Axes3D

from losskernel.figures.shared.style import FAINT

_VIEWS = (-60, 0, 60)  # azimuths of the orbit, degrees
ELEVATION = 18
_RASTERISE = 3000  # a PDF with more vector points than this opens slowly


def draw_views(views: Sequence[Axes], xyz: np.ndarray, rgba: np.ndarray, size: float) -> None:
    """Draw points [N, 3] with colours [N, 4] on three axes in space, 60 degrees apart around the vertical axis.

    size: of a point, in square points.

    Raises:
        TypeError: axes that are flat.
    """
    middle = (xyz.max(axis=0) + xyz.min(axis=0)) / 2
    # One scale and one reach for all three axes: an orbit must not distort distances, and a cube fits every view.
    reach = 0.5 * float(np.ptp(xyz, axis=0).max()) or 1.0
    for axes, azimuth in zip(views, _VIEWS, strict=True):
        if not isinstance(axes, Axes3D):
            raise TypeError("views must be axes in space; make them with projection='3d'")
        axes.scatter(
            *xyz.T,
            s=size,  # pyright: ignore[reportArgumentType]
            c=rgba,
            linewidths=0,
            depthshade=True,
            clip_on=False,
            rasterized=len(xyz) > _RASTERISE,
        )
        limits = [(centre - reach, centre + reach) for centre in middle]
        axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2], xticks=[], yticks=[], zticks=[])
        axes.set_box_aspect((1, 1, 1), zoom=1.25)  # pyright: ignore[reportArgumentType]
        axes.view_init(elev=ELEVATION, azim=azimuth)
        sides: list[Any] = [axes.xaxis, axes.yaxis, axes.zaxis]  # matplotlib types them as flat axes
        for axis in sides:
            axis.set_pane_color((1, 1, 1, 0))
            axis.line.set_color(FAINT)
        axes.set_title(f"azimuth {azimuth}°".replace("-", "−"), fontsize=7, y=0.98)
