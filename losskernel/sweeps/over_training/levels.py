"""Levels of a hierarchy along training, as the kernels' own analysis `levels` found them."""

import numpy as np

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.sweeps.around import Finding
from losskernel.sweeps.compare import Comparison
from losskernel.sweeps.over_training.emergence import THRESHOLD, emergence
from losskernel.sweeps.over_training.kernel_path import STEP

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
