"""over_training(): the kernels at the checkpoints of one training run, side by side."""

import re
from collections.abc import Sequence
from functools import partial
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
from losskernel.sweeps.around import TRACE_PANELS, Finding, Look, look, read_jobs, side_by_side
from losskernel.sweeps.compare import ALIKE, Comparison
from losskernel.sweeps.metric_panels import panels_for
from losskernel.sweeps.over_training.moving_maps import displacement, moving_maps

# Probes of which maps are made; the kernels' distances take as many.
LIMIT = 1000


def over_training(
    folder: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Put the kernels sampled along a training run side by side; report.html, figures and tables in their folder.

    Args:
        folder: holds one run per checkpoint, in folders called step-0000123.
        metrics: what to draw against the step; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two checkpoints have a kernel, or a metric is not there.
        TraceError: a run's files are damaged, or the folder cannot be written.
    """
    folder = Path(folder)
    require(
        folder.is_dir(), f"{folder} is not a folder; give one of runs at checkpoints, as losskernel-dynamics leaves"
    )
    runs, looks = look(read_jobs(folder, STEP, step_of, lambda step: step), LIMIT)
    questions = [path_of, levels_of, partial(maps_of, looks=looks)]
    specs = panels_for(runs, metrics, TRACE_PANELS)
    return side_by_side("dynamics", runs, folder, specs, questions, alike=alike, tracker=tracker)


def step_of(folder: Path) -> int:
    """Return the training step of a job's checkpoint, by the job's name.

    Raises:
        InputError: the folder is none of a checkpoint.
    """
    found = re.fullmatch(r"step-(\d+)", folder.name)
    require(found is not None, f"{folder} must be called step-<number>, as losskernel-dynamics does; move it elsewhere")
    return int(found.group(1))  # pyright: ignore[reportOptionalMemberAccess]


def kept_checkpoints(run: Path, asked: Any = "all") -> dict[str, str]:
    """Return the checkpoints kept along a run's training, in order: step-0000123 -> path.

    Args:
        run: the run's folder.
        asked: "all", "last", a step, or a list of steps.

    Raises:
        InputError: the run kept none, its training has not ended, or a step is not among them.
    """
    folder = run / "checkpoints"
    found = {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.pt"))}
    require(
        len(found) > 0,
        f"run={run} kept no checkpoints along its training; train it with training.checkpoints=8, not from checkpoint=",
    )
    require(
        (folder / "trained.pt").is_file(), f"run={run} has not ended its training; continue it with paths.run={run}"
    )
    if asked == "last":
        asked = [max(found)]
    steps = list(found) if asked == "all" else list(asked) if isinstance(asked, (list, tuple)) else [asked]
    known = ", ".join(map(str, found))
    for step in steps:
        there = isinstance(step, int) and not isinstance(step, bool) and step in found
        require(there, f"checkpoints={asked}: there is none of step {step}; choose all, last, or from [{known}]")
    require(len(steps) > 0, f"checkpoints=[] names none; choose all, last, or from [{known}]")
    return {found[step].stem: str(found[step]) for step in sorted(set(steps))}


STEP = "training_step"


def path_of(found: Comparison) -> Finding:
    """Return the distances of each kernel to the first, the last and the next, with numbers, a table and a figure.

    `path/chord` is the distance between the ends, `path/straightness` its share in the length of the path, and
    `path/nearer_to_last_from` the first step whose kernel is nearer to the last than to the first. All angles are
    angular CKA in radians, and contain the noise of both kernels: `noise_floor` in the table.
    """
    near = found.similarity
    if near is None:
        return Finding(Result())
    steps = [int(found.runs[run].config[STEP]) for run in near.members]
    distances, floor = near.distances, near.floor()
    table = pd.DataFrame({"step": steps, "verdict": [found.runs[run].verdict for run in near.members]})
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
    losses = np.array([found.runs[run].metrics.get("trace/start_loss", np.nan) for run in near.members])
    axis = Axis("training step", [str(step) for step in steps], [float(step) for step in steps])
    verdicts = [str(found.runs[run].verdict) for run in near.members]
    drawn = figures.along_training(axis, distances, floor, verdicts, losses)
    caption = (
        "Angular CKA between the kernels along training (0: the same up to scale, 1.57: unrelated). Bars: from each "
        "checkpoint's kernel to the next. Shaded: what independent Monte-Carlo noise of two samples of one kernel "
        "would give; all kernels here share one seed, so that kernels which hardly differ may lie closer. On the "
        "logarithmic axis step 0, the untrained network, stands one gap left of the first step."
    )
    return Finding(Result(metrics, {"path": table}, {"along_training": drawn}), {"along_training": caption})


_CONTRAST = "levels/contrast_"


def levels_of(found: Comparison) -> Finding:
    """Return when each level appears, with numbers `levels/...`, a table and a figure; nothing without the analysis.

    Jobs whose kernel was not asked for its levels are left out.
    """
    runs = [run for run in found.runs if any(name.startswith(_CONTRAST) for name in run.metrics)]
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
    axis = Axis("training step", [str(step) for step in steps], steps.astype(float).tolist())
    drawn = figures.emergence(axis, levels, contrasts, errors, table, THRESHOLD)
    caption = (
        "Contrast of each level of the hierarchy, (W - A) / (W + A) with W the mean coupling of pairs of probes within "
        "a group of the level and A of pairs across its groups, both within one group of the level above and of "
        "different classes. Bars: standard errors. Vertical lines: the step from which on a contrast stays above "
        f"{THRESHOLD}, where W is three times A, with its 90 % interval."
    )
    numbers = {f"levels/{name}": value for name, value in metrics.items()}
    return Finding(Result(numbers, {"emergence": table}, {"emergence": drawn}), {"emergence": caption})


_RESAMPLES = 1000
# At which probes couple three times as much within the groups of a level as across them.
THRESHOLD = 0.5


def emergence(
    levels: Sequence[str],
    steps: np.ndarray,
    contrasts: np.ndarray,
    errors: np.ndarray,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Find the step from which on each level's contrast exceeds a threshold, to the end of training.

    Passing it for a while does not count: a coupling that changes its sign passes zero, where it contrasts with
    anything. Between checkpoints the step is interpolated, evenly in log(1 + step). Errors: each contrast is drawn anew
    from a normal distribution of its own width.

    Args:
        levels: L names, from the coarsest.
        steps: of training, [S], rising.
        contrasts: of the analysis `levels`, [S, L].
        errors: their standard errors, [S, L].
        threshold: what a level must exceed to count as known.
        seed: of the resamples.

    Returns:
        A table (level, step, low, high: a 90 % interval): 0 where the untrained network knows the level, and no step
        where the last one does not. And numbers: `step_<level>`; where all appear also `in_order`, whether each
        appears later than the one above, and `in_order_share`, in which share of the resamples.
    """
    places = np.log1p(np.asarray(steps, dtype=float))
    found = _passed(places, contrasts[None], threshold)[0]  # [L]
    drawn = np.random.default_rng(seed).normal(contrasts, errors, (_RESAMPLES, *contrasts.shape))
    resampled = _passed(places, drawn, threshold)  # [B, L]
    # Never is later than anything: infinite, in which quantiles must not interpolate.
    low, high = np.expm1(np.quantile(resampled, [0.05, 0.95], axis=0, method="nearest"))
    table = pd.DataFrame({"level": list(levels), "step": np.expm1(found), "low": low, "high": high})
    table = table.replace(np.inf, np.nan)
    known = table.dropna(subset="step")
    metrics = {f"step_{level}": float(step) for level, step in zip(known["level"], known["step"], strict=True)}
    if len(levels) > 1 and len(known) == len(levels):
        metrics["in_order"] = float((found[:-1] < found[1:]).all())
        metrics["in_order_share"] = float((resampled[:, :-1] < resampled[:, 1:]).all(axis=1).mean())
    return table, metrics


def _passed(places: np.ndarray, contrasts: np.ndarray, threshold: float) -> np.ndarray:
    """Return where each curve [B, S, L] passes the threshold for the last time, [B, L]; inf where it ends below."""
    below = contrasts < threshold
    last = len(places) - 1 - below[:, ::-1].argmax(axis=1)  # [B, L], the last checkpoint below
    after = np.minimum(last + 1, len(places) - 1)
    lower, upper = (np.take_along_axis(contrasts, at[:, None], axis=1)[:, 0] for at in (last, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        crossing = places[last] + (threshold - lower) / (upper - lower) * (places[after] - places[last])
    return np.where(~below.any(axis=1), places[0], np.where(below[:, -1], np.inf, crossing))


_FEWEST = 10


def maps_of(found: Comparison, looks: list[Look]) -> Finding:
    """Return the aligned maps of the kernels, coloured by the run's label.

    `maps/displacement` is the mean over probes and successive maps of how far a probe moves, in radii of the map, and
    `maps/neighbours_kept` the share of its 15 nearest probes under the kernel that are its nearest on the map;
    `..._apart` are the same of maps that are made one by one.
    """
    if found.similarity is None or looks[0].kernel.probes < _FEWEST:  # what cannot be compared shares no map
        return Finding(Result())
    kernels, runs = [each.kernel for each in looks], [found.runs[each.number] for each in looks]
    maps = moving_maps(kernels)
    moved, moved_apart = (
        float(np.mean([displacement(*pair) for pair in pairwise(layouts)])) for layouts in (maps.layouts, maps.apart)
    )
    metrics = {
        "maps/displacement": moved,
        "maps/displacement_apart": moved_apart,
        "maps/neighbours_kept": float(maps.kept.mean()),
        "maps/neighbours_kept_apart": float(maps.kept_apart.mean()),
    }
    name, labels = _colours(found, looks[0])
    steps = [int(run.config[STEP]) for run in runs]
    titles = [f"step {step:,}" for step in steps]
    losses = [
        f"loss {run.metrics['trace/start_loss']:.3g}" if "trace/start_loss" in run.metrics else "" for run in runs
    ]
    drawn = figures.aligned_maps(maps.layouts, labels, name, titles, [run.verdict or "none" for run in runs])
    moving = figures.moving_map(maps.layouts, labels, titles, losses, np.log1p(steps).tolist())
    table = pd.concat(
        [
            pd.DataFrame({"step": step, "id": kernels[0].ids, name: labels, "x": layout[:, 0], "y": layout[:, 1]})
            for step, layout in zip(steps, maps.layouts, strict=True)
        ]
    )
    how = (
        "UMAP of each kernel's distance sqrt(2 (1 - R)), started from the map of the mean kernel and turned onto the "
        f"map before: a probe moves by {moved:.2f} of the map's radius from one to the next, against {moved_apart:.2f} "
        f"on maps made one by one, and {metrics['maps/neighbours_kept']:.0%} of its 15 nearest probes are its nearest "
        f"on the map, against {metrics['maps/neighbours_kept_apart']:.0%}. Colours: {name}."
    )
    captions = {"aligned_maps": how, "moving_map": "The same maps, moving. Loss: the probes' mean at the checkpoint."}
    return Finding(Result(metrics, {"maps": table}, {"aligned_maps": drawn}, {}, {"moving_map": moving}), captions)


def _colours(found: Comparison, first: Look) -> tuple[str, np.ndarray]:
    """Return the label that colours the probes: the run's own, else the first, else their number."""
    labels = first.kernel.labels
    name = str(found.runs[first.number].config.get("label"))
    name = name if name in labels else next(iter(labels), "probe")
    return name, np.asarray(labels.get(name, np.arange(first.kernel.probes)))
