"""Layers, labels and loss kernels in one space: which layer is a loss kernel nearest to, and why?"""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from losskernel.analyses.joint import (
    Joint,
    along_training,
    beyond_labels,
    closed_numbers,
    distances,
    draw,
    families,
    nearest,
    numbers,
    other_space,
    sweep_of,
    training_table,
)
from losskernel.analyses.joint.captions import CAPTIONS
from losskernel.analyses.result import Result
from losskernel.errors import require, require_integer
from losskernel.geometry.point import FORMS
from losskernel.representations.points import TRAINED, PointSet
from losskernel.representations.sources import left_out

# Probes over which the other space is asked, whose distances cost N³.
_FEW = 200


@dataclass(frozen=True)
class JointSpace:
    """Inputs, layers, outputs, targets and kernels of losses as points of one sphere (U-centred angular CKA).

    Which point of its network's path every kernel is nearest to; the loss kernel's way to the kernel of loss gradients
    as the localisation grows; agreement with the layers beyond the labels; the loss kernel's path over training beside
    the layers'. Distances are raw; cosines without sampling noise, from independent chains, stand beside them. As a
    placebo the loss kernel's probes change places: it should be near nothing.

    Attributes:
        form: of the kernels of losses: "correlation", in which all probes count alike, or "covariance", in which those
            that vary most do.
        permutations: relabellings of the probes behind p-values.
        limit: probes behind standard errors and p-values at most, evenly spaced.
        seed: of relabellings and the placebo.
    """

    form: str = "correlation"
    permutations: int = 199
    limit: int = 500
    seed: int = 0

    of_points: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"layer", "loss_kernel"})
    meanings: ClassVar[dict[str, str]] = {
        "points": "points in the space, the placebo left out; a count",
        "probes": "probes that all kernels stand over; a count",
        "reliability": "cosine of the loss kernel with a second sample of it, from halves of its chains; 0 to 1",
        "nearest_layer_angle": (
            "angle from the loss kernel to the point of the network's path nearest to it; radians, 0 the same"
        ),
        "nearest_layer_cosine_corrected": "cosine to the nearest point without sampling noise; 1 the same, 0 unrelated",
        "nearest_layer_floor": "angle to the nearest point that sampling noise alone would give; radians",
        "nearest_layer_lead": "how much farther the second nearest point is; radians",
        "nearest_layer_p": "p of the nearest point, probes relabelled, adjusted for the number of points; 0 to 1",
        "nearest_layer_place": "place of the nearest point on the network's path, counted from 0",
        "placebo_angle": "angle to the nearest point once the loss kernel's probes change places; radians, about pi/2",
        "labels_angle": "angle from the loss kernel to the first target; radians, 0 the same",
        "beyond_labels_{point}": "cosine of the loss kernel and {point}, the labels' kernel taken out of both; -1 to 1",
        "gradient_angle_largest_localization": (
            "angle to the loss gradients at the strongest localization; radians, towards 0"
        ),
        "gradient_cosine_corrected_largest_localization": (
            "cosine to the loss gradients at the strongest localization, without sampling noise; towards 1"
        ),
        "gradient_floor_largest_localization": (
            "angle to the loss gradients that sampling noise alone gives at the strongest localization; radians"
        ),
        "{kind}_angle": "angle from the loss kernel to the {kind} kernel in closed form; radians, 0 the same",
        "{kind}_cosine_corrected": "cosine to the {kind} kernel without sampling noise; 1 the same, 0 unrelated",
        "sweep_length": "length of the loss kernel's path from the weakest localization to the gradients; radians",
        "sweep_straightness": "straightness of the path to the gradients: its ends' distance over its length; 0 to 1",
        "participation": (
            "how evenly the probes share the loss kernel's variance; 1 where all do alike, 1/N where one has it all"
        ),
        "share_together": "share of the loss kernel in which all losses move together; 0 to 1",
        "bures_spearman": "rank correlation of distances here and in Bures space, over pairs of points; -1 to 1",
        "training_length": "length of the loss kernel's path over training; radians",
        "training_straightness": (
            "straightness of the loss kernel's path over training: its ends' distance over its length; 0 to 1"
        ),
        "training_velocity_angle": (
            "median angle between the loss kernel's steps and the last layer's; radians, pi/2 unrelated"
        ),
        "left_out": "kernels left out as their chains diverged; a count",
        "map_stress": "share of the distances that the map gets wrong (Kruskal); 0 or more",
    }

    def __post_init__(self) -> None:
        require(self.form in FORMS, f"analysis.joint.form must be one of {FORMS}, got {self.form!r}")
        for key, least in (("permutations", 1), ("limit", 10), ("seed", 0)):
            require_integer(f"analysis.joint.{key}", getattr(self, key), at_least=least)

    def __call__(self, points: PointSet) -> Result:
        """Return distances, tables and figures.

        Raises:
            InputError: there is no loss kernel or no layer.
        """
        joint = Joint.of(points, self.form, self.seed)
        few = joint.points.evenly(self.limit)
        near = nearest(joint, few, self.permutations, self.seed)
        beyond = beyond_labels(joint, few, self.permutations, self.seed, TRAINED)
        sweep, courses = sweep_of(joint, few), families(joint)
        chosen, angles, agreement = other_space(joint, _FEW)
        found = {"joint_nearest": near, "joint_distances": distances(joint, chosen, angles)}
        metrics = numbers(joint, near, beyond, sweep) | closed_numbers(
            points.placed[points.number(joint.name(joint.own))].point
        )
        metrics["bures_spearman"] = agreement
        if not beyond.empty:
            found["joint_labels"] = beyond
        if sweep is not None:
            found["joint_sweep"] = sweep.table
        if any(each.kind == "loss_kernel" for each in courses):
            found["joint_training"] = training_table(joint)
            metrics |= along_training(joint, found["joint_training"], courses)
        lost = {} if points.folder is None else left_out(points.folder.parent)
        metrics["left_out"] = float(len(lost))
        if lost:
            found["joint_left_out"] = pd.DataFrame({"kernel": list(lost), "why": list(lost.values())})
        drawn, stress = draw(joint, found, sweep, courses, self.form)
        captions = {name: CAPTIONS[name] for name in drawn}
        return Result(metrics | {"map_stress": stress}, found, drawn, captions=captions)
