"""A map of the probes that moves from stage to stage, for the screen."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from losskernel.figures.shared.colouring import Colouring, colour_by
from losskernel.figures.sweeps.aligned_maps import checked

_SIDE = 480  # pixels of width, and of the map's height
_HEAD, _LINE = 44, 17
_FINE = 2  # drawn so many times larger, then reduced: smooth edges
_BETWEEN = 8  # frames from one stage to the next
_MOVE, _STAY, _END = 80, 700, 1800  # milliseconds
_MOST = 4000  # points beyond which an even part is drawn
_MOST_NAMES = 12
_SHADES = 4  # of each colour towards white, for edges
_INK, _MUTED, _FAINT = (38, 38, 38), (122, 122, 122), (217, 217, 217)


def moving_map(
    layouts: np.ndarray,
    labels: np.ndarray,
    titles: Sequence[str],
    notes: Sequence[str] = (),
    places: Sequence[float] = (),
) -> bytes:
    """Return an animated GIF, 480 pixels wide, of the maps, each probe moving evenly from its place to the next.

    layouts: [P, N, 2]. labels: [N], which give the colours. titles: [P]. notes: [P], written at the right, such as the
    loss. places: [P] of the stages on the bar below, ascending; evenly by default. Of more than 4,000 points an even
    part is drawn.

    Raises:
        ValueError: a shape is wrong, or a coordinate is not finite.
    """
    layouts = checked(layouts, titles)
    for name, given in (("notes", notes), ("places", places)):
        if len(given) not in (0, len(layouts)):
            raise ValueError(f"{name} must be one per map, got {len(given)} for {len(layouts)} maps")
    part = np.linspace(0, layouts.shape[1] - 1, min(layouts.shape[1], _MOST)).astype(int)
    colouring = colour_by(labels, "labels", layouts.shape[1])
    colours = np.rint(255 * colouring.rgba[part, :3]).astype(int)
    low, high = layouts.min(axis=(0, 1)), layouts.max(axis=(0, 1))
    reach = float((high - low).max()) / 2 or 1.0
    points = (layouts[:, part] - (low + high) / 2) / reach  # within [-1, 1]
    marks = np.asarray(places if len(places) else np.arange(len(layouts)), dtype=float)
    marks = (marks - marks[0]) / (np.ptp(marks) or 1.0)
    ground, palette = _ground(colouring, marks), _palette(colours)
    frames, times = [], []
    for stage in range(len(layouts)):
        last = stage == len(layouts) - 1
        for step in range(1 if last else _BETWEEN):
            share = step / _BETWEEN
            eased = share * share * (3 - 2 * share)  # it starts and stops gently
            after = min(stage + 1, len(layouts) - 1)
            here = (1 - eased) * points[stage] + eased * points[after]
            done = (1 - share) * marks[stage] + share * marks[after]
            nearest = stage if share < 0.5 else after
            note = notes[nearest] if len(notes) else ""
            frames.append(
                _frame(here, colours, ground.copy(), titles[nearest], note, done).quantize(
                    palette=palette, dither=Image.Dither.NONE
                )
            )
            times.append(_END if last else _STAY if step == 0 else _MOVE)
    with io.BytesIO() as file:
        options = {"save_all": True, "append_images": frames[1:], "duration": times, "loop": 0, "optimize": False}
        frames[0].save(file, format="GIF", **options)
        return file.getvalue()


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
    draw.text((16, 12), title, fill=_INK, font=_face(17))
    draw.text((_SIDE - 16, 15), note, fill=_MUTED, font=_face(13), anchor="ra")
    place = 16 + done * (_SIDE - 32)
    draw.line((16, _HEAD + _SIDE + 10, place, _HEAD + _SIDE + 10), fill=_INK, width=3)
    draw.ellipse((place - 5, _HEAD + _SIDE + 5, place + 5, _HEAD + _SIDE + 15), fill=_INK)
    return ground


def _ground(colouring: Colouring, marks: np.ndarray) -> Image.Image:
    """Return the still part of every frame: the bar with a mark per stage, and the groups' names where they are few."""
    names = colouring.names if len(colouring.names) <= _MOST_NAMES else []
    x, y, spots = 16.0, _HEAD + _SIDE + 24.0, []
    for name in names:
        wide = 16 + _face(12).getlength(name)
        if x + wide > _SIDE - 16:
            x, y = 16.0, y + _LINE
        spots.append((x, y))
        x += wide + 14
    image = Image.new("RGB", (_SIDE, int(y) + (_LINE + 8 if names else 4)), "white")
    draw = ImageDraw.Draw(image)
    draw.line((16, _HEAD + _SIDE + 10, _SIDE - 16, _HEAD + _SIDE + 10), fill=_FAINT, width=3)
    for mark in marks:
        column = 16 + mark * (_SIDE - 32)
        draw.line((column, _HEAD + _SIDE + 5, column, _HEAD + _SIDE + 15), fill=_MUTED, width=1)
    for name, colour, (left, top) in zip(names, colouring.colours, spots, strict=False):
        draw.ellipse((left, top + 3, left + 9, top + 12), fill=tuple(np.rint(255 * colour[:3]).astype(int).tolist()))
        draw.text((left + 14, top), name, fill=_INK, font=_face(12))
    return image


def _palette(colours: np.ndarray) -> Image.Image:
    """Return an image whose palette holds at most 60 of the colours [N, 3], in shades towards white, and greys."""
    own = np.unique(colours, axis=0)
    own = own[np.linspace(0, len(own) - 1, min(len(own), 60)).astype(int)]
    shades = np.linspace(1, 0.25, _SHADES)[:, None, None]
    greys = np.linspace(_INK[0], 255, 16)[:, None] * np.ones(3)
    table = np.concatenate([(255 - shades * (255 - own)).reshape(-1, 3), greys])
    image = Image.new("P", (1, 1))
    image.putpalette(np.rint(table).astype(np.uint8).tobytes())
    return image


def _face(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)
