"""Maps of the probes, for print and for the screen: points near each other react to the same changes of the weights."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.axes3d import Axes3D

from losskernel.data.global_state import with_own_state
from losskernel.errors import require
from losskernel.figures.shared.checks import points_of, require_shape
from losskernel.figures.shared.colouring import MAX_LEGEND, Colouring, colour_by, colour_key
from losskernel.figures.shared.panels import draw_points, new_figure
from losskernel.figures.shared.presentation import minus
from losskernel.figures.shared.style import ALARM, DOUBLE, FAINT, RASTERISE, SINGLE, paper

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MAX_DIRECT_LABELS = 12
_VIEWS = (-60, 0, 60)  # azimuths of the orbit, degrees
ELEVATION = 18
_HOVER_PICTURES = (Path(__file__).parent / "hover_pictures.js").read_text(encoding="utf-8")


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


@with_own_state  # plotly's parts add filters of warnings as they are imported
def interactive_map(
    xy: np.ndarray, xyz: np.ndarray | None, labels: Mapping[str, np.ndarray], thumbnails: Sequence[str] | None
) -> go.Figure:
    """A map in the plane, and in space beside it if given, with a menu of the labels that can colour it.

    xy: [N, 2]. xyz: [N, 3] or None. labels: name -> [N], at least one; all of them show on hover. thumbnails: N
    image addresses ("data:image/png;base64,..."), kept in layout.meta for `interactive_page`, or None.

    Raises:
        ValueError: a shape is wrong, or there are no labels.
    """
    import plotly.graph_objects as go  # slow to import, and only this figure needs it

    xy = np.asarray(xy, dtype=float)
    count = len(xy)
    require_shape("xy", xy, ("N", 2), "pass one row per probe")
    if xyz is not None:
        require_shape("xyz", xyz, (count, 3), "pass the same probes as xy")
    require(len(labels) > 0, "labels must name at least one label, got {}; pass e.g. {'probe': np.arange(N)}")
    if thumbnails is not None:
        require_shape("thumbnails", thumbnails, (count,), "pass one per probe, or None for none")

    plane = xy.astype(np.float32)  # half the bytes, and finer than a screen
    space = None if xyz is None else np.asarray(xyz, dtype=np.float32)
    colourings = {name: colour_by(values, f"labels[{name!r}]", count) for name, values in labels.items()}
    hover = _hover_texts(labels, count)
    first = next(iter(labels))
    figure = go.Figure()
    for name, colouring in colourings.items():
        for members, title, marker in _parts(name, colouring, np.asarray(labels[name])):
            x, y = plane[members].T
            trace = go.Scattergl(x=x, y=y, marker={"size": 6, "opacity": 0.85, **marker})
            trace.showlegend = 1 < len(colouring.names) <= MAX_LEGEND
            traces: list[go.Scattergl | go.Scatter3d] = [trace]
            if space is not None:
                x, y, z = space[members].T
                solid = {"size": 2.5, "opacity": 0.85, **marker, "showscale": False}
                traces.append(go.Scatter3d(x=x, y=y, z=z, marker=solid, showlegend=False))
            for part in traces:
                # One group's points in both views share a legend entry: a click hides them in both.
                part.update(name=title, legendgroup=f"{name}: {title}", meta=name, visible=name == first)
                part.update(mode="markers", hoverinfo="text", text=hover[members], customdata=members)
            figure.add_traces(traces)
    figure.update_layout(_layout(figure, list(labels)))
    if thumbnails is not None:
        figure.update_layout(meta={"thumbnails": list(thumbnails)})
    return figure


def interactive_page(figure: go.Figure) -> str:
    """A standalone web page of an interactive map, which shows the probe's thumbnail on hover and works offline."""
    return figure.to_html(
        include_plotlyjs=True, full_html=True, post_script=_HOVER_PICTURES, config={"displaylogo": False}
    )


@with_own_state  # plotly's parts add filters of warnings as they are imported
def plotly_script() -> str:
    """Return plotly.js as an element of a page, for maps that were saved without it."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def stamp_page(page: str, text: str) -> str:
    """Return a page with a warning above all else, as when its kernel failed the diagnosis."""
    warning = (
        f"<p role='alert' style='background:{ALARM};color:white;font:bold 14px system-ui,sans-serif;"
        f"margin:0;padding:8px 12px'>{html.escape(text)}</p>"
    )
    opening = re.search(r"<body[^>]*>", page)
    start = opening.end() if opening else 0
    return page[:start] + warning + page[start:]


def _hover_texts(labels: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    # [N] lines "name: value"; escaped, for plotly reads them as markup
    texts = [f"probe {probe}" for probe in range(count)]
    for name, values in labels.items():
        shown = [f"{value:.4g}" if isinstance(value, float | np.floating) else str(value) for value in values]
        texts = [f"{text}<br>{html.escape(f'{name}: {value}')}" for text, value in zip(texts, shown, strict=True)]
    return np.array(texts)


def _parts(name: str, colouring: Colouring, values: np.ndarray) -> Iterator[tuple[np.ndarray, str, dict[str, object]]]:
    # (indices of the probes, legend entry, marker) of each trace that one label needs
    everyone = np.arange(len(values))
    if colouring.scale is not None:
        bar = {"title": {"text": html.escape(name), "side": "right"}, "thickness": 12, "len": 0.8, "x": 1.01}
        yield everyone, name, {"color": values, "colorscale": "Viridis", "showscale": True, "colorbar": bar}
    elif len(colouring.names) > MAX_LEGEND:
        yield everyone, name, {"color": [to_hex(colour) for colour in colouring.rgba]}
    else:
        for code, (group, colour) in enumerate(zip(colouring.names, colouring.colours, strict=True)):
            yield np.flatnonzero(colouring.codes == code), html.escape(group), {"color": to_hex(colour)}


def _layout(figure: go.Figure, names: list[str]) -> dict[str, object]:
    traces: tuple[Any, ...] = figure.data  # pyright: ignore[reportAssignmentType]
    owners = [trace.meta for trace in traces]
    shown = {name: ["visible", [owner == name for owner in owners]] for name in names}
    buttons = [{"label": f"colour: {html.escape(name)}", "method": "restyle", "args": shown[name]} for name in names]
    has_space = any(trace.type == "scatter3d" for trace in traces)
    bare = {"showticklabels": False, "zeroline": False, "gridcolor": "#EEEEEE", "ticks": ""}
    right = 0.49 if has_space else 1.0
    layout: dict[str, object] = {
        "template": "plotly_white",
        "height": 620,
        "margin": {"l": 40, "r": 20, "t": 60, "b": 40},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "hovermode": "closest",
        "legend": {"itemsizing": "constant", "x": 1.01, "y": 1.0},
        "xaxis": {**bare, "title": {"text": "map axis 1"}, "domain": [0.0, right]},
        "yaxis": {**bare, "title": {"text": "map axis 2"}, "scaleanchor": "x"},
        "updatemenus": [{"buttons": buttons, "x": 0.0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}],
    }
    if has_space:
        sides = {f"{axis}axis": {**bare, "title": {"text": ""}, "showbackground": False} for axis in "xyz"}
        layout["scene"] = {**sides, "domain": {"x": [0.51, 1.0], "y": [0.0, 1.0]}, "aspectmode": "data"}
    return layout
