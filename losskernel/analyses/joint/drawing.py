"""The figures of a joint space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.joint.along_training import Family
from losskernel.analyses.joint.kernels import Joint
from losskernel.analyses.joint.localization_sweep import Sweep
from losskernel.analyses.joint.map import map_of
from losskernel.representations.points import TRAINED

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
    found["joint_nearest"] = _nearest(joint, about)
    if sweep is not None:
        found["joint_sweep"] = _sweep(sweep, about)
    beyond = tables.get("joint_labels")
    if beyond is not None:
        found["joint_labels"] = _beyond(joint, beyond, sweep, about)
    if "joint_training" in tables and kernels:
        drawn = [each.label for each in [*kernels[:1], *_told(courses)]]
        targets = joint.points.of("target")
        target = joint.name(targets[0]) if targets else "labels"
        found["joint_training"] = figures.joint_training(tables["joint_training"], drawn, target, about)
    return found, mapped.stress


def _nearest(joint: Joint, about: str) -> Any:
    """Draw the distances of all kernels to the layers of their own networks, which share columns, and to targets."""
    points = joint.points
    rows = [*joint.kernels(), joint.placebo]
    labels = list(dict.fromkeys(points.placed[number].label for number in points.path(TRAINED)))
    targets = points.of("target")
    distances = np.full((len(rows), len(labels) + len(targets)), np.nan)
    for place, kernel in enumerate(rows):
        for number in points.path(points.placed[kernel].network):
            label = points.placed[number].label
            if label in labels:
                distances[place, labels.index(label)] = joint.angle(kernel, number)
        for column, target in enumerate(targets, start=len(labels)):
            distances[place, column] = joint.angle(kernel, target)
    floors = np.array([np.nan_to_num(joint.floor[kernel, points.path()[0]]) for kernel in rows])
    names = [joint.name(number) for number in rows]
    columns = [*labels, *(joint.name(target) for target in targets)]
    note = f"{about}; every kernel beside the layers of its own weights (@ training step); framed: the nearest"
    return figures.kernels_layers(distances, names, columns, floors, len(labels), note)


def _sweep(sweep: Sweep, about: str) -> Any:
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


def _beyond(joint: Joint, beyond: pd.DataFrame, sweep: Sweep | None, about: str) -> Any:
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
