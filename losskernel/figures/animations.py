"""Maps that move, as animated GIFs for the screen: from stage to stage, or turning in space."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from losskernel.data.taxonomy import Tree
from losskernel.errors import require
from losskernel.figures.kernel.probe_maps import ELEVATION
from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.sweeps.kernels_in_training import checked
from losskernel.figures.trees.taxonomy_map import located, shortened
from losskernel.figures.trees.trees import main_branches, node_positions, position_colours
from losskernel.geometry.point import evenly

_SIDE = 480  # pixels of width, and of the map's height
_HEAD, _LINE = 44, 17
_FINE = 2  # drawn so many times larger, then reduced: smooth edges
_BETWEEN = 8  # frames from one stage to the next
_MOVE, _STAY, _END = 80, 700, 1800  # milliseconds
_MOST_MOVING = 4000  # points beyond which an even part is drawn
_MOST_NAMES = 12
_TINTS = 4  # of each colour towards white, for edges
_DARK, _GREY, _PALE = (38, 38, 38), (122, 122, 122), (217, 217, 217)
_MILLISECONDS = 70  # a frame
_HUES, _SHADES = 60, 4  # colours of the palette: places along the tree, and nearness
_MOST_TURNING = 6000  # points beyond which an even part is drawn: more hide each other and make the file large
_WHITE, _INK = _HUES * _SHADES, _HUES * _SHADES + 1


def moving_map(
    layouts: np.ndarray,
    labels: np.ndarray,
    titles: Sequence[str],
    notes: Sequence[str] = (),
    moments: Sequence[float] = (),
) -> bytes:
    """Return an animated GIF, 480 pixels wide, of the maps, each probe moving evenly from its place to the next.

    layouts: [P, N, 2]. labels: [N], which give the colours. titles: [P]. notes: [P], written at the right, such as the
    loss. moments: [P] of the stages on the bar below, ascending; evenly by default. Of more than 4,000 points an even
    part is drawn.

    Raises:
        InputError: a shape is wrong, or a coordinate is not finite.
    """
    layouts = checked(layouts, titles)
    for name, given in (("notes", notes), ("moments", moments)):
        fits = len(given) in (0, len(layouts))
        require(fits, f"{name} must be one per map, got {len(given)} for {len(layouts)} maps")
    part = evenly(layouts.shape[1], _MOST_MOVING)
    colouring = colour_by(labels, "labels", layouts.shape[1])
    colours = np.rint(255 * colouring.rgba[part, :3]).astype(int)
    low, high = layouts.min(axis=(0, 1)), layouts.max(axis=(0, 1))
    points = (layouts[:, part] - (low + high) / 2) / (float((high - low).max()) / 2 or 1.0)  # on one scale, in [-1, 1]
    marks = np.asarray(moments if len(moments) else np.arange(len(layouts)), dtype=float)
    marks = (marks - marks[0]) / (np.ptp(marks) or 1.0)
    ground, palette = _stage_ground(colouring, marks), _stage_palette(colours)
    notes, frames, times = notes or [""] * len(layouts), [], []
    for stage in range(len(layouts)):
        after = min(stage + 1, len(layouts) - 1)
        for step in range(_BETWEEN if after > stage else 1):
            share = step / _BETWEEN
            eased = share * share * (3 - 2 * share)  # it starts and stops gently
            here = (1 - eased) * points[stage] + eased * points[after]
            done = (1 - share) * marks[stage] + share * marks[after]
            nearest = stage if share < 0.5 else after
            frame = _frame(here, colours, ground.copy(), titles[nearest], notes[nearest], done)
            frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
            times.append(_END if after == stage else _STAY if step == 0 else _MOVE)
    return _gif(frames, times)


def _gif(frames: Sequence[Image.Image], times: int | list[int]) -> bytes:
    """Return an animation that loops, each frame shown for so many milliseconds."""
    with io.BytesIO() as file:
        options: dict[str, Any] = {"append_images": frames[1:], "duration": times, "loop": 0, "optimize": False}
        frames[0].save(file, format="GIF", save_all=True, **options)
        return file.getvalue()


def _name_spots(names: Sequence[str], left: float, top: float, gap: float) -> list[tuple[float, float]]:
    """Return where each name of a legend begins, in lines as long as the picture is wide."""
    x, y, spots = left, top, []
    for name in names:
        wide = 16 + _face(12).getlength(name)
        if x + wide > _SIDE - left:
            x, y = left, y + _LINE
        spots.append((x, y))
        x += wide + gap
    return spots


def _frame(
    points: np.ndarray, colours: np.ndarray, ground: Image.Image, title: str, note: str, done: float
) -> Image.Image:
    """Return one frame: points [N, 2] within [-1, 1] and colours [N, 3] on the still part."""
    whole = _FINE * _SIDE
    field = Image.new("RGB", (whole, whole), "white")
    draw = ImageDraw.Draw(field)
    radius = _FINE * float(np.clip(90 / np.sqrt(len(points)), 1.6, 5.0))
    half = whole / 2 - radius - 4
    x, y = whole / 2 + half * points[:, 0], whole / 2 - half * points[:, 1]
    order = np.random.default_rng(0).permutation(len(points))  # or the last group would cover the others
    for column, row, colour in zip(x[order], y[order], colours[order].tolist(), strict=True):
        draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=tuple(colour))
    ground.paste(field.resize((_SIDE, _SIDE), Image.Resampling.BOX), (0, _HEAD))
    draw = ImageDraw.Draw(ground)
    draw.text((16, 12), title, fill=_DARK, font=_face(17))
    draw.text((_SIDE - 16, 15), note, fill=_GREY, font=_face(13), anchor="ra")
    now = 16 + done * (_SIDE - 32)
    draw.line((16, _HEAD + _SIDE + 10, now, _HEAD + _SIDE + 10), fill=_DARK, width=3)
    draw.ellipse((now - 5, _HEAD + _SIDE + 5, now + 5, _HEAD + _SIDE + 15), fill=_DARK)
    return ground


def _stage_ground(colouring: Colouring, marks: np.ndarray) -> Image.Image:
    """Return the still part of every frame: the bar with a mark per stage, and the groups' names where they are few."""
    names = colouring.names if len(colouring.names) <= _MOST_NAMES else []
    first = _HEAD + _SIDE + 24.0
    spots = _name_spots(names, 16.0, first, 14)
    bottom = spots[-1][1] + _LINE + 8 if names else first + 4
    image = Image.new("RGB", (_SIDE, int(bottom)), "white")
    draw = ImageDraw.Draw(image)
    draw.line((16, _HEAD + _SIDE + 10, _SIDE - 16, _HEAD + _SIDE + 10), fill=_PALE, width=3)
    for mark in marks:
        column = 16 + mark * (_SIDE - 32)
        draw.line((column, _HEAD + _SIDE + 5, column, _HEAD + _SIDE + 15), fill=_GREY, width=1)
    for name, colour, (left, top) in zip(names, colouring.colours, spots, strict=False):
        draw.ellipse((left, top + 3, left + 9, top + 12), fill=tuple(np.rint(255 * colour[:3]).astype(int).tolist()))
        draw.text((left + 14, top), name, fill=_DARK, font=_face(12))
    return image


def _stage_palette(colours: np.ndarray) -> Image.Image:
    """Return an image whose palette holds at most 60 of the colours [N, 3], in shades towards white, and greys."""
    hues = np.unique(colours, axis=0)
    hues = hues[np.linspace(0, len(hues) - 1, min(len(hues), 60)).astype(int)]
    shades = np.linspace(1, 0.25, _TINTS)[:, None, None]
    greys = np.linspace(_DARK[0], 255, 16)[:, None] * np.ones(3)
    table = np.concatenate([(255 - shades * (255 - hues)).reshape(-1, 3), greys])
    image = Image.new("P", (1, 1))
    image.putpalette(np.rint(table).astype(np.uint8).tobytes())
    return image


def _face(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)


def turning(xyz: np.ndarray, tree: Tree, leaf: np.ndarray, frames: int = 72) -> bytes:
    """Return an animated GIF, 480 pixels wide, of a map in space that turns once around its vertical axis.

    xyz: [N, 3], in arbitrary units. leaf: [N], each probe's leaf of the tree; near leaves have near hues. Nearer
    points hide farther ones and are more saturated. Of more than 6,000 points an even part is drawn.

    Raises:
        InputError: a shape is wrong, a coordinate is not finite, a leaf is not the tree's, or frames < 2.
    """
    xyz, leaf = located(xyz, 3, "xyz", tree, leaf)
    require(frames >= 2, f"frames must be >= 2, got {frames}; e.g. 72 for steps of 5 degrees")
    points = shortened(xyz)[0]
    part = evenly(len(points), _MOST_TURNING)
    points = (points - (points.max(axis=0) + points.min(axis=0)) / 2)[part]
    # one scale that keeps every turn inside the picture, which is no higher than it need be
    radii, tilt = np.hypot(points[:, 0], points[:, 1]), np.deg2rad(ELEVATION)
    wide, high = radii.max(), (np.abs(points[:, 2]) * np.cos(tilt) + radii * np.sin(tilt)).max()
    reach = float(max(wide, high)) or 1.0
    height = int(np.clip(_SIDE * high / reach, _SIDE / 2, _SIDE)) + 1
    hues = np.rint(tree.positions()[leaf[part]] * (_HUES - 1)).astype(int)
    ground, palette = _turning_ground(tree, height), _turning_palette()
    angles = 2 * np.pi * np.arange(frames) / frames
    pictures = [_view(points / reach, hues, angle, ground.copy(), height, palette) for angle in angles]
    return _gif(pictures, _MILLISECONDS)


def _view(
    points: np.ndarray, hues: np.ndarray, angle: float, canvas: np.ndarray, height: int, palette: bytes
) -> Image.Image:
    turn, tilt = np.array([np.cos(angle), np.sin(angle)]), np.deg2rad(ELEVATION)
    across = points[:, 1] * turn[0] - points[:, 0] * turn[1]
    towards = points[:, 0] * turn[0] + points[:, 1] * turn[1]
    up = points[:, 2] * np.cos(tilt) - towards * np.sin(tilt)
    near = points[:, 2] * np.sin(tilt) + towards * np.cos(tilt)
    radius = 2 if len(points) > 1000 else 4
    half = _SIDE / 2 - radius - 2
    column, row = np.rint(_SIDE / 2 + half * across).astype(int), np.rint(height / 2 - half * up).astype(int)
    shade = np.clip(((near + 1) / 2 * _SHADES).astype(int), 0, _SHADES - 1)
    order = np.argsort(near, kind="stable")  # the nearest last, on top
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.stack([y, x], axis=-1)[y**2 + x**2 <= radius * (radius + 0.5)]
    rows, columns = row[order, None] + disc[:, 0], column[order, None] + disc[:, 1]
    # of equal places numpy keeps the last written: the nearest point's
    canvas[rows.ravel(), columns.ravel()] = np.repeat((hues * _SHADES + shade)[order], len(disc))
    picture = Image.fromarray(canvas, mode="P")
    picture.putpalette(palette)
    return picture


def _turning_palette() -> bytes:
    colours = position_colours(np.linspace(0, 1, _HUES))[:, :3]
    weights = np.linspace(0.55, 1.0, _SHADES)  # the farthest are nearly white, as in haze
    tints = 1 - weights[None, :, None] * (1 - colours[:, None])
    table = np.concatenate([tints.reshape(-1, 3), [[1, 1, 1], [0.15, 0.15, 0.15]]])
    return np.rint(255 * table).astype(np.uint8).tobytes()


def _turning_ground(tree: Tree, height: int) -> np.ndarray:
    """Return the still part of every frame, palette indices [rows, 480]: white, with the main branches' names."""
    branches = main_branches(tree, _MOST_NAMES)
    names, positions = [tree.names[branch] for branch in branches], node_positions(tree)[branches]
    spots = _name_spots(names, 8.0, height + 4.0, 12)
    image = Image.new("P", (_SIDE, int(spots[-1][1]) + 22), _WHITE)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # without smoothing, whose greys the palette has not
    for name, position, (left, top) in zip(names, positions, spots, strict=True):
        colour = round(position * (_HUES - 1)) * _SHADES + _SHADES - 1
        draw.ellipse((left, top + 3, left + 9, top + 12), fill=colour)
        draw.text((left + 14, top), name, fill=_INK, font=_face(12))
    return np.asarray(image).copy()
