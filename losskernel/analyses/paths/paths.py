"""Which way does a network take from its inputs to its targets? Lengths, directions and maps of its layers' path."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from losskernel.analyses.paths.map_sheets import draw, maps_of
from losskernel.analyses.paths.measured_paths import ALONG, MeasuredPath, MeasuredPaths, layer_paths, measure
from losskernel.analyses.result import MetricPanel, Result
from losskernel.errors import InputError, require, require_integer
from losskernel.figures.shared.style import INK
from losskernel.geometry import AngularCKA, Space
from losskernel.representations.points import PointSet

# What a reader must know about each figure, and by that of the numbers.
CAPTIONS = {
    "path_map": (
        "Every layer is a point: its kernel over the probes. Lines join what follows on each other; branches are "
        "fine. a: points on a sphere whose angles come nearest to the distances, seen from above their middle. b: "
        "the two directions in which they spread most. Stress: the share of the distances that a map gets wrong; c: "
        "in more dimensions, ringed where 95 % of the stress of one dimension is gone."
    ),
    "path_profiles": (
        "a: distance to the target, and from the geodesic that leads from the inputs to it (off_geodesic). b: "
        "length of each step, and the part of it by which the distance to the target falls (progress; efficiency is "
        "their ratio). c: heading, the angle between a step and the way to the target, and by how much the path "
        "turns at a layer. d: fraction, how far along that geodesic the nearest place to a layer lies. Degrees "
        "here, radians in the tables; `behind` marks layers that are farther from the target than the inputs are."
    ),
    "path_training": (
        "a: sum of the steps from the inputs to the last output. b: straightness, the distance of the ends (chord) "
        "as a share of it. c: distances to the target. Lengths grow with the points recorded: compare only paths of "
        "as many."
    ),
    "path_distances": (
        "The mean distance between two paths where both have gone the same fraction of their lengths, on the "
        "geodesics between layers too; b: a flat map of these distances."
    ),
}


@dataclass(frozen=True)
class Paths:
    """Read the layers of a network as a path through a space of representations, towards the target.

    Per layer: the distance to the target, the step to the next layer, by how much it comes nearer (progress; efficiency
    as a share of the step), the angle between the step and the way to the target (heading), how much the path turns,
    and where it passes the geodesic from the inputs to the target. Of the whole path: length, straightness (distance of
    its ends over length), and the same for the kept checkpoints. A length is a lower bound: more layers make it longer.
    Layers are deterministic; standard errors are over probes, by the jackknife, for angular CKA alone.

    Attributes:
        space: where distances are measured.
        target: name of the point to reach; None for the first that is a target.
        along: "spine" takes the points that all routes from inputs to output pass, "all" every point that is evaluated.
        networks: such as [step 0, trained]; None for all.
        names: how many layers are named on the maps at most.

    Source: Lange et al. 2022, arXiv 2206.10999.
    """

    space: Space = field(default_factory=AngularCKA)
    target: str | None = None
    along: str = "spine"
    networks: Sequence[str] | None = None
    names: int = 10

    of_points: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"layer", "target"})
    headline: ClassVar[dict[str, str]] = {
        "length": "length of the path",
        "untrained_length": "  untrained",
        "straightness": "straightness",
        "untrained_straightness": "  untrained",
        "distance_to_target_inputs": "inputs to the target",
        "distance_to_target_hidden": "  from the last hidden layer",
        "distance_to_target_logits": "  from the logits",
        "distance_to_target_softmax": "  from the softmax",
    }
    panel: ClassVar[tuple[MetricPanel, ...]] = (
        MetricPanel("path length, rad", (("length", "", INK),)),
        MetricPanel("path straightness", (("straightness", "", INK),)),
        MetricPanel("hidden to target, rad", (("distance_to_target_hidden", "", INK),)),
    )
    meanings: ClassVar[dict[str, str]] = {
        "probes": "probes that all kernels are over; a count",
        "untrained_{number}": "{number} of the untrained network, at step 0; in the same unit",
        "points": "points on the network's path; a count",
        "length": "sum of the steps from inputs to output; in the space's unit, more layers make it longer",
        "straightness": "distance of the path's ends over its length; 0 to 1, 1 is straight",
        "chord": "distance of the path's ends, inputs and output; in the space's unit (angular: radians)",
        "efficiency": "by how much the path comes nearer to the target, over its length; -1 to 1",
        "distance_to_target_{point}": "distance of {point} (hidden: the last hidden layer) to the target; space's unit",
        "stress_{map}": "share of the distances that the {map} map gets wrong (Kruskal); 0 or more",
        "dimensions_{map}": "dimensions that a {map} map needs for 95 % of what dimensions can mend; a count",
    }

    def __post_init__(self) -> None:
        words = "analysis.path.space must be a space of losskernel.geometry"
        require(isinstance(self.space, Space), f"{words}, got {self.space!r}; e.g. losskernel.geometry.AngularCKA")
        require(self.along in ALONG, f"analysis.path.along must be one of {ALONG}, got {self.along!r}")
        listed = self.networks is None or (not isinstance(self.networks, str) and len(self.networks) > 0)
        require(listed, f"analysis.path.networks must be a list or null, got {self.networks!r}; e.g. [step 0, trained]")
        require_integer("analysis.path.names", self.names, at_least=0)

    def __call__(self, points: PointSet) -> Result:
        """Return lengths and distances, tables of layers, networks and whole paths, and their figures.

        Raises:
            InputError: there are no layers or no target, or a name is unknown.
        """
        measured = measure(points, layer_paths(points, self.networks, self.along), self._target(points), self.space)
        maps = maps_of(measured)
        *others, main = measured.paths
        metrics = {"probes": float(len(points.ids))} | totals(main)
        if others and others[0].path.step == 0:
            metrics |= {f"untrained_{name}": value for name, value in totals(others[0]).items()}
        networks = [{"network": item.path.network, "step": item.path.step, **totals(item)} for item in measured.paths]
        layers = pd.concat([_layers(path) for path in measured.paths], ignore_index=True)
        tables = {"path_profile": layers, "path_networks": pd.DataFrame(networks)}
        if others:
            tables["path_distances"] = distances_table(measured)
        # Errors are NaN in spaces without a closed form; a metric is a finite number.
        known = {name: value for name, value in metrics.items() if not np.isnan(value)}
        drawn = draw(measured, maps, self.names)
        return Result(known | maps.metrics, tables, drawn, captions={name: CAPTIONS[name] for name in drawn})

    def _target(self, points: PointSet) -> int:
        if self.target is not None:
            return points.number(self.target)
        targets = points.of("target")
        if not targets:
            raise InputError("paths need a target; choose points=[layers,targets], or name one in analysis.path.target")
        return targets[0]


def distances_table(measured: MeasuredPaths) -> pd.DataFrame:
    """Return the mean distances between all pairs of paths."""
    names = np.array([item.path.network for item in measured.paths], dtype=object)
    first, second = np.triu_indices(len(names), 1)  # each pair of paths once
    columns = {"network": names[first], "other": names[second], "distance": measured.between[first, second]}
    return pd.DataFrame(columns)


def totals(measured: MeasuredPath) -> dict[str, float]:
    """Return one path's numbers, `x_se` being the standard error of x over probes."""
    profile, errors = measured.profile, measured.errors
    numbers = {"points": float(len(measured.path.numbers))}
    numbers |= {"length": profile.length, "length_se": errors.length}
    numbers |= {"straightness": profile.straightness, "straightness_se": errors.straightness}
    numbers |= {"chord": measured.chord, "chord_se": errors.chord}
    numbers |= {"efficiency": measured.efficiency, "efficiency_se": errors.efficiency}
    for name, index in measured.path.landmarks.items():
        numbers[f"distance_to_target_{name}"] = float(profile.to_target[index])
        numbers[f"distance_to_target_{name}_se"] = float(errors.to_target[index])
    return numbers


def _layers(measured: MeasuredPath) -> pd.DataFrame:
    """Return a row per layer of one path: distances with standard errors, the step to the next layer, angles (rad).

    NaN where there is no next step, or no turn.
    """
    profile, errors, path = measured.profile, measured.errors, measured.path
    columns: dict[str, Any] = {
        "network": path.network,
        "step": np.nan if path.step is None else path.step,
        "layer": path.labels,
        "kind": path.kinds,
        "distance_to_target": profile.to_target,
        "distance_to_target_se": errors.to_target,
        # Of the step from this layer to the next:
        "step_length": np.append(profile.step, np.nan),
        "step_length_se": np.append(errors.step, np.nan),
        "progress": np.append(profile.progress, np.nan),
        "efficiency": np.append(profile.efficiency, np.nan),
        "heading": np.append(profile.heading, np.nan),
        "turning": np.concatenate([[np.nan], profile.turning, [np.nan]]),
        "fraction": profile.fraction,
        "off_geodesic": profile.off,
        "behind": profile.behind,
    }
    return pd.DataFrame(columns)
