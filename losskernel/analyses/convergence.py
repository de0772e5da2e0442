"""May the kernel be trusted? Mixing, drift, effective draws; the chains' loss traces."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from losskernel import diagnostics, figures
from losskernel.analyses.result import Result
from losskernel.diagnosis import diagnose
from losskernel.kernel import LossKernel
from losskernel.resampling import batch_means, over
from losskernel.traces import LossTraces


@dataclass(frozen=True)
class Convergence:
    """R-hat and effective draws (ArviZ), drift share, relaxation time, distance from w*, per chain and in all."""

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the diagnosis' numbers, a table of chains, and the loss traces."""
        mean_loss = traces.losses.values.mean(axis=2, dtype=np.float64)
        schedule = traces.meta.get("identity", {}).get("schedule", {})
        distance = traces.record("distance")
        table = pd.DataFrame(
            {
                "chain": np.arange(len(mean_loss)),
                "mean_loss": mean_loss.mean(1),
                "sd_loss": mean_loss.std(1, ddof=1),
                "ess": [diagnostics.ess(own[None]) for own in mean_loss],
                "trend_share": [diagnostics.trend_share(own[None]) for own in traces.losses.values],
            }
        )
        if distance is not None:
            table["mean_distance"] = distance.mean(1)
        train_loss = traces.record("train_loss")
        figure = figures.loss_traces(
            mean_loss if train_loss is None else train_loss,
            traces.record("burn_in_loss"),
            schedule.get("thinning", 1),
            schedule.get("burn_in", 0),
            traces.meta.get("start_train_loss", {}).get("value"),
            distance,
            "mean probe loss" if train_loss is None else "training loss (minibatches)",
        )
        diagnosis = diagnose(traces)
        metrics = dict(diagnosis.metrics)
        if distance is not None:
            metrics |= batch_means("distance", distance)
        for name in ("curvature", "acceptance", "step_inflation"):  # measured once per chain
            values = traces.record(name)
            metrics |= {} if values is None else over(name, values, metrics[name])
        return Result(metrics, {"chains": table, "screens": pd.DataFrame(diagnosis.screens)}, {"loss_traces": figure})
