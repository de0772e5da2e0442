"""A map in space that turns, for the screen."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from losskernel.data.taxonomy import Tree
from losskernel.figures.trees.shortened_gaps import shortened
from losskernel.figures.trees.taxonomy_map import located
from losskernel.figures.trees.tree_colours import node_positions, position_colours
from losskernel.figures.trees.trees import main_branches
from losskernel.figures.trees.views import ELEVATION

_SIDE = 480  # pixels
_MILLISECONDS = 70  # a frame
_HUES, _SHADES = 60, 4  # colours of the palette: places along the tree, and nearness
_MOST = 6000  # points beyond which an even part is drawn: more hide each other and make the file large
_MOST_NAMES = 12
_WHITE, _INK = _HUES * _SHADES, _HUES * _SHADES + 1


def turning(xyz: np.ndarray, tree: Tree, leaf: np.ndarray, frames: int = 72) -> bytes:
    """Return an animated GIF, 480 pixels wide, of a map in space that turns once around its vertical axis.

    xyz: [N, 3], in arbitrary units. leaf: [N], each probe's leaf of the tree; near leaves have near hues. Nearer
    points hide farther ones and are more saturated. Of more than 6,000 points an even part is drawn.

    Raises:
        ValueError: a shape is wrong, a coordinate is not finite, a leaf is not the tree's, or frames < 2.
    """
    xyz, leaf = located(xyz, 3, "xyz", tree, leaf)
    if frames < 2:
        raise ValueError(f"frames must be >= 2, got {frames}; e.g. 72 for steps of 5 degrees")
    points = shortened(xyz)[0]
    part = np.linspace(0, len(points) - 1, min(len(points), _MOST)).astype(int)
    points = (points - (points.max(axis=0) + points.min(axis=0)) / 2)[part]
    # one scale that keeps every turn inside the picture, which is no higher than it need be
    radii, tilt = np.hypot(points[:, 0], points[:, 1]), np.deg2rad(ELEVATION)
    wide, high = radii.max(), (np.abs(points[:, 2]) * np.cos(tilt) + radii * np.sin(tilt)).max()
    reach = float(max(wide, high)) or 1.0
    height = int(np.clip(_SIDE * high / reach, _SIDE / 2, _SIDE)) + 1
    hues = np.rint(tree.positions()[leaf[part]] * (_HUES - 1)).astype(int)
    ground, palette = _ground(tree, height), _palette()
    angles = 2 * np.pi * np.arange(frames) / frames
    pictures = [_picture(points / reach, hues, angle, ground.copy(), height, palette) for angle in angles]
    with io.BytesIO() as file:
        pictures[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=_MILLISECONDS,
            loop=0,
            optimize=False,
        )
        return file.getvalue()


def _picture(
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


def _palette() -> bytes:
    colours = position_colours(np.linspace(0, 1, _HUES))[:, :3]
    weights = np.linspace(0.55, 1.0, _SHADES)  # the farthest are nearly white, as in haze
    tints = 1 - weights[None, :, None] * (1 - colours[:, None])
    table = np.concatenate([tints.reshape(-1, 3), [[1, 1, 1], [0.15, 0.15, 0.15]]])
    return np.rint(255 * table).astype(np.uint8).tobytes()


def _ground(tree: Tree, height: int) -> np.ndarray:
    """Return the still part of every frame, palette indices [rows, 480]: white, with the main branches' names."""
    face = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 12)
    branches = main_branches(tree, _MOST_NAMES)
    places = node_positions(tree)[branches]
    x, y, spots = 8.0, height + 4.0, []
    for branch in branches:
        wide = 16 + face.getlength(tree.names[branch])
        if x + wide > _SIDE - 8:
            x, y = 8.0, y + 17
        spots.append((x, y))
        x += wide + 12
    image = Image.new("P", (_SIDE, int(y) + 22), _WHITE)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # without smoothing, whose greys the palette has not
    for branch, place, (left, top) in zip(branches, places, spots, strict=True):
        colour = round(place * (_HUES - 1)) * _SHADES + _SHADES - 1
        draw.ellipse((left, top + 3, left + 9, top + 12), fill=colour)
        draw.text((left + 14, top), tree.names[branch], fill=_INK, font=face)
    return np.asarray(image).copy()
