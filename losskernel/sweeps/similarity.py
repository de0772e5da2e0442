"""How similar the kernels of several runs are, along which swept values they stay the same, and tables of both.

And how far apart the paths are that the runs' trained networks take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.paths.map_sheets import curves_of, sheets_of
from losskernel.analyses.paths.measured_paths import conditions, errors_of, layer_paths, median_error
from losskernel.analyses.result import Result
from losskernel.config_keys import repetitions
from losskernel.errors import InputError, TraceError
from losskernel.figures import Figure
from losskernel.figures.paths.paths import Route, along_colours
from losskernel.figures.shared.lettering import plain
from losskernel.figures.shared.style import palette
from losskernel.geometry import AngularCKA, Arrangement, Point, classical_scaling, frechet_distance, path_distances
from losskernel.geometry.point import evenly
from losskernel.geometry.significance import noise_floor, reliability
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.representations.points import TRAINED, PointSet, open_points
from losskernel.runs.analyse import CONTROL
from losskernel.sweeps.design import Design, Finding, Stretch, repeated_by, repetition
from losskernel.sweeps.read_runs import UNSAMPLED, Run, short_names
from losskernel.traces.loss_traces import LossTraces, open_traces

_SPACE = AngularCKA(centring="u")
# Probes at most, because the kernels of all runs are in memory at once.
_MOST_PROBES = 1000
# Paths whose colours can be told apart on a map.
_MOST_ROUTES = 12


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


# The trained networks' paths of several runs in one space: their distances, and a map of them.


@dataclass(frozen=True, eq=False)
class _SharedSpace:
    """The points of several runs' paths, arranged in one space.

    members: [n] numbers of the runs. paths: [n] for each run the numbers of the points along its path.
    target: number of the target's point, or None. noise: median standard error of a distance over probes.
    """

    members: list[int]
    paths: list[list[int]]
    arrangement: Arrangement
    target: int | None
    target_name: str
    probes: int
    noise: float


def whole_paths(runs: Sequence[Run], design: Design) -> Finding:
    """Compare the paths that the runs' trained networks take; nothing where fewer than two runs have layers.

    Each path is that of the points which all routes through its network pass, so that networks of any depth and width
    can be compared. Points of other probes cannot, and a note says so.
    """
    space, notes = _read(runs, design)
    if space is None:
        return Finding(notes=notes)
    between = path_distances(space.arrangement, space.paths)
    note = conditions(space.probes, _SPACE, space.noise)
    names, colours = [design.names[run] for run in space.members], _colours(design, space.members)
    layout, lines = classical_scaling(between), _successive(design, space.members)
    printed = [plain(name) for name in names]
    between_paths = figures.path_distances(between, layout.coordinates, layout.stress, printed, colours, lines, note)
    drawn = {"whole_paths": between_paths}
    captions = {"whole_paths": _caption(space.probes)}
    if space.target is not None and len(names) <= _MOST_ROUTES:
        drawn["paths"] = _map(space, names, colours, note)
        captions["paths"] = (
            "The trained networks' paths from the inputs towards the target on one map. Spherical maps are seen from "
            "above the points' middle; stress is the share of the distances that a map gets wrong, c in ever more "
            "dimensions."
        )
    return Finding(Result({}, {"whole_paths": _table(space, between, names)}, drawn), captions, notes)


def _read(runs: Sequence[Run], design: Design) -> tuple[_SharedSpace | None, list[str]]:
    members: list[int] = []
    paths: list[list[int]] = []
    kernels: list[Point] = []
    notes: list[str] = []
    target, name = None, ""
    for member, run in enumerate(runs):
        path = None if run.missing else _trained(run)
        if path is None:
            continue
        points, chosen, end = path
        probes = evenly(len(points.ids), _MOST_PROBES)
        if kernels and not np.array_equal(points.ids[probes], kernels[0].ids):
            notes.append(f"run {design.names[member]}: its path is not compared, for its probes are others")
            continue
        members.append(member)
        paths.append(list(range(len(kernels), len(kernels) + len(chosen))))
        kernels += [points[number].point.over(probes) for number in chosen]
        if end is not None and target is None:
            target, name = len(kernels), points[end].label
            kernels.append(points[end].point.over(probes))
    if len(members) < 2:
        return None, notes
    goal = kernels[paths[0][-1] if target is None else target]
    noise = median_error([errors_of([kernels[point] for point in path], goal, _SPACE) for path in paths])
    return _SharedSpace(members, paths, _SPACE.arrangement(kernels), target, name, goal.inputs, noise), notes


def _trained(run: Run) -> tuple[PointSet, list[int], int | None] | None:
    """Return a run's points, the numbers of those on its trained network's path, and the number of its target."""
    try:
        points = open_points(run.folder)
        if points is None or TRAINED not in points.networks():
            return None
        (walk,) = layer_paths(points, [TRAINED])
    except (InputError, TraceError):  # damaged points: the run's own page reports them
        return None
    return points, list(walk.numbers), next(iter(points.of("target")), None)


def _map(space: _SharedSpace, names: Sequence[str], colours: Sequence[str], note: str) -> Figure:
    routes = [Route(name, path, colour) for name, path, colour in zip(names, space.paths, colours, strict=True)]
    target = space.target or 0
    inputs = [path[0] for path in space.paths]
    labels = {target: f"{space.target_name} (target)", inputs[0]: "inputs"}
    sheets = sheets_of(space.arrangement, [edge for route in routes for edge in route.edges])
    return figures.path_map(sheets, curves_of(space.arrangement), routes, labels, inputs, target, note, labels[target])


def _table(space: _SharedSpace, between: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    leash = path_distances(space.arrangement, space.paths, frechet_distance)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return pd.DataFrame(
        [{"run": names[i], "other": names[j], "distance": between[i, j], "frechet": leash[i, j]} for i, j in pairs]
    )


def _colours(design: Design, members: Sequence[int]) -> list[str]:
    """Return a colour per run: by its position on the axis if there is one curve, in order where the axis has one."""
    positions = [design.index[run] for run in members]
    if len(design.curves) > 1 or None in positions:
        return palette(len(members))
    count = len(design.axis.names)
    colours = palette(count) if design.axis.values is None else along_colours(count)
    return [colours[index or 0] for index in positions]


def _successive(design: Design, members: Sequence[int]) -> list[list[int]]:
    """Return for each curve the rows of its runs in the axis' order, if no position has several runs."""
    if design.axis.values is None:
        return []
    row = {run: index for index, run in enumerate(members)}
    lines = []
    for curve in range(len(design.curves)):
        positions = [design.at(curve, index) for index in range(len(design.axis.names))]
        rows = [[row[run] for run in at_position if run in row] for at_position in positions]
        if all(len(at_position) <= 1 for at_position in rows):
            lines.append([number for at_position in rows for number in at_position])
    return [line for line in lines if len(line) > 1]


def _caption(probes: int) -> str:
    return (
        f"How far apart the trained networks' paths are, over {probes:,} probes (angular CKA, U-centred): the mean "
        "distance between the places where two paths have gone the same fraction of their lengths, on the geodesics "
        "between layers too, so that the networks' depths need not agree; seeds of one network tell how far apart "
        "paths are by chance. b: classical scaling of these distances. Lengths grow with the points recorded: compare "
        "networks with equally many, or each with its untrained self."
    )
