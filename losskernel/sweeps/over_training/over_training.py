"""over_training(): the kernels at the checkpoints of one training run, side by side."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.errors import require
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sweeps.around import JobKernel, compare_jobs, read_jobs
from losskernel.sweeps.compare import ALIKE, Comparison
from losskernel.sweeps.comparison_page import Finding
from losskernel.sweeps.over_training.moving_maps import displacement, moving_maps

STEP = "training_step"  # what the jobs differ in
# Probes at most, for maps; the distances of kernels use as many.
LIMIT = 1000
_FEWEST_PROBES = 10  # of a map
# A contrast at which probes couple three times as much within the groups of a level as across them.
THRESHOLD = 0.5
_RESAMPLES = 1000
_CONTRAST = "levels/contrast_"


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
    folder = Path(folder)
    remedy = "give one of runs at checkpoints, as losskernel-dynamics leaves"
    require(folder.is_dir(), f"{folder} is not a folder; {remedy}")
    runs = read_jobs(folder, STEP, step_of, lambda step: step)
    questions = [path_of, levels_of, maps_of]
    return compare_jobs("dynamics", runs, folder, questions, limit=LIMIT, metrics=metrics, alike=alike, tracker=tracker)


def step_of(folder: Path) -> int:
    """Return the training step of a job's checkpoint, by the job's name.

    Raises:
        InputError: the folder is not called after a checkpoint.
    """
    match = re.fullmatch(r"step-(\d+)", folder.name)
    require(match is not None, f"{folder} must be called step-<number>, as losskernel-dynamics does; move it elsewhere")
    return int(match.group(1))  # pyright: ignore[reportOptionalMemberAccess]


def kept_checkpoints(run: Path, asked: Any = "all") -> dict[str, str]:
    """Return the checkpoints kept along a run's training, in order: step-0000123 -> path.

    Args:
        run: the run's folder.
        asked: "all", "last", a step, or a list of steps.

    Raises:
        InputError: the run kept none, its training has not ended, or a step is not among them.
    """
    folder = run / "checkpoints"
    files = {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.pt"))}
    remedy = "train it with training.checkpoints=8, not from checkpoint="
    require(len(files) > 0, f"run={run} kept no checkpoints along its training; {remedy}")
    trained = (folder / "trained.pt").is_file()
    require(trained, f"run={run} has not ended its training; continue it with paths.run={run}")
    if asked == "last":
        asked = [max(files)]
    steps = list(files) if asked == "all" else list(asked) if isinstance(asked, (list, tuple)) else [asked]
    known = ", ".join(map(str, files))
    for step in steps:
        there = isinstance(step, int) and not isinstance(step, bool) and step in files
        require(there, f"checkpoints={asked}: there is none of step {step}; choose all, last, or from [{known}]")
    require(len(steps) > 0, f"checkpoints=[] names none; choose all, last, or from [{known}]")
    return {files[step].stem: str(files[step]) for step in sorted(set(steps))}


def path_of(comparison: Comparison, _: Sequence[JobKernel] = ()) -> Finding:
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


def levels_of(comparison: Comparison, _: Sequence[JobKernel] = ()) -> Finding:
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


def maps_of(comparison: Comparison, jobs: list[JobKernel]) -> Finding:
    """Return the aligned maps of the kernels, coloured by the run's label.

    `maps/displacement` is the mean distance that a probe moves between successive maps, in radii of the map, and
    `maps/neighbours_kept` the share of its 15 nearest probes under the kernel that are its nearest on the map;
    `..._apart` are the same for maps that are computed one by one.
    """
    # Kernels that cannot be compared have different probes, and no map in common.
    if comparison.similarity is None or jobs[0].kernel.probes < _FEWEST_PROBES:
        return Finding(Result())
    runs, maps = [comparison.runs[job.number] for job in jobs], moving_maps([job.kernel for job in jobs])
    metrics = {
        "maps/displacement": _mean_displacement(maps.layouts),
        "maps/displacement_apart": _mean_displacement(maps.apart),
        "maps/neighbours_kept": float(maps.kept.mean()),
        "maps/neighbours_kept_apart": float(maps.kept_apart.mean()),
    }
    name, labels = _colours(comparison, jobs[0])
    steps = [int(run.config[STEP]) for run in runs]
    titles, losses = [f"step {step:,}" for step in steps], [run.metrics.get("trace/start_loss") for run in runs]
    drawn = figures.aligned_maps(maps.layouts, labels, name, titles, [run.verdict or "none" for run in runs])
    words = ["" if loss is None else f"loss {loss:.3g}" for loss in losses]
    animation = figures.moving_map(maps.layouts, labels, titles, words, np.log1p(steps).tolist())
    points = {"id": jobs[0].kernel.ids, name: labels}
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


def _colours(comparison: Comparison, first: JobKernel) -> tuple[str, np.ndarray]:
    """Return the label that colours the probes: the one of the run, else the first, else the probe's number."""
    labels = first.kernel.labels
    name = str(comparison.runs[first.number].config.get("label"))
    name = name if name in labels else next(iter(labels), "probe")
    return name, np.asarray(labels.get(name, np.arange(first.kernel.probes)))


def _axis(steps: Sequence[int]) -> Axis:
    return Axis("training step", [str(step) for step in steps], [float(step) for step in steps])
