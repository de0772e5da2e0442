"""The tables of a comparison: all runs with all numbers, distances between kernels, steps along their path."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from losskernel.sweeps.design import Design, repeated_by
from losskernel.sweeps.read_runs import Run, short_names
from losskernel.sweeps.similarity import Similarity, Stretch, paths


def all_of(
    runs: Sequence[Run], design: Design, stable: Sequence[Stretch | None], similarity: Similarity | None
) -> dict[str, pd.DataFrame]:
    """Return name -> table: the runs and, where their kernels are compared, distances and steps."""
    found = {"runs": runs_table(runs, design, stable)}
    if similarity is not None:
        found["distances"] = distances_table(design, similarity)
        if design.axis.values is not None:
            found["steps"] = steps_table(design, similarity, paths(runs, design, similarity))
    return found


def runs_table(runs: Sequence[Run], design: Design, stable: Sequence[Stretch | None]) -> pd.DataFrame:
    """Return a row per run: folder, swept values, verdict, stable or not, every metric, reasons; failed ones too."""
    repeated = repeated_by(runs)
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows: list[dict[str, Any]] = []
    for number, (run, name) in enumerate(zip(runs, short_names(runs), strict=True)):
        row: dict[str, Any] = {"run": name, "folder": str(run.folder)}
        row |= {key: run.config.get(key) for key in design.keys}
        row |= {key: run.config.get(key) for key in repeated}
        row |= {"verdict": run.verdict or "none", "stable": _is_stable(number, design, stable)}
        row |= {name: run.metrics.get(name, np.nan) for name in metrics}
        rows.append(row | {"reasons": "; ".join(run.reasons), "no_result": run.missing})
    return pd.DataFrame(rows)


def distances_table(design: Design, similarity: Similarity) -> pd.DataFrame:
    """Return the angular distances between all pairs of kernels, with the floor of each pair, in radians."""
    names, floor = [design.names[run] for run in similarity.members], similarity.floor()
    rows = [
        {"run": names[i], "other": names[j], "distance": similarity.distances[i, j], "noise_floor": floor[i, j]}
        for i in range(len(names))
        for j in range(i, len(names))
    ]
    return pd.DataFrame(rows)


def steps_table(design: Design, similarity: Similarity, paths: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Return the steps along every path, in radians: a kernel, the next, their distance and its noise floor."""
    names, floor = [design.names[run] for run in similarity.members], similarity.floor()
    rows = [
        {
            "path": name,
            "from": names[own],
            "to": names[after],
            "distance": similarity.distances[own, after],
            "noise_floor": floor[own, after],
        }
        for name, path in paths.items()
        for own, after in pairwise(path)
    ]
    return pd.DataFrame(rows, columns=["path", "from", "to", "distance", "noise_floor"])


def _is_stable(run: int, design: Design, stable: Sequence[Stretch | None]) -> bool:
    place, curve = design.place[run], design.curve[run]
    own = None if curve is None or design.control[run] else stable[curve]
    return own is not None and place is not None and own.first <= place <= own.last
