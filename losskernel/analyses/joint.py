"""Layers, labels and loss kernels in one space: which layer is a loss kernel nearest to, and why?"""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from losskernel.analyses.result import Result
from losskernel.errors import require, require_integer
from losskernel.geometry.point import FORMS
from losskernel.joint import (
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
from losskernel.joint.captions import CAPTIONS
from losskernel.points import TRAINED, PointSet
from losskernel.sources import left_out

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
