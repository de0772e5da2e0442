"""Layers, labels and loss kernels in one space: which layer is a loss kernel nearest to, and why?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from losskernel.analyses.joint.joint import PLACEBO, SPACE, Joint, ProbeErrors, beyond_labels, nearest_layers
from losskernel.analyses.joint.map import draw
from losskernel.analyses.joint.sweep_and_training import Family, Sweep, families, localization_sweep, training_table
from losskernel.analyses.result import Result, check_settings
from losskernel.errors import InputError, require
from losskernel.geometry import Bures, Path, Point
from losskernel.geometry.point import FORMS
from losskernel.representations.points import TRAINED, PointSet
from losskernel.representations.sources import left_out

_BURES = Bures()
_BURES_PROBES = 200  # a Bures distance costs N³
# Ending of a metric -> column of a table.
_ENDS = {"": "angle", "_se": "se", "_low": "low", "_high": "high"}
# What a reader must know about each figure, and by that of the numbers.
CAPTIONS = {
    "joint_map": (
        "Inputs, layers, labels, gradients and loss kernels over the same probes, as points of one space (angular "
        "CKA, U-centred): spherical scaling, seen from above the points' middle. Distances are raw, with sampling "
        "noise in them; the noise floor is the angle at which noise alone puts two samples of one kernel."
    ),
    "joint_nearest": (
        "Angles in radians between every kernel of losses and every layer of the network with the same weights; "
        "1.57: nothing in common. The last row is the placebo: the run's kernel with its probes permuted."
    ),
    "joint_sweep": (
        "With rising localization the loss kernel goes to the Gram matrix of loss gradients, as 1 / γ, whatever the "
        "network. Raw angles cannot fall below the noise floor; those without sampling noise come from the cosine "
        "divided by the reliabilities of both kernels (cosine_corrected), which chance may lift above 1: an angle "
        "of 0."
    ),
    "joint_labels": (
        "Cosine of each layer with a kernel: raw, and between the directions in which both leave the kernel of the "
        "labels (beyond). 0: nothing in common but the classes; below 0: they leave the labels on opposite sides. "
        "By chance: probes relabelled."
    ),
    "joint_training": (
        "The loss kernel, the gradients and the last layers at the weights kept along training: a, distance to the "
        "labels; b, to their own end; c, angle between the loss kernel's velocity and theirs, after parallel "
        "transport, where both steps stand above the noise."
    ),
}


@dataclass(frozen=True)
class JointSpace:
    """Inputs, layers, outputs, targets and kernels of losses as points of one sphere (U-centred angular CKA).

    Which point of its network's path every kernel is nearest to; the loss kernel's way to the kernel of loss gradients
    as the localization grows; agreement with the layers beyond the labels; the loss kernel's path over training beside
    the layers'. Distances are raw; cosines without sampling noise, from independent chains, stand beside them. As a
    placebo the loss kernel's probes are permuted: it should be near nothing.

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
    headline: ClassVar[dict[str, str]] = {
        "nearest_layer_angle": "loss kernel to the nearest layer",
        "placebo_angle": "  with its probes permuted",
        "labels_angle": "  to the labels",
        "gradient_angle": "  to the loss gradients",
        "gradient_angle_largest_localization": "  at the strongest localization",
        "gradient_cosine_corrected_largest_localization": "  its cosine without noise",
        "bures_spearman": "distances in Bures space (Spearman)",
        "left_out": "kernels left out: chains diverged",
    }
    meanings: ClassVar[dict[str, str]] = {
        "points": "points in the space, the placebo left out; a count",
        "probes": "probes that all kernels stand over; a count",
        "reliability": "cosine of the loss kernel with a second sample of it, from halves of its chains; 0 to 1",
        "nearest_layer_angle": "angle from the loss kernel to the nearest point of the path; radians, 0 the same",
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
        "gradient_cosine_corrected_largest_localization": "cosine to the gradients there, without noise; towards 1",
        "gradient_floor_largest_localization": "angle to the gradients there that noise alone gives; radians",
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
        "training_straightness": "distance of the training path's ends over its length; 0 to 1",
        "training_velocity_angle": "median angle of the loss kernel's steps and the last layer's; pi/2 unrelated",
        "left_out": "kernels left out as their chains diverged; a count",
        "map_stress": "share of the distances that the map gets wrong (Kruskal); 0 or more",
    }

    def __post_init__(self) -> None:
        require(self.form in FORMS, f"analysis.joint.form must be one of {FORMS}, got {self.form!r}")
        check_settings(self, "joint", least={"permutations": 1, "limit": 10, "seed": 0})

    def __call__(self, points: PointSet) -> Result:
        """Return distances, tables and figures.

        Raises:
            InputError: there is no loss kernel or no layer.
        """
        joint = Joint.of(points, self.form, self.seed)
        errors = ProbeErrors(joint.points.evenly(self.limit), self.permutations, self.seed)
        near, beyond = nearest_layers(joint, errors), beyond_labels(joint, errors, TRAINED)
        sweep, courses = localization_sweep(joint, errors), families(joint)
        numbers, bures, rank = bures_angles(joint, _BURES_PROBES)
        tables = {"joint_nearest": near, "joint_distances": distances(joint, numbers, bures)}
        metrics = _numbers(joint, near, beyond, sweep)
        # The point as given: in the covariance form, whatever form is compared.
        metrics |= concentration(points[points.number(joint.name(joint.main))].point)
        metrics["bures_spearman"] = rank
        if not beyond.empty:
            tables["joint_labels"] = beyond
        if sweep is not None:
            tables["joint_sweep"] = sweep.table
        if any(family.kind == "loss_kernel" for family in courses):
            tables["joint_training"] = training_table(joint)
            metrics |= _training_numbers(joint, tables["joint_training"], courses)
        # What the sources left out, they wrote beside the points; points in memory have no folder.
        lost = {} if points.folder is None else left_out(points.folder.parent)
        metrics["left_out"] = float(len(lost))
        if lost:
            tables["joint_left_out"] = pd.DataFrame({"kernel": list(lost), "why": list(lost.values())})
        drawn, stress = draw(joint, tables, sweep, courses, self.form)
        captions = {name: CAPTIONS[name] for name in drawn}
        return Result(metrics | {"map_stress": stress}, tables, drawn, captions=captions)


def distances(joint: Joint, chosen: list[int], bures: np.ndarray) -> pd.DataFrame:
    """Return a row for every pair of points.

    Columns: first, second, distance (raw, radians), cosine_corrected (without sampling noise), floor, bures (the
    Bures angle, NaN where it was not computed).

    Args:
        joint: the points.
        chosen: numbers of the points with a Bures angle, n of them.
        bures: [n, n] these angles.
    """
    count = len(joint.points)
    every = np.full((count, count), np.nan)  # NaN of pairs that were not compared
    every[np.ix_(chosen, chosen)] = bures
    pairs = np.triu_indices(count, 1)
    names = np.array(joint.points.names, dtype=object)
    columns = {
        "distance": joint.arrangement.distances,
        "cosine_corrected": joint.corrected,
        "floor": joint.floor,
        "bures": every,
    }
    ends = {"first": names[pairs[0]], "second": names[pairs[1]]}
    return pd.DataFrame(ends | {name: matrix[pairs] for name, matrix in columns.items()})


def bures_angles(joint: Joint, limit: int = 200) -> tuple[list[int], np.ndarray, float]:
    """Return numbers of points, their Bures angles [n, n] over `limit` probes, and how these rank beside angular CKA's.

    Of the trained network's points, inputs and targets; the placebo, whose kernel is another's, and points that are no
    positive kernel are left out. The last number is Spearman's correlation over pairs, both over the same probes.
    """
    from scipy.stats import spearmanr

    chosen = [*joint.points.of("input", "target"), *joint.points.path()[1:], *joint.kernels(TRAINED)]
    few = joint.points.only(list(dict.fromkeys(chosen))).evenly(limit)  # each once, in order
    positive = [item for item in few.points if _is_positive(item.point)]
    angles = _BURES.distances([_thin(item.point) for item in positive])
    reference = SPACE.distances([item.point for item in positive])
    pairs = np.triu_indices(len(positive), 1)
    rank: Any = spearmanr(angles[pairs], reference[pairs])[0] if len(positive) >= 3 else np.nan
    return [joint.points.number(item.name) for item in positive], angles, float(rank)


def concentration(point: Point) -> dict[str, float]:
    """Return how many probes carry a kernel, and how much of it is all probes together.

    participation: (tr K)² / (N Σ K_ii²), 1 where all probes vary alike and 1 / N where one alone does. share_together:
    1ᵀ K 1 / (N tr K), 1 where all losses move together, and taken away by centring.
    """
    diagonal = point.diagonal()  # [N]
    trace, count = float(diagonal.sum()), point.inputs
    if trace == 0:
        return {"participation": float("nan"), "share_together": float("nan")}
    return {
        "participation": trace**2 / (count * float(np.square(diagonal).sum())),
        "share_together": float(point.sums().sum()) / (count * trace),
    }


def _is_positive(point: Point) -> bool:
    try:
        _BURES.arrangement([point])
    except InputError:
        return False
    return True


def _thin(point: Point) -> Point:
    """Return the same kernel with at most N features."""
    if point.factor is None or point.factor.shape[1] <= point.inputs:
        return point
    return Point(point.ids, factor=np.asarray(np.linalg.qr(point.factor.T, mode="r")).T)


def _numbers(joint: Joint, near: pd.DataFrame, beyond: pd.DataFrame, sweep: Sweep | None) -> dict[str, float]:
    """Return where the run's loss kernel lies among layers, targets and kernels in closed form. Angles in radians."""
    main, targets = joint.main, joint.points.of("target")
    numbers = {"points": float(len(joint.points) - 1), "probes": float(len(joint.points.ids))}
    numbers |= {"reliability": float(joint.reliability[main])} | _nearest_numbers(joint, near)
    if targets:
        numbers["labels_angle"] = joint.angle(main, targets[0])
    numbers |= _beyond_numbers(joint, beyond)
    for kind in ("gradient", "laplace"):
        other = joint.closed_form(kind)
        if other is not None:
            numbers[f"{kind}_angle"] = joint.angle(main, other)
            numbers[f"{kind}_cosine_corrected"] = float(joint.corrected[main, other])
    if sweep is not None:
        last = sweep.table.iloc[-1]  # the strongest localization
        for name in ("angle", "cosine_corrected", "floor"):
            numbers[f"gradient_{name}_largest_localization"] = float(last[name])
        numbers |= {"sweep_length": sweep.length, "sweep_straightness": sweep.straightness}
    return numbers


def _nearest_numbers(joint: Joint, near: pd.DataFrame) -> dict[str, float]:
    rows: dict[str, Any] = {row["kernel"]: row for row in near.to_dict("records")}
    row = rows.get(joint.name(joint.main))
    if row is None:
        return {}
    path = joint.points.path(joint.points[joint.main].network)
    index = [joint.name(number) for number in path].index(row["nearest"])
    numbers = {f"nearest_layer_angle{end}": float(row[column]) for end, column in _ENDS.items()}
    numbers |= {f"nearest_layer_{name}": float(row[name]) for name in ("cosine_corrected", "floor", "lead", "lead_se")}
    numbers |= {"nearest_layer_p": float(row["p_adjusted"]), "nearest_layer_place": float(index)}
    return numbers | {"placebo_angle": float(rows[PLACEBO]["angle"])}


def _beyond_numbers(joint: Joint, beyond: pd.DataFrame) -> dict[str, float]:
    """Return the main kernel's agreement with each layer beyond the first target."""
    if beyond.empty:
        return {}
    rows: Any = beyond[(beyond["kernel"] == joint.name(joint.main)) & (beyond["target"] == beyond["target"].iloc[0])]
    columns = {**_ENDS, "": "beyond"}
    return {
        f"beyond_labels_{row['layer']}{end}": float(row[column])
        for row in rows.to_dict("records")
        for end, column in columns.items()
    }


def _training_numbers(joint: Joint, table: pd.DataFrame, courses: list[Family]) -> dict[str, float]:
    """Return length and straightness of the loss kernel's path, and its velocity's median angle to the last layer's."""
    lead = next(family for family in courses if family.kind == "loss_kernel")  # there is one: the caller checks
    path = Path.from_arrangement(joint.arrangement, lead.numbers)
    numbers = {"training_length": path.length, "training_straightness": path.straightness}
    hidden = [family.label for family in courses if family.kind == "layer"]
    angles = table.loc[table["what"].isin(hidden[-1:]), "velocity"].dropna()
    return numbers | ({"training_velocity_angle": float(np.median(angles))} if len(angles) else {})
