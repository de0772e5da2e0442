"""A map of a joint space: which points are on it, where, and joined by which lines."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from losskernel.analyses.joint.along_training import Family
from losskernel.analyses.joint.kernels import KERNELS, Joint
from losskernel.analyses.joint.localization_sweep import Sweep
from losskernel.figures.joint.joint_map import JointPoints, Track
from losskernel.geometry.maps.globe import arc, azimuthal, frame
from losskernel.geometry.maps.spherical_mds import spherical_mds
from losskernel.representations.points import LOSS_KERNEL, TRAINED


class Mapped(NamedTuple):
    """What is drawn, and the share of the distances that the map gets wrong."""

    points: JointPoints
    stress: float
    used: list[int]  # numbers of the points, in the order of the map


def map_of(joint: Joint, sweep: Sweep | None, over_training: Sequence[Family]) -> Mapped:
    """Return the map of the trained network's path, the targets, its kernels, and some families over training.

    Spherical MDS of the raw distances, seen from above the points' mean direction; lines are great circles. The placebo
    is not on it, nor are other checkpoints' points.

    Args:
        joint: the points.
        sweep: of localisations; None draws none.
        over_training: whose points at every checkpoint are drawn, the loss kernel's first.
    """
    path = joint.points.path(TRAINED)
    swept = [] if sweep is None else [*sweep.numbers, sweep.end]
    tracks = [path, swept, _laplace(joint, sweep), *(each.numbers for each in over_training)]
    shown = [*path, *joint.points.of("target"), *joint.kernels(TRAINED), *(each for track in tracks for each in track)]
    used = sorted(dict.fromkeys(shown))
    row = {number: place for place, number in enumerate(used)}
    layout = spherical_mds(joint.arrangement.distances[np.ix_(used, used)])
    axes = frame(layout.places)
    own = [[row[number] for number in track] for track in tracks]
    pairs = [pair for track in own for pair in pairwise(track)]
    placed = [joint.points.placed[number] for number in used]
    drawn = JointPoints(
        places=azimuthal(layout.places, axes),
        kinds=[each.kind for each in placed],
        names={row[number]: name for number, name in _names(joint, path, over_training).items()},
        joined={pair: azimuthal(arc(layout.places[pair[0]], layout.places[pair[1]]), axes) for pair in pairs},
        path=Track("path through the layers", own[0]),
        sweep=None if sweep is None else Track("rising localization", own[1]),
        localizations=[] if sweep is None else [float(each) for each in sweep.table["localization"]],
        laplace=Track("the same in closed form", own[2]) if own[2] else None,
        training=[
            Track(f"{each.label} over training", numbers) for each, numbers in zip(over_training, own[3:], strict=True)
        ],
        own=row[joint.own],
        failed=[place for place, each in enumerate(placed) if each.settings.get("failed", 0.0) > 0],
    )
    return Mapped(drawn, layout.stress, used)


def _laplace(joint: Joint, sweep: Sweep | None) -> list[int]:
    """Return the Laplace kernels by rising localization and the gradients, if there are two of them or more."""
    numbers = joint.points.of("laplace", network=TRAINED)
    if sweep is None or len(numbers) < 2:
        return []
    return [*sorted(numbers, key=lambda each: joint.points.placed[each].settings["localization"]), sweep.end]


def _names(joint: Joint, path: Sequence[int], over_training: Sequence[Family]) -> Mapping[int, str]:
    """Return number -> what to write beside it, the most important first; kernels of the sweep tell by colour."""
    points = joint.points
    closed = [number for number in map(joint.closed, ("gradient", "laplace")) if number is not None]
    named = [*path[:1], *path[-2:], *points.of("target"), *closed, joint.own]
    names = {number: points.placed[number].label.split(", localization")[0] for number in named}
    for number in joint.kernels(TRAINED):
        if points.placed[number].kind in KERNELS and ", nbeta " in points.names[number]:
            names[number] = points.names[number].removeprefix(f"{LOSS_KERNEL}, ")
    for family in over_training:
        names[family.numbers[0]] = f"{family.label}, step {int(family.steps[0])}"
    return names | {number: points.placed[number].label for number in path if number not in names}
