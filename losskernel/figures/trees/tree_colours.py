"""Colours by place in a tree: what is near in the hierarchy looks alike, what is far looks different."""

import numpy as np

from losskernel.data.taxonomy import Tree

# Hue turns by less than a circle, so that the first and the last branch differ. Seen by a deuteranope a circle of hues
# folds onto one line from blue to yellow; lightness that is high at the greens and low at the reds unfolds it, and
# falling along the way tells its ends apart in grey. The numbers are those of a random search for the path whose least
# ratio of Oklab distance to distance along it (above 0.3 of its length: to 0.3) is greatest over normal, deuteranope
# and protanope vision (Machado 2009): 0.69, 0.52, 0.67.
_FIRST_HUE, _TURN = 250.0, -295.0  # degrees in Oklab: blue, green, yellow, red, purple
_LIGHTNESS, _FALL = 0.683, 0.10
_TILT, _LIGHTEST_HUE = 0.115, 165.0
_CHROMA = 0.16


def tree_colours(tree: Tree) -> np.ndarray:
    """Return a colour per node, [M, 4] rgba in 0..1: hue by `tree.positions()`, inner nodes at their leaves' mean.

    Source: Ottosson 2020 (Oklab).
    """
    return position_colours(node_positions(tree))


def node_positions(tree: Tree) -> np.ndarray:
    """Return the place of every node in [0, 1], [M]: of a leaf its position, of an inner node its leaves' mean."""
    leaves = tree.positions()
    places = np.full(len(tree.ids), leaves.mean())
    places[: len(leaves)] = leaves
    for node, below in tree.clades().items():
        places[node] = leaves[list(below)].mean()
    return places


def position_colours(positions: np.ndarray) -> np.ndarray:
    """Return the colours [n, 4] of places in [0, 1], each as saturated as the screen's gamut holds, to a bound."""
    positions = np.asarray(positions, dtype=float)
    hue = np.deg2rad(_FIRST_HUE + _TURN * positions)
    lightness = _LIGHTNESS - _FALL * (positions - 0.5) + _TILT * np.cos(hue - np.deg2rad(_LIGHTEST_HUE))
    least, most = np.zeros_like(hue), np.full_like(hue, _CHROMA)
    for _ in range(24):  # bisection: the gamut is convex along a ray of hue at these lightnesses
        middle = (least + most) / 2
        linear = _linear_rgb(lightness, middle, hue)
        inside = ((linear >= 0) & (linear <= 1)).all(-1)
        least, most = np.where(inside, middle, least), np.where(inside, most, middle)
    linear = np.clip(_linear_rgb(lightness, least, hue), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.concatenate([encoded, np.ones((len(encoded), 1))], axis=1)


def _linear_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    )
