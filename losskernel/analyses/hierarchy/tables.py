"""Scores as tables: a row per kernel, per relation, per measure, per kernel and level."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses import rank_tests as agreement
from losskernel.analyses.hierarchy.classes import Classes
from losskernel.analyses.hierarchy.scores import Score
from losskernel.analyses.hierarchy.similarities import View
from losskernel.analyses.hierarchy.summary import LEVEL_NUMBERS, with_ends
from losskernel.data.taxonomy import MEASURES

_PLAIN = (
    "spearman_classes",
    "kendall_classes",
    "spearman_images",
    "kendall_images",
    "partial",
    "reverse",
    "cophenetic",
    "tree_fit",
)


def kernels(
    scores: Mapping[str, Score],
    tests: Mapping[str, Mapping[str, agreement.Permuted]],
    reach: Mapping[str, Mapping[str, Any]],
    level: str,
) -> pd.DataFrame:
    """One row per kernel; what is undefined for it stays empty.

    Args:
        scores: of every kernel.
        tests: of every kernel.
        reach: reliability, ceiling and draws to double, of the kernels that have them.
        level: name of the level at which clusters and neighbours are compared.
    """
    rows: list[dict[str, Any]] = []
    for name, score in scores.items():
        row: dict[str, Any] = {"kernel": name}
        for number in _PLAIN:
            test = tests[name].get(number)
            row |= with_ends(score, number, number)
            if test is not None:
                row |= {number: test.correlation, f"{number}_p": test.p}
                row |= {f"{number}_null_low": test.low, f"{number}_null_high": test.high}
        for number in LEVEL_NUMBERS:
            row |= with_ends(score, f"{number} {level}", number)
        rows.append(row | {"level": level} | dict(reach.get(name, {})))
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def profiles(scores: Mapping[str, Score], classes: Classes, chance: np.ndarray) -> pd.DataFrame:
    """One row per kernel and level: neighbours and clusters."""
    rows: list[dict[str, Any]] = []
    for name, score in scores.items():
        for level, expected in zip(classes.levels, chance, strict=True):
            row: dict[str, Any] = {"kernel": name, "level": level.name, "groups": int(level.groups.max() + 1)}
            for number in LEVEL_NUMBERS:
                row |= with_ends(score, f"{number} {level.name}", number)
            rows.append(row | {"knn_chance": expected})
    return pd.DataFrame(rows)


def relations(scores: Mapping[str, Score], names: Sequence[str], classes: Classes, chance: np.ndarray) -> pd.DataFrame:
    """One row per relation, from the same class to the farthest: mean similarities, and what is grouped so closely.

    Args:
        scores: of every kernel.
        names: of the loss kernel's views, the first of which is scored for neighbours and clusters.
        classes: of the probes.
        chance: k-NN precision of random neighbours at each level.
    """
    rows: list[dict[str, Any]] = []
    for number, relation in enumerate(classes.relations):
        kin = classes.kinship == number
        row: dict[str, Any] = {"relation": relation, "pairs": int(classes.weights[kin].sum()) // 2}
        for name in names:
            row |= with_ends(scores[name], f"relation {number}", name)
        if number < len(classes.levels):
            level = classes.levels[number]
            row |= {"groups": int(level.groups.max() + 1), "knn_chance": chance[number]}
            for each in LEVEL_NUMBERS:
                row |= with_ends(scores[names[0]], f"{each} {level.name}", each)
        rows.append(row)
    return pd.DataFrame(rows)


def measures(views: Mapping[str, View], classes: Classes) -> pd.DataFrame:
    """One row per measure of the taxonomy, a column per kernel: Spearman's correlation over pairs of classes."""
    rows: list[dict[str, Any]] = []
    for measure in MEASURES:
        distance = agreement.upper(classes.distance(measure))
        found = {name: agreement.spearman(agreement.upper(view.means), distance) for name, view in views.items()}
        rows.append({"measure": measure} | found)
    return pd.DataFrame(rows)
