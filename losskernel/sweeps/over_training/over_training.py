"""over_training(): the kernels at the checkpoints of one training run, side by side."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.analyses.umap_layout import kept_neighbours, nearest_probes, umap_layout
from losskernel.errors import require
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.kernel.estimators import Neighbours
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sweeps.compare import ALIKE, Comparison, JobKernels, compare_jobs
from losskernel.sweeps.design import Finding
from losskernel.sweeps.read_runs import Run, find_runs

STEP = "training_step"  # what the jobs differ in
_FEWEST_PROBES = 10  # of a map
# A contrast at which probes couple three times as much within the groups of a level as across them.
THRESHOLD = 0.5
_RESAMPLES = 1000
_CONTRAST = "levels/contrast_"
# A gentle descent from a common start. At UMAP's own rate of 1, points wander five times as far and keep no more
# neighbours; at 0.02, maps of kernels without any structure still show the structure of the others.
_RATE, _EPOCHS = 0.05, 200


def over_training(
    folder: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Compare the kernels sampled along a training run; write report.html, figures and tables into their folder.

    Args:
        folder: of one run per checkpoint, in folders called step-0000123.
        metrics: what to draw against the step; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two checkpoints have a kernel, or a metric is not there.
        TraceError: a run's files are damaged, or the folder cannot be written.
    """
    remedy = "give one of runs at checkpoints, as losskernel-dynamics leaves"
    require(Path(folder).is_dir(), f"{folder} is not a folder; {remedy}")
    steps = {path: step_of(path) for path in find_runs(folder)}
    jobs = dict(sorted(steps.items(), key=lambda job: job[1]))
    questions = [path_of, levels_of, maps_of]
    return compare_jobs("dynamics", folder, STEP, jobs, questions, metrics=metrics, alike=alike, tracker=tracker)


def step_of(folder: Path) -> int:
    """Return the training step of a job's checkpoint, by the job's name.

    Raises:
        InputError: the folder is not called after a checkpoint.
    """
    match = re.fullmatch(r"step-(\d+)", folder.name)
    require(match is not None, f"{folder} must be called step-<number>, as losskernel-dynamics does; move it elsewhere")
    return int(match.group(1))  # pyright: ignore[reportOptionalMemberAccess]


def kept_checkpoints(run: Path, choice: Any = "all") -> dict[str, str]:
    """Return the checkpoints kept along a run's training, in order: step-0000123 -> path.

    Args:
        run: the run's folder.
        choice: "all", "last", a step, or a list of steps.

    Raises:
        InputError: the run kept none, its training has not ended, or a step is not among them.
    """
    folder = run / "checkpoints"
    files = {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.pt"))}
    remedy = "train it with training.checkpoints=8, not from checkpoint="
    require(len(files) > 0, f"run={run} kept no checkpoints along its training; {remedy}")
    trained = (folder / "trained.pt").is_file()
    require(trained, f"run={run} has not ended its training; continue it with paths.run={run}")
    if choice == "last":
        choice = [max(files)]
    steps = list(files) if choice == "all" else list(choice) if isinstance(choice, (list, tuple)) else [choice]
    known = ", ".join(map(str, files))
    for step in steps:
        there = isinstance(step, int) and not isinstance(step, bool) and step in files
        require(there, f"checkpoints={choice}: there is none of step {step}; choose all, last, or from [{known}]")
    require(len(steps) > 0, f"checkpoints=[] names none; choose all, last, or from [{known}]")
    return {files[step].stem: str(files[step]) for step in sorted(set(steps))}


def path_of(comparison: Comparison, _: JobKernels | None = None) -> Finding:
    """Return the distances of each kernel to the first, the last and the next, with numbers, a table and a figure.

    `path/chord` is the distance between the ends, `path/straightness` its share in the length of the path, and
    `path/nearer_to_last_from` the first step whose kernel is nearer to the last than to the first. All angles are
    angular CKA in radians, and contain the noise of both kernels: `noise_floor` in the table.
    """
    similarity = comparison.similarity
    if similarity is None:
        return Finding(Result())
    runs = [comparison.runs[run] for run in similarity.members]
    steps, verdicts = [int(run.config[STEP]) for run in runs], [str(run.verdict) for run in runs]
    distances, floor = similarity.distances, similarity.floor()
    table = pd.DataFrame({"step": steps, "verdict": verdicts})
    last = len(steps) - 1
    table["to_first"], table["noise_floor_first"] = distances[:, 0], floor[:, 0]
    table["to_last"], table["noise_floor_last"] = distances[:, last], floor[:, last]
    table["to_next"] = [*(distances[pair] for pair in pairwise(range(len(steps)))), np.nan]
    table["noise_floor_next"] = [*(floor[pair] for pair in pairwise(range(len(steps)))), np.nan]
    chord, length = float(distances[0, last]), float(np.nansum(table["to_next"]))
    nearer = np.flatnonzero(distances[:, last] < distances[:, 0])
    metrics = {"path/chord": chord, "path/nearer_to_last_from": float(steps[nearer[0]])}
    if length > 0:
        metrics["path/straightness"] = chord / length
    losses = np.array([run.metrics.get("trace/start_loss", np.nan) for run in runs])
    drawn = figures.along_training(_axis(steps), distances, floor, verdicts, losses)
    caption = (
        "Angular CKA between the kernels along training (0: the same up to scale, 1.57: unrelated). Bars: from each "
        "checkpoint's kernel to the next. Shaded: what independent Monte-Carlo noise of two samples of one kernel "
        "would give; all kernels here share one seed, so that kernels which hardly differ may lie closer. On the "
        "logarithmic axis step 0, the untrained network, stands one gap left of the first step."
    )
    return Finding(Result(metrics, {"path": table}, {"along_training": drawn}), {"along_training": caption})


def levels_of(comparison: Comparison, _: JobKernels | None = None) -> Finding:
    """Return when each level appears, as numbers `levels/...`, a table and a figure.

    Jobs without the analysis `levels` are left out.
    """
    runs = [run for run in comparison.runs if any(name.startswith(_CONTRAST) for name in run.metrics)]
    if len(runs) < 2:
        return Finding(Result())
    endings = ("_se", "_low", "_high")
    names = [name for name in runs[0].metrics if name.startswith(_CONTRAST) and not name.endswith(endings)]
    levels = [name.removeprefix(_CONTRAST) for name in names]
    steps = np.array([int(run.config[STEP]) for run in runs])
    contrasts = np.array([[run.metrics.get(name, np.nan) for name in names] for run in runs])  # [S, L]
    errors = np.array([[run.metrics.get(f"{name}_se", 0.0) for name in names] for run in runs])
    if not np.isfinite(contrasts).all():
        return Finding(Result(), notes=["the jobs were asked for different levels, so that none is followed"])
    table, metrics = emergence(levels, steps, contrasts, errors)
    drawn = figures.emergence(_axis(steps.tolist()), levels, contrasts, errors, table, THRESHOLD)
    caption = (
        "Contrast of each level of the hierarchy, (W - A) / (W + A) with W the mean coupling of pairs of probes within "
        "a group of the level and A of pairs across its groups, both within one group of the level above and of "
        "different classes. Bars: standard errors. Vertical lines: the step from which on a contrast stays above "
        f"{THRESHOLD}, where W is three times A, with its 90 % interval."
    )
    numbers = {f"levels/{name}": value for name, value in metrics.items()}
    return Finding(Result(numbers, {"emergence": table}, {"emergence": drawn}), {"emergence": caption})


def emergence(
    levels: Sequence[str],
    steps: np.ndarray,
    contrasts: np.ndarray,
    errors: np.ndarray,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Find the step from which each level's contrast exceeds a threshold until the end of training.

    Exceeding it for a while does not count: a mean coupling that changes its sign passes zero, near which the contrast
    is arbitrary. Between checkpoints the step is interpolated, linearly in log(1 + step). Errors: each contrast is
    resampled from a normal distribution of its standard error.

    Args:
        levels: L names, from the coarsest.
        steps: of training, [S], rising.
        contrasts: of the analysis `levels`, [S, L].
        errors: their standard errors, [S, L].
        threshold: the contrast from which a level counts as known.
        seed: of the resamples.

    Returns:
        A table (level, step, low, high: a 90 % interval): step 0 where the untrained network knows the level, NaN where
        the last checkpoint does not. And numbers: `step_<level>`; if all levels appear also `in_order`, whether each
        appears later than the one above, and `in_order_share`, the share of resamples in which it does.
    """
    times = np.log1p(np.asarray(steps, dtype=float))
    crossed = _crossings(times, contrasts[None], threshold)[0]  # [L]
    drawn = np.random.default_rng(seed).normal(contrasts, errors, (_RESAMPLES, *contrasts.shape))
    resampled = _crossings(times, drawn, threshold)  # [B, L]
    # A level that never appears has an infinite step, which quantiles must not interpolate with finite ones.
    low, high = np.expm1(np.quantile(resampled, [0.05, 0.95], axis=0, method="nearest"))
    table = pd.DataFrame({"level": list(levels), "step": np.expm1(crossed), "low": low, "high": high})
    table = table.replace(np.inf, np.nan)
    known = table.dropna(subset="step")
    metrics = {f"step_{level}": float(step) for level, step in zip(known["level"], known["step"], strict=True)}
    if len(levels) > 1 and len(known) == len(levels):
        metrics["in_order"] = float((crossed[:-1] < crossed[1:]).all())
        metrics["in_order_share"] = float((resampled[:, :-1] < resampled[:, 1:]).all(axis=1).mean())
    return table, metrics


def _crossings(times: np.ndarray, contrasts: np.ndarray, threshold: float) -> np.ndarray:
    """Return when each curve [B, S, L] crosses the threshold for the last time, [B, L]; inf where it ends below."""
    below = contrasts < threshold
    last = len(times) - 1 - below[:, ::-1].argmax(axis=1)  # [B, L], the last checkpoint below
    after = np.minimum(last + 1, len(times) - 1)
    lower, upper = (np.take_along_axis(contrasts, at[:, None], axis=1)[:, 0] for at in (last, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        crossing = times[last] + (threshold - lower) / (upper - lower) * (times[after] - times[last])
    return np.where(~below.any(axis=1), times[0], np.where(below[:, -1], np.inf, crossing))


def maps_of(comparison: Comparison, kernels: JobKernels) -> Finding:
    """Return the aligned maps of the kernels, coloured by the run's label.

    `maps/displacement` is the mean distance that a probe moves between successive maps, in radii of the map, and
    `maps/neighbours_kept` the share of its 15 nearest probes under the kernel that are its nearest on the map;
    `..._apart` are the same for maps that are computed one by one.
    """
    # Kernels that cannot be compared have different probes, and no map in common.
    first = next(iter(kernels.values()), None)
    if comparison.similarity is None or first is None or first.probes < _FEWEST_PROBES:
        return Finding(Result())
    runs, maps = [comparison.runs[number] for number in kernels], moving_maps(list(kernels.values()))
    metrics = {
        "maps/displacement": _mean_displacement(maps.layouts),
        "maps/displacement_apart": _mean_displacement(maps.apart),
        "maps/neighbours_kept": float(maps.kept.mean()),
        "maps/neighbours_kept_apart": float(maps.kept_apart.mean()),
    }
    name, labels = _colours(runs[0], first)
    steps = [int(run.config[STEP]) for run in runs]
    titles, losses = [f"step {step:,}" for step in steps], [run.metrics.get("trace/start_loss") for run in runs]
    drawn = figures.aligned_maps(maps.layouts, labels, name, titles, [run.verdict or "none" for run in runs])
    words = ["" if loss is None else f"loss {loss:.3g}" for loss in losses]
    animation = figures.moving_map(maps.layouts, labels, titles, words, np.log1p(steps).tolist())
    points = {"id": first.ids, name: labels}
    layouts = zip(steps, maps.layouts, strict=True)
    tables = [pd.DataFrame({"step": step} | points | {"x": xy[:, 0], "y": xy[:, 1]}) for step, xy in layouts]
    captions = {"aligned_maps": _caption_of_maps(metrics, name)}
    captions["moving_map"] = "The same maps, moving. Loss: the probes' mean at the checkpoint."
    result = Result(metrics, {"maps": pd.concat(tables)}, {"aligned_maps": drawn}, {}, {"moving_map": animation})
    return Finding(result, captions)


def _mean_displacement(layouts: np.ndarray) -> float:
    return float(np.mean([displacement(*pair) for pair in pairwise(layouts)]))


def _caption_of_maps(metrics: Mapping[str, float], colours: str) -> str:
    moved, moved_apart, kept, kept_apart = metrics.values()
    return (
        "UMAP of each kernel's distance sqrt(2 (1 - R)), started from the map of the mean kernel and turned onto the "
        f"map before: a probe moves by {moved:.2f} of the map's radius from one to the next, against {moved_apart:.2f} "
        f"on maps made one by one, and {kept:.0%} of its 15 nearest probes are its nearest on the map, against "
        f"{kept_apart:.0%}. Colours: {colours}."
    )


def _colours(run: Run, kernel: LossKernel) -> tuple[str, np.ndarray]:
    """Return the label that colours the probes: the one of the run, else the first, else the probe's number."""
    name = str(run.config.get("label"))
    name = name if name in kernel.labels else next(iter(kernel.labels), "probe")
    return name, np.asarray(kernel.labels.get(name, np.arange(kernel.probes)))


def _axis(steps: Sequence[int]) -> Axis:
    return Axis("training step", [str(step) for step in steps], [float(step) for step in steps])


# Maps of several kernels over the same probes: a probe moves only if its neighbours change.


@dataclass(frozen=True)
class MovingMaps:
    """Layouts of P kernels in one frame.

    Attributes:
        layouts: [P, N, 2], aligned.
        apart: [P, N, 2], each computed alone, for comparison with the aligned ones.
        kept: [P, N] share of each probe's nearest neighbours under the kernel that are its nearest on the map.
        kept_apart: [P, N] the same, of the layouts computed alone.
    """

    layouts: np.ndarray
    apart: np.ndarray
    kept: np.ndarray
    kept_apart: np.ndarray


def moving_maps(
    kernels: Sequence[LossKernel], neighbours: int = 15, min_distance: float = 0.1, seed: int = 0
) -> MovingMaps:
    """Lay out every kernel by UMAP from a start that all share, and turn each map onto the one before.

    The start is the map of the mean correlation matrix. From it the neighbours of every kernel pull its probes, at a
    twentieth of UMAP's usual rate; a rotation or reflection (orthogonal Procrustes) then aligns it with the previous
    map. On nine kernels of 500 digits a probe moves by 0.09 radii between maps, against 1.26 between maps computed
    alone, and as many neighbours are kept; umap's AlignedUMAP reaches 0.03, keeps fewer, and takes 42 s instead of 3.

    Args:
        kernels: over the same probes, in order.
        neighbours: UMAP's n_neighbors.
        min_distance: UMAP's min_dist.
        seed: fixes the layouts.

    Raises:
        InputError: fewer than two kernels, or other probes in one.

    Source: McInnes, Healy & Melville 2018 (UMAP); Schönemann 1966 (Procrustes).
    """
    require(len(kernels) >= 2, f"moving maps need >= 2 kernels, got {len(kernels)}; sample at more checkpoints")
    same = all(np.array_equal(kernel.ids, kernels[0].ids) for kernel in kernels)
    require(same, "moving maps need kernels over the same probes; keep the data fixed, as with dataset.seed=0")
    k = min(neighbours, kernels[0].probes - 1)
    near = [nearest_probes(kernel, k) for kernel in kernels]
    mean = _mean_kernel(kernels)
    start = umap_layout(mean, nearest_probes(mean, k), min_distance, 2, seed)
    pairs = list(zip(kernels, near, strict=True))
    aligned = chained([_layout_from(start, kernel, nearest, min_distance, seed) for kernel, nearest in pairs])
    apart = [umap_layout(kernel, nearest, min_distance, 2, seed) for kernel, nearest in pairs]
    kept, kept_apart = (
        np.array([kept_neighbours(layout, nearest) for layout, nearest in zip(layouts, near, strict=True)])
        for layouts in (aligned, apart)
    )
    return MovingMaps(np.array(aligned), np.array(apart), kept, kept_apart)


def chained(layouts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return centred layouts [N, d], each rotated or reflected onto the previous one (orthogonal Procrustes)."""
    from scipy.linalg import orthogonal_procrustes

    result: list[np.ndarray] = []
    for layout in layouts:
        centred = layout - layout.mean(axis=0)
        turn = orthogonal_procrustes(centred, result[-1])[0] if result else np.eye(layout.shape[1])
        result.append(centred @ turn)
    return result


def displacement(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return how far each point [N] moves between two layouts [N, d], in units of their radius.

    The radius is the root mean square distance of both layouts' points from their own centre.
    """
    spread = [np.square(layout - layout.mean(axis=0)).sum(axis=1).mean() for layout in (before, after)]
    radius = float(np.sqrt(np.mean(spread)))
    moved = np.linalg.norm(after - before, axis=1)
    return moved / radius if radius > 0 else np.zeros_like(moved)


def _mean_kernel(kernels: Sequence[LossKernel]) -> LossKernel:
    """Return a kernel whose correlation matrix is the mean of those of the kernels, with as many features as probes."""
    mean = sum((kernel.correlation() for kernel in kernels), np.zeros((kernels[0].probes,) * 2)) / len(kernels)
    values, vectors = np.linalg.eigh((mean + mean.T) / 2)
    return LossKernel.from_features(vectors * np.sqrt(np.maximum(values, 0.0)))


def _layout_from(start: np.ndarray, kernel: LossKernel, near: Neighbours, min_distance: float, seed: int) -> np.ndarray:
    """Return the kernel's layout [N, 2] by a short descent from a start [N, 2]."""
    from umap import UMAP  # takes seconds to import and compile

    itself = np.arange(kernel.probes)[:, None]  # UMAP counts a point as its own first neighbour
    indices = np.hstack([itself, near.indices[:, :-1]])
    distances = np.hstack([0.0 * itself, near.distances[:, :-1]]).astype(np.float32)
    options: dict[str, Any] = {"n_neighbors": indices.shape[1], "min_dist": min_distance, "random_state": seed}
    options |= {
        "init": start.copy(),
        "n_epochs": _EPOCHS,
        "learning_rate": _RATE,
        "precomputed_knn": (indices, distances),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(UMAP(**options).fit_transform(kernel.standardised().astype(np.float32)))
