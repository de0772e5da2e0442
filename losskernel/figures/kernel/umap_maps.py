"""Maps of the probes: points that are near each other react to the same changes of the weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.axes3d import Axes3D

from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.shared.style import DOUBLE, FAINT, SINGLE, paper

_MAX_DIRECT_LABELS = 12
_MAX_LEGEND = 32
_RASTERISE = 3000  # a PDF with more vector points than this opens slowly


def map_2d(xy: np.ndarray, labels: np.ndarray, label_name: str) -> Figure:
    """Probes in the plane, coloured by a label, which is named beside its points where there is room.

    xy: [N, 2], in arbitrary units. labels: [N].

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    xy = _points(xy, 2, "xy")
    colouring = colour_by(labels, "labels", len(xy))
    order = _shuffled(len(xy))
    with paper():
        figure = Figure(figsize=(SINGLE, SINGLE), layout="constrained")
        axes = figure.subplots()
        axes.scatter(
            *xy[order].T,
            s=_point_size(len(xy)),
            c=colouring.rgba[order],
            linewidths=0,
            alpha=0.85,
            rasterized=len(xy) > _RASTERISE,
        )
        axes.set(xticks=[], yticks=[], xlabel="map axis 1", ylabel="map axis 2")
        axes.set_aspect("equal", adjustable="datalim")
        if _has_room(xy, colouring):
            _label_directly(axes, xy, colouring)
            axes.set_title(f"coloured by {label_name}", fontsize=7)
        else:
            _key(figure, [axes], colouring, label_name)
    return figure


def map_3d(xyz: np.ndarray, labels: np.ndarray, label_name: str) -> Figure:
    """One map in space seen from three sides, 60 degrees apart around the vertical axis.

    xyz: [N, 3], in arbitrary units. labels: [N].

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    xyz = _points(xyz, 3, "xyz")
    colouring = colour_by(labels, "labels", len(xyz))
    with paper():
        figure = Figure(figsize=(DOUBLE, 2.9), layout="constrained")
        views = [figure.add_subplot(1, 3, place, projection="3d") for place in (1, 2, 3)]
        draw_views(views, xyz, colouring.rgba, _point_size(len(xyz)))
        _key(figure, views, colouring, label_name)
    return figure


def _points(values: np.ndarray, dimensions: int, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[1] != dimensions or len(values) == 0:
        raise ValueError(f"{name} must be [N, {dimensions}], not empty, got {values.shape}; pass one row per probe")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity; drop those probes first")
    return values


def _shuffled(count: int) -> np.ndarray:
    # Drawn in the given order, the last group would cover the others.
    return np.random.default_rng(0).permutation(count)


def _point_size(count: int) -> float:
    return float(np.clip(4000 / count, 1.0, 14.0))


def _has_room(xy: np.ndarray, colouring: Colouring) -> bool:
    groups = len(colouring.names)
    if not 1 < groups <= _MAX_DIRECT_LABELS or max(map(len, colouring.names)) > 14:
        return False
    medians = _medians(xy, colouring)
    # The map is about 3 inches wide and a line of text 0.12 high; a name is some 0.07 inches a letter.
    inches = (medians - xy.min(axis=0)) / (np.ptp(xy, axis=0).max() or 1.0) * 3.0
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


def _key(figure: Figure, axes: Sequence[Axes], colouring: Colouring, label_name: str) -> None:
    if colouring.scale is not None:
        bar = figure.colorbar(
            colouring.scale,
            ax=list(axes),
            location="bottom",
            shrink=0.6,
            aspect=25 * len(axes),
            pad=0.04,
            label=label_name,
        )
        bar.ax.spines[:].set_visible(False)
    elif len(colouring.names) <= _MAX_LEGEND:
        letters = max(map(len, [*colouring.names, "1234"])) + 3
        room = 50 if len(axes) == 1 else 110  # letters that fit in a line of the legend
        figure.legend(
            handles=colouring.handles(),
            title=label_name,
            title_fontsize=7,
            loc="outside lower center",
            ncols=max(1, min(len(colouring.names), room // letters)),
            columnspacing=1.0,
            handletextpad=0.1,
        )
    else:
        axes[0].set_title(f"{len(colouring.names)} values of {label_name}", fontsize=7)


_VIEWS = (-60, 0, 60)  # azimuths of the orbit, degrees
ELEVATION = 18


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
