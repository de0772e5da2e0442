"""The map of a joint space, and its other figures."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel import figures, geometry
from losskernel.analyses.joint.joint import KERNELS, Joint
from losskernel.analyses.joint.sweep_and_training import Family, Sweep
from losskernel.geometry.maps.spherical_mds import spherical_mds
from losskernel.representations.points import LOSS_KERNEL, TRAINED

# Kernels in closed form that get a panel beside the run's.
_CLOSED_FORMS = ("laplace", "gradient")


class Mapped(NamedTuple):
    """What is drawn, and the share of the distances that the map gets wrong."""

    points: figures.JointPoints
    stress: float
    numbers: list[int]  # of the points, in the order of the map


def map_of(joint: Joint, sweep: Sweep | None, over_training: Sequence[Family]) -> Mapped:
    """Return the map of the trained network's path, the targets, its kernels, and some families over training.

    Spherical MDS of the raw distances, seen from above the points' mean direction; lines are great circles. The placebo
    is not on it, nor are other checkpoints' points.

    Args:
        joint: the points.
        sweep: of localizations; None draws none.
        over_training: whose points at every checkpoint are drawn, the loss kernel's first.
    """
    # Numbers of the points that are joined by lines: layers, loss kernels by rising localization, checkpoints.
    layers, rising = joint.points.path(TRAINED), [*sweep.numbers, sweep.end] if sweep else []
    joined = [layers, rising, _laplace_track(joint, sweep), *(family.numbers for family in over_training)]
    shown = {*joint.points.of("target"), *joint.kernels(TRAINED)}
    numbers = sorted(shown.union(*joined))  # of the points on the map
    layout = spherical_mds(joint.arrangement.distances[np.ix_(numbers, numbers)])
    globe = layout.coordinates  # [P, 3] unit vectors
    axes = geometry.frame(globe)
    # From here on a point is known by its row on the map.
    row = {number: index for index, number in enumerate(numbers)}
    path, swept, laplace, *training = ([row[number] for number in track] for track in joined)
    lines = [pair for track in (path, swept, laplace, *training) for pair in pairwise(track)]
    items = [joint.points[number] for number in numbers]
    courses = zip(over_training, training, strict=True)
    names = _names(joint, layers, over_training)
    points = figures.JointPoints(
        positions=geometry.azimuthal(globe, axes),
        kinds=[item.kind for item in items],
        names={row[number]: name for number, name in names.items()},
        joined={(a, b): geometry.azimuthal(geometry.arc(globe[a], globe[b]), axes) for a, b in lines},
        path=figures.Track("path through the layers", path),
        sweep=figures.Track("rising localization", swept) if sweep else None,
        localizations=[float(value) for value in sweep.table["localization"]] if sweep else [],
        laplace=figures.Track("the same in closed form", laplace) if laplace else None,
        training=[figures.Track(f"{family.label} over training", track) for family, track in courses],
        run_kernel=row[joint.main],
        failed=[index for index, item in enumerate(items) if item.settings.get("failed", 0.0) > 0],
    )
    return Mapped(points, layout.stress, numbers)


def _laplace_track(joint: Joint, sweep: Sweep | None) -> list[int]:
    """Return the numbers of the Laplace kernels by rising localization, and of the gradients; one makes no path."""
    numbers = joint.points.of("laplace", network=TRAINED)
    if sweep is None or len(numbers) < 2:
        return []
    return [*sorted(numbers, key=lambda number: joint.points[number].settings["localization"]), sweep.end]


def _names(joint: Joint, path: Sequence[int], over_training: Sequence[Family]) -> Mapping[int, str]:
    """Return number -> what to write beside it, the most important first; kernels of the sweep tell by colour."""
    points = joint.points
    closed = [number for number in map(joint.closed_form, ("gradient", "laplace")) if number is not None]
    named = [*path[:1], *path[-2:], *points.of("target"), *closed, joint.main]
    names = {number: points[number].label.split(", localization")[0] for number in named}
    for number in joint.kernels(TRAINED):
        if points[number].kind in KERNELS and ", nbeta " in points.names[number]:
            names[number] = points.names[number].removeprefix(f"{LOSS_KERNEL}, ")
    for family in over_training:
        names[family.numbers[0]] = f"{family.label}, step {int(family.steps[0])}"
    return names | {number: points[number].label for number in path if number not in names}


def draw(
    joint: Joint, tables: Mapping[str, pd.DataFrame], sweep: Sweep | None, courses: Sequence[Family], form: str
) -> tuple[dict[str, Any], float]:
    """Return the figures, and the stress of the map."""
    kernels = _of_kind(courses, "loss_kernel")[:1]
    mapped = map_of(joint, sweep, [*kernels, *_of_kind(courses, "layer")[-1:]])
    about = f"{len(joint.points.ids)} probes, {form} form"
    noise = joint.floor[joint.main, joint.points.path()[0]]
    floor = "" if np.isnan(noise) else f"; noise floor of this run's kernel {noise:.2f} rad"
    note = f"{about}; the map gets {mapped.stress:.0%} of the distances wrong{floor}"
    drawn: dict[str, Any] = {"joint_map": figures.joint_map(mapped.points, note)}
    drawn["joint_nearest"] = _nearest_figure(joint, about)
    if sweep is not None:
        drawn["joint_sweep"] = _sweep_figure(sweep.table, about)
    if "joint_labels" in tables:
        drawn["joint_labels"] = _beyond_figure(joint, tables["joint_labels"], sweep, about)
    if "joint_training" in tables and kernels:
        beside = [*_of_kind(courses, "layer")[-1:], *_of_kind(courses, "output")[-2:]]
        beside += _of_kind(courses, "gradient")[:1]
        targets = joint.points.of("target")
        target = joint.name(targets[0]) if targets else "labels"
        labels = [family.label for family in [*kernels, *beside]]
        drawn["joint_training"] = figures.joint_training(tables["joint_training"], labels, target, about)
    return drawn, mapped.stress


def _of_kind(courses: Iterable[Family], kind: str) -> list[Family]:
    return [family for family in courses if family.kind == kind]


def _nearest_figure(joint: Joint, about: str) -> Any:
    """Draw the distances of all kernels to the layers of their own networks, which share columns, and to targets."""
    points = joint.points
    rows = [*joint.kernels(), joint.placebo]
    labels = list(dict.fromkeys(points[number].label for number in points.path(TRAINED)))
    targets = points.of("target")
    distances: list[list[float]] = []
    for kernel in rows:
        angles = {points[number].label: joint.angle(kernel, number) for number in points.path(points[kernel].network)}
        to_layers = [angles.get(label, np.nan) for label in labels]
        distances.append([*to_layers, *(joint.angle(kernel, target) for target in targets)])
    floors = np.array([np.nan_to_num(joint.floor[kernel, points.path()[0]]) for kernel in rows])
    names = [joint.name(number) for number in rows]
    columns = [*labels, *(joint.name(target) for target in targets)]
    note = f"{about}; every kernel beside the layers of its own weights (@ training step); framed: the nearest"
    return figures.kernels_layers(np.array(distances), names, columns, floors, len(labels), note)


def _sweep_figure(table: pd.DataFrame, about: str) -> Any:
    columns = ("localization", "angle", "corrected_angle", "floor")
    localizations, angles, corrected, floors = (table[column].to_numpy(float) for column in columns)
    laplace = table.dropna(subset=["laplace"])
    exact = {"Laplace kernel": (laplace["localization"].to_numpy(float), laplace["laplace"].to_numpy(float))}
    failed = table["failed"].to_numpy(float) > 0
    shown = exact if len(laplace) else None
    return figures.localization_sweep(localizations, angles, corrected, floors, shown, failed, about)


def _beyond_figure(joint: Joint, beyond: pd.DataFrame, sweep: Sweep | None, about: str) -> Any:
    """Draw the run's kernel, those in closed form, and that of the strongest localization."""
    laplace, gradient = (joint.closed_form(kind) for kind in _CLOSED_FORMS)
    strongest = None if sweep is None else sweep.numbers[-1]
    chosen = [joint.name(number) for number in (joint.main, laplace, strongest, gradient) if number is not None]
    target = str(beyond["target"].iloc[0])
    scored = set(beyond.loc[beyond["target"] == target, "kernel"])
    note = f"{about}; beyond: cosine of the angle at the point of {target}; bars: 90 % over probes"
    return figures.beyond_labels(beyond, [name for name in dict.fromkeys(chosen) if name in scored], target, note)
