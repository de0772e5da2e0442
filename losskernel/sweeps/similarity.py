"""How similar the kernels of several runs are, along which swept values they stay the same, and tables of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losskernel.config_keys import repetitions
from losskernel.errors import InputError, TraceError
from losskernel.geometry import AngularCKA, Point
from losskernel.geometry.significance import noise_floor, reliability
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.runs.analyse import CONTROL
from losskernel.sweeps.design import Design, Stretch, repeated_by, repetition
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
        members: [P] numbers of the runs.
        distances: [P, P].
        reliability: [P] ρ, 0 to 1; NaN for a run of one chain.
        to_control: [P] distance of a run's kernel from that of its control at nβ = 0; NaN where there is none.
        probes: number of probes over which the kernels are compared.
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


def measure(runs: Sequence[Run], limit: int = 1000) -> Similarity:
    """Compare the kernels of runs over the same probes, at most `limit` of them, evenly spaced.

    Raises:
        InputError: two runs hold different probes, or fewer than two have a kernel.
    """
    left_out: dict[int, str] = {}
    points: dict[int, Point] = {}  # by number of the run
    reliabilities: list[float] = []
    to_control: list[float] = []
    first: tuple[Run, LossTraces] | None = None
    for number, run in enumerate(runs):
        if run.missing or run.verdict == UNSAMPLED:
            continue
        try:
            traces = _evenly(open_traces(run.folder), limit)
        except TraceError as error:
            left_out[number] = str(error)
            continue
        first = first or (run, traces)
        _require_same_probes(*first, run, traces)
        kernel = LossKernel.from_traces(traces)
        point = _point(kernel)
        try:
            _SPACE.coordinates([point])
        except InputError:
            left_out[number] = "its kernel has no structure: R is the identity"
            continue
        points[number] = point
        # All draws of one run at a time: those of all runs would not fit into memory.
        halves = Point(kernel.ids, factor=kernel.standardised(), chains=(kernel.draws,) * kernel.chains)
        reliabilities.append(reliability(halves, _SPACE))
        to_control.append(_to_control(run.folder / CONTROL, point, limit))
    if len(points) < 2:
        raise InputError(f"{len(points)} run has a kernel to compare; " + "; ".join(left_out.values()))
    distances = _SPACE.distances(list(points.values()))
    probes = next(iter(points.values())).inputs
    return Similarity(list(points), distances, np.array(reliabilities), np.array(to_control), probes, left_out)


def stable_stretch(
    runs: Sequence[Run], design: Design, similarity: Similarity, curve: int, alike: float
) -> Stretch | None:
    """Return the longest stretch of consecutive swept values in which the kernel can be believed and stays the same.

    In it no verdict is "fail", and any two of its kernels, a kernel and its own repetition included, have a CKA of at
    least `alike`; of repetitions, only kernels of one seed and first chain are compared. Of equally long stretches
    the one with the most passes is returned, then the one with the largest least CKA. None where no two neighbours
    qualify, or where the axis has no order.
    """
    if design.axis.values is None:
        return None
    row = {run: index for index, run in enumerate(similarity.members)}
    cka = np.cos(similarity.distances)
    np.fill_diagonal(cka, np.nan_to_num(similarity.reliability))  # of one chain it is unknown: 0, never alike
    # Other curves may have values in between, at which this one has no run.
    at = {index: here for index in range(len(design.axis.names)) if (here := design.at(curve, index))}
    indices = list(at)
    stretches: list[tuple[int, int, float, Stretch]] = []
    for start in range(len(indices)):
        for stop in range(start + 1, len(indices)):
            inside = [run for index in indices[start : stop + 1] for run in at[index]]
            if not all(run in row and runs[run].verdict in ("pass", "warn") for run in inside):
                break
            same_noise = np.array([repetition(runs[run], list(repetitions())) for run in inside])
            rows = [row[run] for run in inside]
            least = float(cka[np.ix_(rows, rows)][same_noise[:, None] == same_noise].min())
            if least < alike:
                break  # every longer stretch from here contains this pair
            passes = sum(runs[run].verdict == "pass" for run in inside)
            stretches.append((stop - start, passes, least, Stretch(indices[start], indices[stop], least)))
    return max(stretches, key=lambda stretch: stretch[:3], default=(0, 0, 0.0, None))[-1]


def paths(runs: Sequence[Run], design: Design, similarity: Similarity) -> dict[str, list[int]]:
    """Return the rows of the kernels along the swept values: one named path for every curve and repetition."""
    row = {run: index for index, run in enumerate(similarity.members)}
    keys = repeated_by([runs[run] for run in similarity.members if not design.control[run]]) if design.keys else []
    rows: dict[str, list[int]] = {}
    for curve in range(len(design.curves)):
        for index in range(len(design.axis.names)):
            for run in design.at(curve, index):
                if run in row:
                    name = ", ".join(filter(None, [design.curves[curve], repetition(runs[run], keys)]))
                    rows.setdefault(name, []).append(row[run])
    return rows


def all_tables(
    runs: Sequence[Run], design: Design, stable: Sequence[Stretch | None], similarity: Similarity | None
) -> dict[str, pd.DataFrame]:
    """Return name -> table: the runs and, where their kernels are compared, distances and steps."""
    tables = {"runs": _runs_table(runs, design, stable)}
    if similarity is not None:
        # In radians: all pairs of kernels; along every path a kernel and the next; with what noise alone would give.
        pairs = combinations_with_replacement(range(len(similarity.members)), 2)
        tables["distances"] = pd.DataFrame([_pair(design, similarity, pair, ("run", "other")) for pair in pairs])
        if design.axis.values is not None:
            steps = [(name, step) for name, path in paths(runs, design, similarity).items() for step in pairwise(path)]
            rows = [{"path": name} | _pair(design, similarity, step, ("from", "to")) for name, step in steps]
            tables["steps"] = pd.DataFrame(rows, columns=["path", "from", "to", "distance", "noise_floor"])
    return tables


def _runs_table(runs: Sequence[Run], design: Design, stable: Sequence[Stretch | None]) -> pd.DataFrame:
    """Return a row per run, failed ones too: folder, swept values, verdict, stable or not, metrics, reasons."""
    keys = [*design.keys, *repeated_by(runs)]
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows: list[dict[str, Any]] = []
    for number, (run, name) in enumerate(zip(runs, short_names(runs), strict=True)):
        row: dict[str, Any] = {"run": name, "folder": str(run.folder)} | {key: run.config.get(key) for key in keys}
        row |= {"verdict": run.verdict or "none", "stable": _is_stable(number, design, stable)}
        row |= {metric: run.metrics.get(metric, np.nan) for metric in metrics}
        rows.append(row | {"reasons": "; ".join(run.reasons), "no_result": run.missing})
    return pd.DataFrame(rows)


def _pair(design: Design, similarity: Similarity, pair: tuple[int, int], columns: tuple[str, str]) -> dict[str, Any]:
    names = [design.names[similarity.members[row]] for row in pair]
    distances = {"distance": similarity.distances[pair], "noise_floor": similarity.floor()[pair]}
    return dict(zip(columns, names, strict=True)) | distances


def _is_stable(run: int, design: Design, stable: Sequence[Stretch | None]) -> bool:
    index, curve = design.index[run], design.curve[run]
    stretch = None if curve is None or design.control[run] else stable[curve]
    return stretch is not None and index is not None and stretch.first <= index <= stretch.last


def _point(kernel: LossKernel) -> Point:
    correlation = kernel.correlation()
    return Point.from_gram((correlation + correlation.T) / 2, kernel.ids)


def _to_control(path: Path, point: Point, limit: int) -> float:
    if not path.exists():
        return float("nan")
    try:
        return _SPACE.length(point, _point(LossKernel.from_traces(_evenly(open_traces(path), limit))))
    except (InputError, TraceError):  # unfinished, or without structure: the run is compared without its control
        return float("nan")


def _evenly(traces: LossTraces, limit: int) -> LossTraces:
    probes = traces.losses.sizes["probe"]
    if probes <= limit:
        return traces
    return LossTraces(traces.dataset.isel(probe=np.linspace(0, probes - 1, limit).astype(int)))


def _require_same_probes(first: Run, known: LossTraces, run: Run, traces: LossTraces) -> None:
    expected, ids = known.losses["probe"].values, traces.losses["probe"].values
    difference = "" if np.array_equal(expected, ids) else "the ids differ"
    if len(expected) != len(ids):
        difference = f"{len(expected)} and {len(ids)}"
    if not difference:
        shared = [name for name in known.labels if name in traces.labels]
        unlike = [name for name in shared if not np.array_equal(known.labels[name], traces.labels[name])]
        difference = f"the label {unlike[0]!r} differs" if unlike else ""
    if difference:
        reason = f"their probes are not the same ({difference}); keep the data fixed, as with dataset.seed=0"
        raise InputError(f"the kernels of {first.folder} and {run.folder} cannot be compared: {reason}")
