"""How alike the kernels of several runs are, and in which stretch of the swept values they agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losskernel.config_keys import repetitions
from losskernel.errors import InputError, TraceError
from losskernel.geometry import AngularCKA, Point
from losskernel.geometry.statistics.reliability import noise_floor, reliability
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.runs.analyse import CONTROL
from losskernel.sweeps.design import Design, repeated_by, repetition
from losskernel.sweeps.read_runs import UNSAMPLED, Run, short_names
from losskernel.traces.loss_traces import LossTraces, open_traces

_SPACE = AngularCKA(centring="u")


@dataclass(frozen=True)
class Similarity:
    """Angles between the correlation matrices R of runs, in radians.

    Two samples of one kernel are apart too. `reliability` ρ is the CKA that another sample as long as this one would
    have with it: 2 r / (1 + r), with r the CKA between the kernels of disjoint halves of the chains (Spearman and
    Brown). Between independent runs a and b noise alone would give arccos sqrt(ρ_a ρ_b), the floor. Runs with one
    seed share their noise, and while they follow nearly the same path they may lie closer than that.

    Attributes:
        members: [P] the runs, by number.
        distances: [P, P].
        reliability: [P] ρ, 0 to 1; NaN for a run of one chain.
        to_control: [P] distance of a run's kernel from that of its own nβ = 0 control; NaN where there is none.
        probes: how many probes the kernels are compared over.
        left_out: run -> why its kernel is not compared.
    """

    members: list[int]
    distances: np.ndarray
    reliability: np.ndarray
    to_control: np.ndarray
    probes: int
    left_out: dict[int, str]

    def floor(self) -> np.ndarray:
        """Return the distance [P, P] that Monte-Carlo noise alone would give; on the diagonal of a repeated run."""
        return noise_floor(self.reliability)


@dataclass(frozen=True)
class Stretch:
    """Consecutive places of an axis, both ends included, and the least CKA between their kernels."""

    first: int
    last: int
    cka: float


def measure(runs: Sequence[Run], limit: int = 1000) -> Similarity:
    """Compare the kernels of runs over the same probes, at most `limit` of them, evenly spaced.

    Raises:
        InputError: two runs hold different probes, or fewer than two have a kernel.
    """
    left_out: dict[int, str] = {}
    members: list[int] = []
    points: list[Point] = []
    reliabilities: list[float] = []
    to_control: list[float] = []
    first: LossTraces | None = None
    for number, run in enumerate(runs):
        if run.missing or run.verdict == UNSAMPLED:
            continue
        try:
            whole = open_traces(run.folder)
        except TraceError as error:
            left_out[number] = str(error)
            continue
        traces = _evenly(whole, limit)
        first = first or traces
        _require_same_probes(runs[members[0]] if members else run, first, run, traces)
        kernel = LossKernel.from_traces(traces)
        point = _point(kernel)
        try:
            _SPACE.coordinates([point])
        except InputError:
            left_out[number] = "its kernel has no structure: R is the identity"
            continue
        members.append(number)
        points.append(point)
        reliabilities.append(reliability(_draws(kernel), _SPACE))
        to_control.append(_to_control(run.folder / CONTROL, point, limit))
    if len(points) < 2:
        raise InputError(f"{len(points)} run has a kernel to compare; " + "; ".join(left_out.values()))
    distances = _SPACE.distances(points)
    arrays = np.array(reliabilities), np.array(to_control)
    return Similarity(members, distances, *arrays, points[0].inputs, left_out)


def stable_stretch(
    runs: Sequence[Run], design: Design, similarity: Similarity, curve: int, alike: float
) -> Stretch | None:
    """Return the longest stretch of consecutive swept values in which the kernel can be believed and stays the same.

    No verdict in it is "fail", and any two of its kernels, a kernel and its own repetition included, have a CKA of at
    least `alike`; of replicates, those of one seed and first chain. Of equally long stretches that with the most
    passes, then the most alike. None where no two neighbours qualify, or where the axis has no order.
    """
    if design.axis.values is None:
        return None
    position = {run: place for place, run in enumerate(similarity.members)}
    cka = np.cos(similarity.distances)
    np.fill_diagonal(cka, np.nan_to_num(similarity.reliability))  # one chain cannot tell its own noise
    places = [design.at(curve, place) for place in range(len(design.axis.names))]
    found: list[tuple[int, int, Stretch]] = []
    own = [place for place, there in enumerate(places) if there]  # other curves may stand between
    for start in range(len(own)):
        for stop in range(start + 1, len(own)):
            inside = [run for place in own[start : stop + 1] for run in places[place]]
            if not all(run in position and runs[run].verdict in ("pass", "warn") for run in inside):
                break
            own_noise = np.array([repetition(runs[run], list(repetitions())) for run in inside])
            where = [position[run] for run in inside]
            least = float(cka[np.ix_(where, where)][own_noise[:, None] == own_noise].min())
            if least < alike:
                break
            passes = sum(runs[run].verdict == "pass" for run in inside)
            found.append((stop - start, passes, Stretch(own[start], own[stop], least)))
    return max(found, key=lambda each: (*each[:2], each[2].cka), default=(0, 0, None))[2]


def paths(runs: Sequence[Run], design: Design, similarity: Similarity) -> dict[str, list[int]]:
    """Return the kernels' places in the matrix along the swept values: a named path for every curve and replicate."""
    position = {run: place for place, run in enumerate(similarity.members)}
    keys = repeated_by([runs[run] for run in similarity.members if not design.control[run]]) if design.keys else []
    found: dict[str, list[int]] = {}
    for curve in range(len(design.curves)):
        for place in range(len(design.axis.names)):
            for run in design.at(curve, place):
                if run in position:
                    name = ", ".join(filter(None, [design.curves[curve], repetition(runs[run], keys)]))
                    found.setdefault(name, []).append(position[run])
    return found


def _point(kernel: LossKernel) -> Point:
    correlation = kernel.correlation()
    return Point.from_gram((correlation + correlation.T) / 2, kernel.ids)


def _draws(kernel: LossKernel) -> Point:
    """Return the same point with all its draws: too many numbers to hold for every run."""
    return Point(kernel.ids, factor=kernel.standardised(), chains=(kernel.draws,) * kernel.chains)


def _to_control(path: Path, point: Point, limit: int) -> float:
    if not path.exists():
        return float("nan")
    try:
        return _SPACE.length(point, _point(LossKernel.from_traces(_evenly(open_traces(path), limit))))
    except (InputError, TraceError):  # unfinished, or without structure: the run stands without it
        return float("nan")


def _evenly(traces: LossTraces, limit: int) -> LossTraces:
    probes = traces.losses.sizes["probe"]
    if probes <= limit:
        return traces
    return LossTraces(traces.dataset.isel(probe=np.linspace(0, probes - 1, limit).astype(int)))


def _require_same_probes(first: Run, known: LossTraces, run: Run, traces: LossTraces) -> None:
    ids, own = known.losses["probe"].values, traces.losses["probe"].values
    difference = "" if np.array_equal(ids, own) else "the ids differ"
    if len(ids) != len(own):
        difference = f"{len(ids)} and {len(own)}"
    if not difference:
        shared = [name for name in known.labels if name in traces.labels]
        unlike = [name for name in shared if not np.array_equal(known.labels[name], traces.labels[name])]
        difference = f"the label {unlike[0]!r} differs" if unlike else ""
    if difference:
        raise InputError(
            f"the kernels of {first.folder} and {run.folder} cannot be compared: their probes are not the same "
            f"({difference}); keep the data fixed, as with dataset.seed=0"
        )


def all_tables(
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
