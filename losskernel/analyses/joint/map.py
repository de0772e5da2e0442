"""A map of a joint space: which points are on it, where, and joined by which lines."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.joint.kernels import KERNELS, Joint
from losskernel.analyses.joint.sweep_and_training import Family, Sweep
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
    axes = frame(layout.coordinates)
    own = [[row[number] for number in track] for track in tracks]
    pairs = [pair for track in own for pair in pairwise(track)]
    placed = [joint.points[number] for number in used]
    drawn = JointPoints(
        places=azimuthal(layout.coordinates, axes),
        kinds=[each.kind for each in placed],
        names={row[number]: name for number, name in _names(joint, path, over_training).items()},
        joined={pair: azimuthal(arc(layout.coordinates[pair[0]], layout.coordinates[pair[1]]), axes) for pair in pairs},
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
    return [*sorted(numbers, key=lambda each: joint.points[each].settings["localization"]), sweep.end]


def _names(joint: Joint, path: Sequence[int], over_training: Sequence[Family]) -> Mapping[int, str]:
    """Return number -> what to write beside it, the most important first; kernels of the sweep tell by colour."""
    points = joint.points
    closed = [number for number in map(joint.closed, ("gradient", "laplace")) if number is not None]
    named = [*path[:1], *path[-2:], *points.of("target"), *closed, joint.own]
    names = {number: points[number].label.split(", localization")[0] for number in named}
    for number in joint.kernels(TRAINED):
        if points[number].kind in KERNELS and ", nbeta " in points.names[number]:
            names[number] = points.names[number].removeprefix(f"{LOSS_KERNEL}, ")
    for family in over_training:
        names[family.numbers[0]] = f"{family.label}, step {int(family.steps[0])}"
    return names | {number: points[number].label for number in path if number not in names}


# Kernels with a panel of their own, by kind, beside the run's own.
_BESIDE = ("laplace", "gradient")


def draw(
    joint: Joint, tables: Mapping[str, pd.DataFrame], sweep: Sweep | None, courses: Sequence[Family], form: str
) -> tuple[dict[str, Any], float]:
    """Return the figures, and the stress of the map."""
    kernels = [each for each in courses if each.kind == "loss_kernel"]
    hidden = [each for each in courses if each.kind == "layer"]
    mapped = map_of(joint, sweep, [*kernels[:1], *hidden[-1:]])
    about = f"{len(joint.points.ids)} probes, {form} form"
    noise = joint.floor[joint.own, joint.points.path()[0]]
    told = "" if np.isnan(noise) else f"; noise floor of this run's kernel {noise:.2f} rad"
    note = f"{about}; the map gets {mapped.stress:.0%} of the distances wrong{told}"
    found: dict[str, Any] = {"joint_map": figures.joint_map(mapped.points, note)}
    found["joint_nearest"] = _nearest_figure(joint, about)
    if sweep is not None:
        found["joint_sweep"] = _sweep_figure(sweep, about)
    beyond = tables.get("joint_labels")
    if beyond is not None:
        found["joint_labels"] = _beyond_figure(joint, beyond, sweep, about)
    if "joint_training" in tables and kernels:
        drawn = [each.label for each in [*kernels[:1], *_told(courses)]]
        targets = joint.points.of("target")
        target = joint.name(targets[0]) if targets else "labels"
        found["joint_training"] = figures.joint_training(tables["joint_training"], drawn, target, about)
    return found, mapped.stress


def _nearest_figure(joint: Joint, about: str) -> Any:
    """Draw the distances of all kernels to the layers of their own networks, which share columns, and to targets."""
    points = joint.points
    rows = [*joint.kernels(), joint.placebo]
    labels = list(dict.fromkeys(points[number].label for number in points.path(TRAINED)))
    targets = points.of("target")
    distances = np.full((len(rows), len(labels) + len(targets)), np.nan)
    for place, kernel in enumerate(rows):
        for number in points.path(points[kernel].network):
            label = points[number].label
            if label in labels:
                distances[place, labels.index(label)] = joint.angle(kernel, number)
        for column, target in enumerate(targets, start=len(labels)):
            distances[place, column] = joint.angle(kernel, target)
    floors = np.array([np.nan_to_num(joint.floor[kernel, points.path()[0]]) for kernel in rows])
    names = [joint.name(number) for number in rows]
    columns = [*labels, *(joint.name(target) for target in targets)]
    note = f"{about}; every kernel beside the layers of its own weights (@ training step); framed: the nearest"
    return figures.kernels_layers(distances, names, columns, floors, len(labels), note)


def _sweep_figure(sweep: Sweep, about: str) -> Any:
    table = sweep.table
    laplace = table.dropna(subset=["laplace"])
    exact = {"Laplace kernel": (laplace["localization"].to_numpy(float), laplace["laplace"].to_numpy(float))}
    return figures.localization_sweep(
        table["localization"].to_numpy(float),
        table["angle"].to_numpy(float),
        table["corrected_angle"].to_numpy(float),
        table["floor"].to_numpy(float),
        exact if len(laplace) else None,
        table["failed"].to_numpy(float) > 0,
        about,
    )


def _beyond_figure(joint: Joint, beyond: pd.DataFrame, sweep: Sweep | None, about: str) -> Any:
    """Draw the run's own kernel, that of the strongest localization, and those in closed form."""
    strongest = [] if sweep is None else [joint.name(sweep.numbers[-1])]
    laplace, gradient = ([joint.name(each) for each in [joint.closed(kind)] if each is not None] for kind in _BESIDE)
    chosen = list(dict.fromkeys([joint.name(joint.own), *laplace, *strongest, *gradient]))
    target = str(beyond["target"].iloc[0])
    drawn = [name for name in chosen if name in set(beyond.loc[beyond["target"] == target, "kernel"])]
    note = f"{about}; beyond: cosine of the angle at the point of {target}; bars: 90 % over probes"
    return figures.beyond_labels(beyond, drawn, target, note)


def _told(courses: Sequence[Family]) -> list[Family]:
    """Return what stands beside the loss kernel: the gradients, the last hidden layer, the outputs."""
    of = {kind: [each for each in courses if each.kind == kind] for kind in ("gradient", "layer", "output")}
    return [*of["layer"][-1:], *of["output"][-2:], *of["gradient"][:1]]
