"""How far the kernel travels along training, and when."""

from itertools import pairwise

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.sweeps.around import Finding
from losskernel.sweeps.compare import Comparison

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
